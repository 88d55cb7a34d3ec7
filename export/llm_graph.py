"""From the graph that optimum traces to one that a small device runs: a fifth of its nodes.

optimum-onnx writes attention as some hundred nodes a layer, a cache that is copied into a longer
one at every token, and logits for every token that is read. This module finds, layer by layer, the
rotation, the repeated keys, mask, softmax and products, and puts onnxruntime's
``GroupQueryAttention`` in their place, whose cache is one buffer that is written where it ends.
What it does not recognise it does not touch:
:class:`~edgevoice.export.graph_wires.Unrecognised` says what, and the exporter
refuses the model. That the result computes the same is checked by numbers, in
:mod:`edgevoice.export.families.onnx_llm`.

Inputs and outputs of the graph afterwards::

    input_ids             int64 [1, new]
    total_length          int32 [1]: tokens in the cache once these are in it
    logits_from           int64 [1]: of the new tokens, the first whose logits are wanted
    past_key_values.N.*   float32 [1, heads, context, width]: the cache, written in place
    logits                float32 [1, new - logits_from, vocabulary]
    present.N.*           the same buffers again
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgevoice.export.graph_wires import Unrecognised, Wires, prune
from edgevoice.export.rotary import Rotation, rotation_of, tables
from edgevoice.quant.onnx_nodes import CONTRIB, attributes

TRANSPOSED = [0, 2, 1, 3]
_INT64_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Heads:
    """What the graph itself does not say.

    Attributes:
        queries: Number of query heads.
        keys: Number of key and value heads.
        windows: Per layer, how many tokens back it looks; -1 for all.
        softcap: Attention scores are squeezed into plus or minus this; 0 when they are not.
    """

    queries: int
    keys: int
    windows: tuple[int, ...]
    softcap: float = 0.0


def fuse_attention(model: onnx.ModelProto, heads: Heads, context_tokens: int) -> None:
    """Rewrite ``model`` in place, as the module's docstring says.

    Args:
        model: optimum's ``text-generation-with-past`` graph, optimised by onnxruntime (extended).
        heads: From the checkpoint's configuration.
        context_tokens: Positions that the rotation's tables hold; no token lies beyond.

    Raises:
        Unrecognised: A layer is not written as expected.
    """
    graph = model.graph
    wires = Wires(graph)
    layers = sum(1 for o in graph.output if o.name.endswith(".key"))
    found = [_attention(wires, number) for number in range(layers)]
    rotations = dict.fromkeys(f.rotation for f in found if f.rotation)
    caches = tables(model, rotations, context_tokens)
    length = _lengths(graph)
    instead: dict[str, list[onnx.NodeProto]] = {}
    for number, part in enumerate(found):
        cache = caches[part.rotation] if part.rotation else ()
        instead[part.result] = _fused(number, part, heads, cache, length)
        for value in (f"present.{number}.key", f"present.{number}.value"):
            instead[value] = []
    for rotation in rotations:
        graph.initializer.extend(caches[rotation])
    behind = {node.input[0]: node for node in wires.added}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        nodes += instead.get(node.output[0], [node])
        nodes += [behind[out] for out in node.output if out in behind]
    del graph.node[:]
    graph.node.extend([*length, *nodes])
    _declare(graph)
    _last_logits(graph)
    prune(graph)


@dataclass(frozen=True, slots=True)
class _Attention:
    """One layer's attention: values before the heads are turned outwards, and its result."""

    query: str
    key: str
    value: str
    result: str
    scale: float
    rotation: Rotation | None


def _attention(wires: Wires, number: int) -> _Attention:
    past, present = f"past_key_values.{number}", f"present.{number}"
    keys = wires.made_by(f"{present}.key", "Concat")
    values = wires.made_by(f"{present}.value", "Concat")
    if keys.input[0] != f"{past}.key" or values.input[0] != f"{past}.value":
        raise Unrecognised(f"layer {number} does not append to its cache")
    repeats = ("Reshape", "Expand", "Unsqueeze", "Transpose")
    products = [
        node
        for node in wires.maker.values()
        if node.op_type in ("MatMul", "FusedMatMul")
        and wires.comes_from(node.input[1], f"{present}.key", repeats)
    ]
    weighted = [
        node
        for node in wires.maker.values()
        if node.op_type == "MatMul" and wires.comes_from(node.input[1], f"{present}.value", repeats)
    ]
    if len(products) != 1 or len(weighted) != 1:
        raise Unrecognised(f"layer {number} has {len(products)} products with its keys")
    scores = products[0]
    scale = float(attributes(scores).get("alpha", 1.0))
    turned = [n for n in wires.readers[weighted[0].output[0]] if n.op_type == "Transpose"]
    if len(turned) != 1 or attributes(turned[0])["perm"] != TRANSPOSED:
        raise Unrecognised(f"layer {number} does not turn its heads back")
    joined = wires.readers[turned[0].output[0]]
    if len(joined) != 1 or joined[0].op_type != "Reshape":
        raise Unrecognised(f"layer {number} does not join its heads")
    query, key = scores.input[0], keys.input[1]
    rotation = other = None
    # Some architectures rotate in some of their layers only (smollm3).
    if all(wires.made_by(v, "Add", "Transpose").op_type == "Add" for v in (query, key)):
        query, rotation = rotation_of(wires, query)
        key, other = rotation_of(wires, key)
    if rotation != other:
        raise Unrecognised(f"layer {number} rotates queries and keys differently")
    value = values.input[1]
    return _Attention(
        query=_turned(wires, query),
        key=_turned(wires, key),
        value=_turned(wires, value),
        result=joined[0].output[0],
        scale=scale,
        rotation=rotation,
    )


