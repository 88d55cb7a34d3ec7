"""Eight-bit weights for the matrix products of an ONNX graph.

Owns the rounding and the rewriting of one model in memory. Which model, and whether the result
is good enough to publish, is the exporter's business.

A product with a constant right side becomes onnxruntime's ``DynamicQuantizeMatMul``: weights in
signed bytes with one scale per output column and no zero point, activations rounded to unsigned
bytes as they come. It is the node that onnxruntime itself fuses ``quantize_dynamic``'s four into.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from fnmatch import fnmatchcase

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgevoice.quant.onnx_nodes import CONTRIB, attributes, declare_contrib, replace_nodes

LARGEST = 127  # -128 is left out, so that the range is symmetric


def round_columns(
    weight: NDArray[np.float32], largest: int = LARGEST, per_channel: bool = True
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round ``weight`` [in, out] to int8 and return it with its scales, float32 [out] or [1].

    ``weight`` is close to ``int8 * scale``; the error is at most half a scale.

    Args:
        weight: float32 [in, out].
        largest: What the largest magnitude becomes.
        per_channel: One scale for each column; False is for measuring what that is worth.
    """
    peaks = np.abs(weight).max(axis=0) if per_channel else np.abs(weight).max(keepdims=True)[0]
    scale = (peaks / np.float32(largest)).astype(np.float32)
    scale[scale == 0.0] = 1.0
    return np.rint(weight / scale).astype(np.int8), scale


def quantise(model: onnx.ModelProto, keep: Sequence[str] = (), largest: int = LARGEST) -> list[str]:
    """Rewrite ``model`` in place and return the names of the weights that are int8 now.

    Every ``MatMul`` whose right side is a float32 initializer of rank 2 is replaced, together
    with an ``Add`` of a constant vector that alone follows it. A ``Gather`` of columns from the
    same initializer (an embedding tied to the logits) reads the int8 columns. Initializers that
    are used in any other way, or whose name matches one of the shell patterns in ``keep``, stay
    as they are. Weights are rounded to ``-largest`` to ``largest``.
    """
    graph = model.graph
    initializers = {t.name: t for t in graph.initializer}
    users: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            users[name].append(node)
    chosen = [
        name
        for name, tensor in initializers.items()
        if tensor.data_type == TensorProto.FLOAT
        and len(tensor.dims) == 2
        and not any(fnmatchcase(name, pattern) for pattern in keep)
        and any(n.op_type == "MatMul" for n in users[name])
        and all(_can_read_int8(n, name) for n in users[name])
    ]
    added: list[onnx.TensorProto] = []
    for name in chosen:
        floats = numpy_helper.to_array(initializers[name]).astype(np.float32)
        values, scale = round_columns(floats, largest)
        initializers[name].CopyFrom(numpy_helper.from_array(values, name))
        added.append(numpy_helper.from_array(scale, f"{name}_scale"))

    outputs = {o.name for o in graph.output}
    nodes: list[onnx.NodeProto] = []
    absorbed: set[str] = set()  # by their output: a node need not have a name
    for node in graph.node:
        if node.output[0] in absorbed:
            continue
        weight = next((n for n in node.input if n in chosen), None)
        if weight is None:
            nodes.append(node)
        elif node.op_type == "Gather":
            nodes.extend(_gather(node, weight))
        else:
            after = users[node.output[0]]
            single = len(after) == 1 and node.output[0] not in outputs
            bias = _bias(after[0], node.output[0], initializers) if single else None
            if bias is not None:
                absorbed.add(after[0].output[0])
            result = node.output[0] if bias is None else after[0].output[0]
            inputs = [node.input[0], weight, f"{weight}_scale", "", bias or ""]
            nodes.append(
                helper.make_node(
                    "DynamicQuantizeMatMul",
                    inputs if bias else inputs[:3],
                    [result],
                    name=node.name,
                    domain=CONTRIB,
                )
            )
    replace_nodes(graph, nodes)
    graph.initializer.extend(added)
    declare_contrib(model)
    return chosen


def _can_read_int8(node: onnx.NodeProto, weight: str) -> bool:
    if node.op_type == "MatMul":
        return bool(node.input[1] == weight and node.input[0] != weight)
    if node.op_type == "Gather":
        return bool(node.input[0] == weight) and attributes(node).get("axis") == 1
    return False


def _bias(node: onnx.NodeProto, value: str, constants: dict[str, onnx.TensorProto]) -> str | None:
    """Name the constant vector that ``node`` adds to ``value``, if that is what it does."""
    if node.op_type != "Add":
        return None
    other = node.input[1] if node.input[0] == value else node.input[0]
    return other if other in constants and len(constants[other].dims) == 1 else None


def _gather(node: onnx.NodeProto, weight: str) -> list[onnx.NodeProto]:
    """Gather int8 columns and their scales, and multiply."""
    label, indices = node.name, node.input[1]
    return [
        helper.make_node("Gather", [weight, indices], [f"{label}.q"], name=f"{label}_q", axis=1),
        helper.make_node(
            "Gather", [f"{weight}_scale", indices], [f"{label}.s"], name=f"{label}_s", axis=0
        ),
        helper.make_node(
            "Cast", [f"{label}.q"], [f"{label}.f"], name=f"{label}_f", to=TensorProto.FLOAT
        ),
        helper.make_node("Mul", [f"{label}.f", f"{label}.s"], [node.output[0]], name=label),
    ]
