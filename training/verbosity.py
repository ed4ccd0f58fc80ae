"""How much this process, and those that it starts, write to the log."""

import logging


def quieten(level: int) -> None:
    """Sets our own log to a level; talkative libraries log only errors."""
    for name in ("training", "service"):
        logging.getLogger(name).setLevel(level)
    for name in ("torch.onnx", "transformers", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
