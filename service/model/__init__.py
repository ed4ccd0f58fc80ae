"""Rows and logits become a score with its reasons; all that a bundle holds."""
