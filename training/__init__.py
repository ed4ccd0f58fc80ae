"""Offline half of recguard: from a behaviour log to a bundle that the service loads."""

import os

import service  # noqa: F401  imported first, because it keeps ONNX Runtime from reporting its use

# Threads of torch that wait for each other hold their core meanwhile, unless this is set before its first import. Where
# another process wanted that core, training took seven times as long: see "What a fit costs" in RESULTS.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
