"""Runs the graph in ONNX Runtime, and states what a graph must look like to be run."""

import ctypes
import logging
import math
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.engine.outputs import Outputs

logger = logging.getLogger(__name__)
Requested = Literal["auto", "tensorrt", "cuda", "cpu"]
NAMES = {"tensorrt": "TensorrtExecutionProvider", "cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}
TENSORRT_ROWS = 256  # most of a batch there, since TensorRT plans memory for the longest of its most rows
# its kernel takes longer on a CPU than the addition and the norm that it stands for: 650 us a chunk of 64 events in
# place of 505, in int8 (ONNX Runtime 1.31, AMD EPYC)
SLOW_ON_CPU = ["SkipLayerNormFusion"]
SHORTEST = 8  # positions of the smallest bucket

# The graph's contract: names, element types, and shapes by axis name. Word pieces are positions like any other.
INPUT = ("ids", "tensor(int32)", ("batch", "positions", "slots"))
OUTPUTS = (
    ("sequence_logit", "tensor(float)", ("batch",)),
    ("type_logits", "tensor(float)", ("batch", "types")),
    ("event_logits", "tensor(float)", ("batch", "positions")),
    ("foreign_logits", "tensor(float)", ("batch", "positions")),
)


class GraphError(ValueError):
    """The file is no graph that this service can run."""


class ProviderError(RuntimeError):
    """The execution provider that was asked for cannot be had."""


@dataclass(frozen=True)
class Runtime:
    """How graphs are run; the same for every bundle of a service.

    Attributes:
        requested: `tensorrt` and `cuda` fail where they cannot be had; `auto` takes CUDA where it is, else the CPU.
        threads: intra-op threads on the CPU; 0 takes one for each core.
        bucketed: whether the CPU, too, runs at few shapes with buffers of their own, as a GPU always does.
        gpu_memory_mb: most memory of the GPU that a session may take; 0: no bound.
        cuda_graphs: whether what the GPU does for a shape is recorded at first and replayed from then on.
        tensorrt_cache: where TensorRT keeps what it built; None: it builds at each start.
        host: socket of the process that runs them, see `service.engine.remote`; None: this one.
    """

    requested: Requested = "cpu"
    threads: int = 0
    bucketed: bool = False
    gpu_memory_mb: int = 0
    cuda_graphs: bool = False
    tensorrt_cache: Path | None = None
    host: Path | None = None


CPU = Runtime()


def providers(runtime: Runtime, max_positions: int, slots: Callable[[], int]) -> list[tuple[str, dict[str, str]]]:
    """ONNX Runtime's names of the providers to try, best first, each with its options.

    Args:
        max_positions: most positions of a chunk.
        slots: gives the graph's slots; asked only where they are needed.

    Raises:
        ProviderError: this build of ONNX Runtime has not the provider that is asked for.
    """
    asked, had = runtime.requested, ort.get_available_providers()
    if asked == "auto":
        asked = "cuda" if NAMES["cuda"] in had and _driver_present() else "cpu"
    if NAMES[asked] not in had:
        raise ProviderError(
            f"RECGUARD_PROVIDER={asked}, but this ONNX Runtime has none; install the gpu extra, or use auto or cpu"
        )
    found: list[tuple[str, dict[str, str]]] = [(NAMES["cpu"], {})]
    if asked == "cpu":
        return found
    # by default the arena doubles whenever it grows, and a bound is soon met by what was never used
    cuda = {"arena_extend_strategy": "kSameAsRequested"}
    if runtime.gpu_memory_mb:
        cuda["gpu_mem_limit"] = str(runtime.gpu_memory_mb << 20)
    if asked == "cuda" and runtime.cuda_graphs:
        cuda["enable_cuda_graph"] = "1"
    found.insert(0, (NAMES["cuda"], cuda))
    if asked == "tensorrt":
        # ranges of shapes that are told beforehand: without them it builds anew whenever one is exceeded
        of, ranges = (
            slots(),
            {"min": (1, 1), "opt": (32, min(64, max_positions)), "max": (TENSORRT_ROWS, max_positions)},
        )
        tensorrt = {f"trt_profile_{k}_shapes": f"{INPUT[0]}:{b}x{p}x{of}" for k, (b, p) in ranges.items()}
        tensorrt["trt_cuda_graph_enable"] = str(int(runtime.cuda_graphs))
        if runtime.tensorrt_cache is not None:
            tensorrt |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(runtime.tensorrt_cache)}
        found.insert(0, (NAMES["tensorrt"], tensorrt))
    return found


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


