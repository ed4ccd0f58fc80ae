"""The page that shows what a log holds before a fit: prepares a description for the template `describe.html.j2`."""

from training.data.describe import Description
from training.evaluation import pages


def render(description: Description, name: str) -> str:
    """The page for a description of the log of that name."""
    return pages.render("describe.html.j2", log=description, name=name)
