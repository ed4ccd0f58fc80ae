"""What compiled code must give, in plain Python and numpy: the same meaning, written to be read."""
