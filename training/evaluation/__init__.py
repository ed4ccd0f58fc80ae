"""Measures how good a model is, and writes the report about it."""
