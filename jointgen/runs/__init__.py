"""The run folder: its files, its log and its checkpoints."""
