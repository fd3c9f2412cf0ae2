"""The machine: processes, files, signals, the console, torch's settings."""
