"""`python -m training.cli`."""

from training.cli.main import app

app()
