"""Explains a recipe before it is run: the text of `jointgen explain`."""
