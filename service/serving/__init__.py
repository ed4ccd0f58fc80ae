"""A request's life, and which model is in force."""