def bucket(count: int) -> int:
    """The smallest of 1, 2, 3, 4, 6, 8, 12, 16, ... that is not less than `count`, which is at least 1."""
    power = 1 << (count - 1).bit_length()
    return three if power >= 4 and (three := power * 3 // 4) >= count else power


@dataclass(frozen=True)
class Buffers:
    """What batches of one shape are run with: where ids are put together, and the device's memory for all tensors."""

    ids: NDArray[np.int32]
    given: ort.OrtValue
    found: list[ort.OrtValue]
    binding: ort.IOBinding
    options: ort.RunOptions


class Bound:
    """Runs a session at few shapes, whose tensors keep their places in the device's memory.

    A device then tunes itself to each shape once, allocates nothing while it serves, and may replay what it recorded.
    A batch is filled up with padding and with copies of its first chunk, a third of it at most in each direction
    from `SHORTEST` positions on.

    Args:
        session: of the graph whose inputs and outputs are INPUT and OUTPUTS.
        device: ONNX Runtime's name of it.
        max_positions: most positions of a chunk.
        rows: most chunks of one run; a larger batch takes several.
    """

    def __init__(self, session: ort.InferenceSession, device: str, max_positions: int, rows: int) -> None:
        self.session, self.device, self.max_positions, self.rows = session, device, max_positions, rows
        self.buffers: dict[tuple[int, int], Buffers] = {}
        self.lock = threading.Lock()

    def run(self, ids: NDArray[np.int32]) -> list[NDArray[np.float32]]:
        """What `session.run` answers, of the batch alone; ids int32 (B, P, slots)."""
        if len(ids) > self.rows:
            parts = [self.run(ids[at : at + self.rows]) for at in range(0, len(ids), self.rows)]
            return [np.concatenate(part) for part in zip(*parts, strict=True)]
        count, positions, _ = ids.shape
        shape = min(bucket(count), self.rows), min(max(bucket(positions), SHORTEST), self.max_positions)
        with self.lock:
            of = self.buffers.get(shape) or self._allocate(*shape)
            of.ids[:count, :positions], of.ids[:count, positions:] = ids, 0
            of.ids[count:] = of.ids[0]  # a chunk of padding only has no mean
            of.given.update_inplace(of.ids)
            self.session.run_with_iobinding(of.binding, of.options)
            found = [value.numpy()[:count].copy() for value in of.found]
        return [v[:, :positions] if "positions" in axes else v for v, (_, _, axes) in zip(found, OUTPUTS, strict=True)]

    def _allocate(self, batch: int, positions: int) -> Buffers:
        slots, types = self.session.get_inputs()[0].shape[2], self.session.get_outputs()[1].shape[1]
        sizes = {"batch": batch, "positions": positions, "slots": slots, "types": types}

        def place(axes: tuple[str, ...], dtype: type[np.generic]) -> ort.OrtValue:
            return ort.OrtValue.ortvalue_from_shape_and_type([sizes[a] for a in axes], dtype, self.device, 0)

        options = ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(len(self.buffers) + 1))  # each shape records its own
        ids = np.zeros((batch, positions, slots), np.int32)
        given, found = place(INPUT[2], np.int32), [place(axes, np.float32) for _, _, axes in OUTPUTS]
        binding = self.session.io_binding()
        binding.bind_ortvalue_input(INPUT[0], given)
        for (name, _, _), value in zip(OUTPUTS, found, strict=True):
            binding.bind_ortvalue_output(name, value)
        self.buffers[batch, positions] = Buffers(ids, given, found, binding, options)
        return self.buffers[batch, positions]


def trim() -> None:
    """Gives freed memory back to the system, for glibc keeps what an engine of another thread leaves behind."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


class Engine:
    """One ONNX Runtime session.

    Args:
        path: the graph.
        runtime: how it is run.
        max_positions: most positions of a chunk that will be run.

    Raises:
        GraphError: not a graph, or one of another shape.
        ProviderError: a provider was asked for and did not load.
    """

    def __init__(self, path: Path, runtime: Runtime = CPU, max_positions: int = 512) -> None:
        wanted = providers(runtime, max_positions, lambda: Engine(path).slots)
        if len(wanted) > 1:
            ort.preload_dlls()  # the CUDA libraries that pip installed beside ONNX Runtime, if it did
        options = ort.SessionOptions()
        self.threads = runtime.threads or cores()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        try:
            slow = SLOW_ON_CPU if len(wanted) == 1 else None
            self.session = ort.InferenceSession(str(path), options, providers=wanted, disabled_optimizers=slow)
        except Exception as error:  # ONNX Runtime raises classes of its own that share no base
            raise GraphError(f"{path}: ONNX Runtime cannot load it: {error}") from error
        took = self.session.get_providers()[0]
        self.provider = next(name for name, its in NAMES.items() if its == took)
        if runtime.requested not in ("auto", self.provider):
            raise ProviderError(
                f"RECGUARD_PROVIDER={runtime.requested}, but it did not load; see ONNX Runtime's message above"
            )
        self.precision = {"model.int8.onnx": "int8", "model.fp16.onnx": "fp16"}.get(path.name, "fp32")
        self._check(path)
        self.bound: Bound | None = None
        if self.provider != "cpu" or runtime.bucketed:
            device = "cpu" if self.provider == "cpu" else "cuda"
            rows = TENSORRT_ROWS if self.provider == "tensorrt" else self.batch_tokens
            self.bound = Bound(self.session, device, max_positions, rows)
        logger.debug("engine: %s on %s (asked for %s)", path.name, self.provider, runtime.requested)

    @property
    def frees_the_core(self) -> bool:
        """Whether the caller's core can do something else while the graph runs."""
        return self.provider != "cpu" or cores() > 1

    @property
    def batch_tokens(self) -> int:
        """Positions of a batch from which on a larger one gains nothing worth its latency."""
        return 2048 * self.threads if self.provider == "cpu" else 16_384

    def _check(self, path: Path) -> None:
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        found = [(i.name, i.type, len(i.shape)) for i in (*inputs, *outputs)]
        wanted = [(name, kind, len(shape)) for name, kind, shape in (INPUT, *OUTPUTS)]
        if found != wanted:
            raise GraphError(f"{path}: its inputs and outputs are {found}; this service needs {wanted}")
        self.slots = int(inputs[0].shape[2])
        self.types = int(outputs[1].shape[1])

    def run(self, ids: NDArray[np.int32]) -> Outputs:
        """Scores chunks: int32 (B, P, slots) of table rows, zero where there is nothing.

        Raises:
            FloatingPointError: the graph answered something that is not a finite number.
        """
        outputs = Outputs(*(self.bound.run(ids) if self.bound else self.session.run(None, {INPUT[0]: ids})))
        if not all(np.isfinite(values).all() for values in vars(outputs).values()):
            raise FloatingPointError("the model answered a value that is not finite")
        return outputs
