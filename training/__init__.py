"""Offline half of recguard: from a behaviour log to a bundle that the service loads."""
