"""Writes the network as ONNX, in full precision, in int8 and in half, and proves that each answers as torch does."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from service.encoding.chunks import pad
from service.encoding.encoder import Encoded
from service.encoding.values import Ids
from service.engine.session import Engine
from training.network.graph import graph_of
from training.network.model import BehaviourBert

HALF = "_half"  # after the name of a weight in float16


def export_onnx(model: BehaviourBert, slots: int, path: Path) -> None:
    """Writes the graph in full precision."""
    written = graph_of(model, slots)
    onnx.checker.check_model(written, full_check=True)
    onnx.save(written, path)


def export_half(source: Path, target: Path) -> None:
    """Writes the graph with the encoder, up to its last norm, in float16; the heads, which take no time, stay as is."""
    model = onnx.load(source)
    graph, full, half = model.graph, TensorProto.FLOAT, TensorProto.FLOAT16
    end = 1 + max(i for i, node in enumerate(graph.node) if node.op_type == "LayerNormalization")
    encoder, heads = graph.node[:end], graph.node[end:]
    weights = {w.name: numpy_helper.to_array(w) for w in graph.initializer if w.data_type == full}
    most = np.finfo(np.float16).max
    for name in sorted({name for node in encoder for name in node.input} & weights.keys()):
        graph.initializer.append(
            numpy_helper.from_array(weights[name].clip(-most, most).astype(np.float16), name + HALF)
        )
    for node in encoder:
        node.input[:] = [name + HALF if name in weights else name for name in node.input]
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == full:
                attribute.i = half
    states = encoder[-1].output[0]
    for node in heads:
        node.input[:] = [states + "_full" if name == states else name for name in node.input]
    graph.node.insert(end, helper.make_node("Cast", [states], [states + "_full"], "states_full", to=full))
    used = {name for node in graph.node for name in node.input}
    kept = [w for w in graph.initializer if w.name in used]
    del graph.initializer[:], graph.value_info[:]
    graph.initializer.extend(kept)
    onnx.checker.check_model(model, full_check=True)  # which finds what is left in float32 amid float16
    onnx.save(model, target)


class _Chunks(CalibrationDataReader):  # type: ignore[misc]
    """Feeds real chunks to the quantiser, a few of like length at a time."""

    def __init__(self, sequences: Sequence[Encoded], most: int = 256) -> None:
        chunks = sorted((w for e in sequences for w in e.chunks), key=len)
        chunks = chunks[:: -(-len(chunks) // most)]
        self.batches: Iterator[Ids] = iter([pad(chunks[i : i + 8]) for i in range(0, len(chunks), 8)])

    def get_next(self) -> dict[str, Ids] | None:
        batch = next(self.batches, None)
        return None if batch is None else {"ids": batch}


def quantize(source: Path, target: Path, sequences: Sequence[Encoded]) -> None:
    """Writes the int8 variant: weights per channel, activations on scales measured beforehand.

    Dynamic quantisation takes its scale from the whole batch, so that a score would depend on its neighbours; static
    scales cannot. Only products with constant weights are quantised, which is where the time goes; embeddings, norms,
    softmax and the heads keep full precision.
    """
    with tempfile.TemporaryDirectory(prefix="recguard-export-") as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        graph = onnx.load(prepared).graph
        weights = {w.name: w.dims for w in graph.initializer}
        heads = [
            n.name for n in graph.node if n.op_type in ("MatMul", "Gemm") and min(weights.get(n.input[1], [0])) < 64
        ]
        quantize_static(
            str(prepared),
            str(target),
            _Chunks(sequences),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul", "Gemm"],
            nodes_to_exclude=heads,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )


def milliseconds(engine: Engine, chunks: Sequence[Ids], repeats: int = 5) -> float:
    """Median time of one chunk on one engine, the chunks run one at a time."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        for chunk in chunks:
            engine.run(chunk[None])
        times.append((time.perf_counter() - start) / len(chunks) * 1000)
    return float(np.median(times))
