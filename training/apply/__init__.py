"""A bundle applied to a log: scores, repair and correction."""
