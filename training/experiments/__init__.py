"""Experiments: comparisons, studies, and recommenders under attack."""
