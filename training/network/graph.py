"""The network as an ONNX graph, node by node as `training.network.model` computes it.

It is written here rather than traced: that takes no time, and leaves out what a trace cannot know to be needless, such
as guards against rows without any position. Constants that follow each other are one: the scale of attention is in the
queries' weights, that of the states in the last norm's.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import ArrayLike
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from service.encoding.encoder import EVENT, PAD
from service.engine.session import INPUT, OUTPUTS
from training.network.model import BehaviourBert

OPSET, IR_VERSION = 20, 10
HIDDEN_FROM_ALL = np.float32(np.finfo(np.float32).min)  # added to what no position may attend to


class _Graph:
    """Nodes and constants as they are added."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def add(self, kind: str, *inputs: str, out: str | Sequence[str] = "", **attributes: Any) -> str:
        """Adds a node; returns the name of its first output."""
        outputs = [out or f"{kind.lower()}_{len(self.nodes)}"] if isinstance(out, str) else list(out)
        self.nodes.append(helper.make_node(kind, inputs, outputs, f"{kind}_{len(self.nodes)}", **attributes))
        return outputs[0]

    def constant(self, name: str, values: ArrayLike | torch.Tensor, dtype: type = np.float32) -> str:
        given = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values
        self.constants[name] = numpy_helper.from_array(np.array(given, dtype=dtype, order="C"), name)
        return name

    def axes(self, *values: int) -> str:
        """Axes, or sizes of a shape."""
        return self.constant("axes_" + "_".join(map(str, values)).replace("-", "m"), values, np.int64)

    def linear(self, name: str, x: str, weight: torch.Tensor, bias: torch.Tensor, out: str = "") -> str:
        """`x` (N, in) by `weight` (out, in), as torch has it."""
        given = self.constant(f"{name}.weight", weight), self.constant(f"{name}.bias", bias)
        return self.add("Gemm", x, *given, transB=1, out=out)

    def norm(self, name: str, x: str, layer: nn.LayerNorm, shift: Any = 0.0, scale: Any = 1.0) -> str:
        """Layer norm, less `shift` and by `scale`."""
        weight = self.constant(f"{name}.weight", layer.weight / scale)
        bias = self.constant(f"{name}.bias", (layer.bias - shift) / scale)
        return self.add("LayerNormalization", x, weight, bias, axis=-1, epsilon=layer.eps)


