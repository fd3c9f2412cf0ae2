"""Helpers that tests import: paths, small runs, small models, networks written by hand, the command line."""
