"""From a log to a bundle."""