@torch.no_grad()
def graph_of(model: BehaviourBert, slots: int) -> onnx.ModelProto:
    """The graph of `service.engine.session`'s contract, with batch and positions free.

    Args:
        slots: S, the rows of a position.
    """
    g = _Graph()
    first = g.add("Gather", INPUT[0], g.constant("zero", 0, np.int64), axis=2)  # (B, P)
    real = g.add("Not", g.add("Equal", first, g.constant("pad", PAD, np.int32)))
    size = g.add("Shape", INPUT[0], start=0, end=2)  # B, P
    flat = _encoder(g, model, real, size)
    states = g.add("Reshape", flat, g.add("Concat", size, g.axes(model.table.embedding_dim), axis=0))  # (B, P, H)
    heads = {"event": model.event_head, "foreign": model.foreign_head, "attention": model.attention_head}
    weight, bias = (torch.cat([getattr(head, part) for head in heads.values()]) for part in ("weight", "bias"))
    g.add("Split", g.linear("heads", flat, weight, bias), axis=-1, num_outputs=3, out=list(heads))
    events = g.add("Reshape", "event", size, out="event_logits")
    is_event = g.add("Equal", first, g.constant("event_row", EVENT, np.int32))
    attention = g.add("Where", is_event, g.add("Reshape", "attention", size), g.constant("never", -1e4))
    by_events = g.add("Mul", g.add("Softmax", attention, axis=1), events)
    counted = g.add("Cast", g.add("Unsqueeze", real, g.axes(-1)), to=TensorProto.FLOAT)  # (B, P, 1)
    sums = g.add("ReduceSum", g.add("Mul", states, counted), g.axes(1), keepdims=0)
    mean = g.add("Div", sums, g.add("ReduceSum", counted, g.axes(1), keepdims=0))
    chunk = g.add("Concat", mean, g.add("Gather", states, "zero", axis=1), axis=-1)  # (B, 2 H)
    head: Any = model.window_head
    window = g.add("Gelu", g.linear("window.0", chunk, head[0].weight, head[0].bias))
    window = g.linear("window.1", window, head[-1].weight, head[-1].bias)
    g.add(
        "Add",
        g.add("ReduceSum", by_events, g.axes(1), keepdims=0),
        g.add("Squeeze", window, g.axes(-1)),
        out="sequence_logit",
    )
    g.linear("types", chunk, model.type_head.weight, model.type_head.bias, out="type_logits")
    g.add("Reshape", "foreign", size, out="foreign_logits")
    sizes = {"types": model.type_head.out_features, "slots": slots}
    shapes = {name: [sizes.get(axis, axis) for axis in axes] for name, _, axes in (INPUT, *OUTPUTS)}
    written = helper.make_graph(
        g.nodes,
        "recguard",
        [helper.make_tensor_value_info(INPUT[0], TensorProto.INT32, shapes[INPUT[0]])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name, _, _ in OUTPUTS],
        list(g.constants.values()),
    )
    return helper.make_model(written, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def _encoder(g: _Graph, model: BehaviourBert, real: str, size: str) -> str:
    """Adds BERT; returns the name of its states (B P, H), centred and scaled."""
    bert: Any = model.bert  # transformers leaves its parts untyped
    table = bert.embeddings
    bags = g.add("Gather", g.constant("table", table.word_embeddings.weight), INPUT[0], axis=0)
    places = table.position_embeddings.weight + table.token_type_embeddings.weight[0]
    length = g.add("Shape", INPUT[0], start=1, end=2)
    place = g.add("Slice", g.constant("places", places), g.axes(0), length, g.axes(0))
    x = g.add("Add", g.add("ReduceSum", bags, g.axes(2), keepdims=0), place)
    # all positions one below the other, so that a product and its bias are one node
    x = g.norm("embeddings.norm", g.add("Reshape", x, g.axes(-1, model.table.embedding_dim)), table.LayerNorm)
    shut = g.add("Where", real, g.constant("open", 0.0), g.constant("shut", HIDDEN_FROM_ALL))
    shut = g.add("Unsqueeze", shut, g.axes(1, 2))  # (B, 1, 1, P)
    layers = list(bert.encoder.layer)
    for number, layer in enumerate(layers):
        own, name = layer.attention.self, f"layer.{number}"
        width = own.attention_head_size
        heads = g.add("Concat", size, g.axes(own.num_attention_heads, width), axis=0)
        parts = {}
        for part, scale, order in (
            ("query", width**-0.5, (0, 2, 1, 3)),
            ("key", 1.0, (0, 2, 3, 1)),
            ("value", 1.0, (0, 2, 1, 3)),
        ):
            given = getattr(own, part)
            flat = g.linear(f"{name}.{part}", x, scale * given.weight, scale * given.bias)
            parts[part] = g.add("Transpose", g.add("Reshape", flat, heads), perm=order)
        weights = g.add("Softmax", g.add("Add", g.add("MatMul", parts["query"], parts["key"]), shut), axis=-1)
        mixed = g.add("Transpose", g.add("MatMul", weights, parts["value"]), perm=(0, 2, 1, 3))
        mixed = g.add("Reshape", mixed, g.axes(-1, own.num_attention_heads * width))
        out = layer.attention.output
        x = g.norm(
            f"{name}.attention.norm",
            g.add("Add", g.linear(f"{name}.attention", mixed, out.dense.weight, out.dense.bias), x),
            out.LayerNorm,
        )
        wide, out = layer.intermediate.dense, layer.output
        wide = g.add("Gelu", g.linear(f"{name}.wide", x, wide.weight, wide.bias))
        narrow = g.linear(f"{name}.narrow", wide, out.dense.weight, out.dense.bias)
        ends = (model.center, model.scale) if number == len(layers) - 1 else ()
        x = g.norm(f"{name}.norm", g.add("Add", narrow, x), out.LayerNorm, *ends)
    return x
