"""How much this process, and those that it starts, write to the log."""

import logging


def quieten(level: int) -> None:
    """Sets our own log to a level; transformers logs only errors."""
    for name in ("training", "service"):
        logging.getLogger(name).setLevel(level)
    logging.getLogger("transformers").setLevel(logging.ERROR)
