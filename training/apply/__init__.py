"""Applies a bundle to a log: scores, repair and correction."""
