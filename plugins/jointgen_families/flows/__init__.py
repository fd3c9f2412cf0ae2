"""Normalizing flows: an invertible map of a Gaussian draw, with the density of what comes out."""
