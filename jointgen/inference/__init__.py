"""Inference: a trained model at work."""
