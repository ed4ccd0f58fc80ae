"""Runs the graph in ONNX Runtime, and states what a graph must look like to be run."""

import ctypes
import logging
import math
import os
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.windows import Outputs

logger = logging.getLogger(__name__)
Requested = Literal["auto", "cuda", "cpu"]

# The graph's contract: names, element types, and shapes by axis name. Word pieces are positions like any other.
INPUT = ("ids", "tensor(int32)", ("batch", "positions", "slots"))
OUTPUTS = (
    ("sequence_logit", "tensor(float)", ("batch",)),
    ("novelty", "tensor(float)", ("batch",)),
    ("type_logits", "tensor(float)", ("batch", "types")),
    ("event_logits", "tensor(float)", ("batch", "positions")),
)


class GraphError(ValueError):
    """The file is no graph that this service can run."""


class ProviderError(RuntimeError):
    """The execution provider that was asked for cannot be had."""


def providers(requested: Requested) -> list[str]:
    """ONNX Runtime's names of the providers to try, best first.

    Raises:
        ProviderError: CUDA is asked for and this build of ONNX Runtime has none.
    """
    available = "CUDAExecutionProvider" in ort.get_available_providers()
    if requested == "cuda" and not available:
        raise ProviderError(
            "RECGUARD_PROVIDER=cuda, but this ONNX Runtime has no CUDA; install the gpu extra, or use auto or cpu"
        )
    return (
        ["CUDAExecutionProvider", "CPUExecutionProvider"]
        if requested != "cpu" and available
        else ["CPUExecutionProvider"]
    )


def _driver_present() -> bool:
    """Whether an NVIDIA driver is here: without one, asking for CUDA costs ONNX Runtime a page of error text."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """CPU cores that this process may use: those it is pinned to, and no more than its container's limit."""
    usable = len(os.sched_getaffinity(0))
    for file, of_one in (("cpu.max", None), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota, *period = (cgroup / file).read_text().split()
            period = period or (cgroup / str(of_one)).read_text().split()
        except (OSError, ValueError):
            continue
        if quota.isdecimal():
            usable = min(usable, max(math.ceil(int(quota) / int(period[0])), 1))
    return usable


class Engine:
    """One ONNX Runtime session.

    Args:
        path: the graph.
        requested: `cuda` fails without CUDA; `auto` takes it where it is, else the CPU.
        threads: intra-op threads on the CPU; 0 takes one for each core.

    Raises:
        GraphError: not a graph, or one of another shape.
        ProviderError: CUDA was asked for and did not load.
    """

    def __init__(self, path: Path, requested: Requested = "cpu", threads: int = 0) -> None:
        wanted = providers(requested)
        if requested == "auto" and not _driver_present():
            wanted = ["CPUExecutionProvider"]
        if len(wanted) > 1:
            ort.preload_dlls()  # the CUDA libraries that pip installed beside ONNX Runtime, if it did
        options = ort.SessionOptions()
        self.threads = threads or cores()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        try:
            self.session = ort.InferenceSession(str(path), options, providers=wanted)
        except Exception as error:  # ONNX Runtime raises classes of its own that share no base
            raise GraphError(f"{path}: ONNX Runtime cannot load it: {error}") from error
        self.provider = "cuda" if self.session.get_providers()[0] == "CUDAExecutionProvider" else "cpu"
        if requested == "cuda" and self.provider != "cuda":
            raise ProviderError(
                "RECGUARD_PROVIDER=cuda, but the CUDA provider did not load; see ONNX Runtime's message above"
            )
        self.precision = {"model.int8.onnx": "int8"}.get(path.name, "fp32")
        self._check(path)
        logger.debug("engine: %s on %s (asked for %s)", path.name, self.provider, requested)

    @property
    def frees_the_core(self) -> bool:
        """Whether the caller's core can do something else while the graph runs."""
        return self.provider != "cpu" or cores() > 1

    @property
    def batch_tokens(self) -> int:
        """Positions of a batch from which on a larger one gains nothing worth its latency."""
        return 16_384 if self.provider == "cuda" else 2048 * self.threads

    def _check(self, path: Path) -> None:
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        found = [(i.name, i.type, len(i.shape)) for i in (*inputs, *outputs)]
        wanted = [(name, kind, len(shape)) for name, kind, shape in (INPUT, *OUTPUTS)]
        if found != wanted:
            raise GraphError(f"{path}: its inputs and outputs are {found}; this service needs {wanted}")
        self.slots = int(inputs[0].shape[2])
        self.types = int(outputs[2].shape[1])

    def run(self, ids: NDArray[np.int32]) -> Outputs:
        """Scores windows: int32 (B, P, slots) of table rows, zero where there is nothing.

        Raises:
            FloatingPointError: the graph answered something that is not a finite number.
        """
        outputs = Outputs(*self.session.run(None, {"ids": ids}))
        if not all(np.isfinite(values).all() for values in vars(outputs).values()):
            raise FloatingPointError("the model answered a value that is not finite")
        return outputs
