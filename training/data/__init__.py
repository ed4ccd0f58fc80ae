"""Logs and labels: reading, cleaning, splitting, and the attacks that can be injected."""
