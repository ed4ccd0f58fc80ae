"""How much is said on the log, by this process and by those that it starts."""

import logging


def quieten(level: int) -> None:
    """Sets our own log to a level, and that of talkative libraries to errors."""
    for name in ("training", "service"):
        logging.getLogger(name).setLevel(level)
    for name in ("torch.onnx", "transformers", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
