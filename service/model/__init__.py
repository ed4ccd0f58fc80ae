"""Turns table rows and logits into scores with reasons, and reads all that a bundle holds."""
