"""Training and scoring on a Ray cluster."""
