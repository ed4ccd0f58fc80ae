"""The same over a Ray cluster."""
