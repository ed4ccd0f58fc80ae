"""Offline half of recguard: from a behaviour log to a bundle that the service loads."""

import service  # noqa: F401  imported first, because it keeps ONNX Runtime from reporting its use
