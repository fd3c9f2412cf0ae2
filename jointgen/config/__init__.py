"""Recipes as data: tables, their strict structure, and the way back to TOML."""
