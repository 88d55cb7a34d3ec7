"""Takes the rounding of activations out of a QDQ graph, and leaves its weights where they are.

A published int8 graph rounds every value between its products to one of 256 steps. Whoever wants
to round them in another way (16 bits, other ranges) needs the graph without that rounding. The
weights stay on the int8 grid, as floats, so that quantising them again per channel gives the same
integers. Owns this one rewriting; new ranges are :mod:`edgevoice.quant.htp_qdq`'s.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from edgevoice.quant.onnx_nodes import CONTRIB, attributes, replace_nodes

_GELU_OPSET = 20
"""The first of ONNX's own that has GELU; behind onnxruntime's, shapes are not inferred."""


def without_rounding(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return ``model`` with float weights and no QuantizeLinear or DequantizeLinear."""
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    graph = plain.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    rounded = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "QuantizeLinear"}
    instead: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            continue
        if node.op_type != "DequantizeLinear":
            nodes.append(node)
        elif node.input[0] in rounded:
            instead[node.output[0]] = rounded[node.input[0]]
        else:
            graph.initializer.append(_float(node, constants))
    for node in nodes:
        for i, name in enumerate(node.input):
            node.input[i] = _source(name, instead)
        if (node.domain, node.op_type) == (CONTRIB, "Gelu"):
            node.domain = ""
    for output in graph.output:
        made = _source(output.name, instead)
        for node in nodes if made != output.name else ():
            for names in (node.input, node.output):
                names[:] = [output.name if name == made else name for name in names]
    replace_nodes(graph, nodes)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    del graph.value_info[:]
    for opset in plain.opset_import:
        if not opset.domain:
            opset.version = max(opset.version, _GELU_OPSET)
    return plain


def _source(name: str, instead: dict[str, str]) -> str:
    while name in instead:
        name = instead[name]
    return name


def _float(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> onnx.TensorProto:
    values, scale, *rest = (numpy_helper.to_array(constants[name]) for name in node.input)
    zero = rest[0] if rest else np.zeros_like(scale, values.dtype)
    if scale.ndim == 1 and scale.size > 1:
        shape = [1] * values.ndim
        shape[int(attributes(node).get("axis", 1))] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    weights = (values.astype(np.float32) - zero.astype(np.float32)) * scale
    return numpy_helper.from_array(weights.astype(np.float32), node.output[0])
