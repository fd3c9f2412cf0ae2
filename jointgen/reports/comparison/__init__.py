"""`jointgen compare`: one table over runs, beside published numbers. Torch-free but for `figures`."""
