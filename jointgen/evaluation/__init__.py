"""Evaluation: metrics of a model over a split."""
