"""Rows, splits and batches, and what a step sees of them."""
