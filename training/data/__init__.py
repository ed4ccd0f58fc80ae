"""Logs and labels: reads, cleans and splits them, and injects attacks."""