def _turned(wires: Wires, value: str) -> str:
    """Return what was turned into [1, heads, new, width], with its heads still side by side if
    nothing but a Reshape parted them.
    """
    node = wires.maker.get(value)
    if node is None or node.op_type != "Transpose" or attributes(node)["perm"] != TRANSPOSED:
        # A norm of each head behind the turn (gemma3): it is turned back.
        back = helper.make_node(
            "Transpose", [value], [f"{value}_back"], f"{value}_back", perm=TRANSPOSED
        )
        wires.added.append(back)
        return str(back.output[0])
    parted = wires.maker.get(node.input[0])
    projection = wires.maker.get(parted.input[0]) if parted is not None else None
    if parted is None or projection is None or parted.op_type != "Reshape":
        return str(node.input[0])
    if projection.op_type in ("MatMul", "Gemm") or (
        # A projection's bias.
        projection.op_type == "Add"
        and any(getattr(wires.maker.get(i), "op_type", "") == "MatMul" for i in projection.input)
    ):
        return str(parted.input[0])
    return str(node.input[0])


def _lengths(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    constants = {"gqa_one": np.array([1], np.int32), "gqa_flat": np.array([0, 0, -1], np.int64)}
    graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in constants.items())
    return [
        helper.make_node("Sub", ["total_length", "gqa_one"], ["gqa_last"], name="gqa_last"),
        helper.make_node("Squeeze", ["total_length"], ["gqa_total"], name="gqa_total"),
    ]


def _fused(
    number: int,
    part: _Attention,
    heads: Heads,
    caches: Sequence[onnx.TensorProto],
    length: Sequence[onnx.NodeProto],
) -> list[onnx.NodeProto]:
    flat = []
    for name, value in (("q", part.query), ("k", part.key), ("v", part.value)):
        label = f"layer_{number}_{name}"
        flat.append(helper.make_node("Reshape", [value, "gqa_flat"], [label], name=label))
    options: dict[str, Any] = {}
    if heads.windows[number] > 0:
        options["local_window_size"] = heads.windows[number]
    if heads.softcap:
        options["softcap"] = heads.softcap
    attention = helper.make_node(
        "GroupQueryAttention",
        [
            *(node.output[0] for node in flat),
            f"past_key_values.{number}.key",
            f"past_key_values.{number}.value",
            *(node.output[0] for node in length),
            *(cache.name for cache in caches),
        ],
        [part.result, f"present.{number}.key", f"present.{number}.value"],
        name=f"layer_{number}_attention",
        domain=CONTRIB,
        num_heads=heads.queries,
        kv_num_heads=heads.keys,
        do_rotary=int(bool(caches)),
        scale=part.scale,
        **options,
    )
    return [*flat, attention]


def _declare(graph: onnx.GraphProto) -> None:
    """Give the graph its new inputs, and the cache its fixed shape."""
    graph.input.extend(
        [
            helper.make_tensor_value_info("total_length", TensorProto.INT32, [1]),
            helper.make_tensor_value_info("logits_from", TensorProto.INT64, [1]),
        ]
    )
    for value in (*graph.input, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if value.name.startswith(("past_key_values.", "present.")):
            dims[0].dim_value = 1
            dims[2].dim_param = "context"
        elif value.name in ("input_ids", "logits"):
            dims[0].dim_value = 1
    del graph.value_info[:]


def _last_logits(graph: onnx.GraphProto) -> None:
    """Take the wanted tokens out before the vocabulary's product, which costs as much as a third
    of a small model.
    """
    wires = Wires(graph)
    kinds = ("MatMul", "FusedMatMul", "Mul", "Div", "Tanh", "Cast")
    node = wires.made_by("logits", *kinds)
    while not node.op_type.endswith("MatMul"):
        node = wires.made_by(node.input[0], *kinds)
    if node.op_type == "FusedMatMul":
        _unscaled(graph, node)
    ends = {"logits_end": _INT64_MAX, "logits_axis": 1}
    graph.initializer.extend(
        numpy_helper.from_array(np.array([v], np.int64), k) for k, v in ends.items()
    )
    wanted = helper.make_node(
        "Slice", [node.input[0], "logits_from", *ends], ["logits_hidden"], name="logits_hidden"
    )
    node.input[0] = "logits_hidden"
    place = next(i for i, n in enumerate(graph.node) if n.output[0] == node.output[0])
    graph.node.insert(place, wanted)


def _unscaled(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    """Take the factor out of the vocabulary's product (gemma2's soft cap), which quantisation
    would not recognise with it.
    """
    options = attributes(node)
    if any(options.get(name) for name in options if name.startswith("trans")):
        raise Unrecognised("the vocabulary's product is transposed")
    factor = np.array(options.get("alpha", 1.0), np.float32)
    graph.initializer.append(numpy_helper.from_array(factor, "logits_factor"))
    result = node.output[0]
    node.op_type, node.domain = "MatMul", ""
    del node.attribute[:]
    node.output[0] = f"{result}_unscaled"
    place = next(i for i, n in enumerate(graph.node) if n.output[0] == node.output[0])
    graph.node.insert(
        place + 1,
        helper.make_node("Mul", [node.output[0], "logits_factor"], [result], "logits_scaled"),
    )
