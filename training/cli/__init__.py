"""The command `recguard-train`."""
