"""What callers send and are answered: the API's models, parsing, problems, and the words they share."""
