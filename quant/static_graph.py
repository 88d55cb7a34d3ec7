"""Turns an ONNX graph into one that an NPU's compiler takes: every size fixed, common operators.

Compilers for NPUs take no symbolic dimension, and none of onnxruntime's own fused operators. Owns
the fixing of sizes, the folding of what becomes constant by it, and the writing of GELU as one node
and of attention as several. Which part of a model is compiled is its family's business.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgevoice.errors import ExportError
from edgevoice.quant.onnx_nodes import CONTRIB, attributes, replace_nodes

Shapes = Mapping[str, Sequence[int]]


def fix(model: onnx.ModelProto, shapes: Shapes) -> onnx.ModelProto:
    """Return ``model`` with its inputs in ``shapes``, and all that follows from them computed.

    Raises:
        ExportError: A size stays open; the message names the input or value.
    """
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in fixed.graph.input:
        sizes = value.type.tensor_type.shape.dim
        for i, size in enumerate(shapes.get(value.name, ())):
            sizes[i].ClearField("dim_param")
            sizes[i].dim_value = size
    refuse_open_sizes(fixed.graph.input, "input")
    # They say what held for the open sizes, and would be believed.
    del fixed.graph.value_info[:]
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    folded = onnx.shape_inference.infer_shapes(_folded(fixed), data_prop=True)
    refuse_open_sizes(folded.graph.output, "output")
    return folded


def refuse_open_sizes(values: Sequence[onnx.ValueInfoProto], kind: str) -> None:
    """Check that no value of ``values`` has a symbolic size.

    Raises:
        ExportError: One has.
    """
    for value in values:
        kind_of = value.type.tensor_type
        sizes = [d.dim_param or d.dim_value for d in kind_of.shape.dim]
        if not kind_of.HasField("shape") or not all(isinstance(s, int) and s > 0 for s in sizes):
            shown = ", ".join(str(s or "?") for s in sizes)
            raise ExportError(
                f"{kind} {value.name!r} has the shape [{shown}]: an NPU's graph has fixed sizes; "
                "give every open size a number"
            )


def one_gelu(model: onnx.ModelProto) -> int:
    """Write each GELU that is spelled out with Erf as one node, in place; return how many."""
    from onnxruntime.quantization.fusions import FusionGelu
    from onnxruntime.quantization.onnx_model import ONNXModel

    before = _count(model, "Erf")
    wrapped = ONNXModel(model)
    FusionGelu(wrapped).apply()
    if wrapped.model is not model:
        model.CopyFrom(wrapped.model)
    return before - _count(model, "Erf")


def plain_attention(model: onnx.ModelProto) -> int:
    """Write onnxruntime's MultiHeadAttention with products and a softmax, in place.

    Takes query, key and value of fixed shape ``[batch, length, width]`` without mask or bias.

    Returns:
        How many there were.

    Raises:
        ExportError: One has a mask, a bias, a past or an unknown shape.
    """
    sizes = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*model.graph.value_info, *model.graph.input)
    }
    nodes: list[onnx.NodeProto] = []
    found = 0
    for node in model.graph.node:
        if (node.domain, node.op_type) != (CONTRIB, "MultiHeadAttention"):
            nodes.append(node)
            continue
        shapes = [sizes.get(name, []) for name in node.input[:3]]
        if any(node.input[3:]) or any(len(s) != 3 or not all(s) for s in shapes):
            raise ExportError(f"attention {node.name!r} has a mask, a past or an open size")
        heads = int(attributes(node)["num_heads"])
        scale = float(attributes(node).get("scale", 0.0)) or (shapes[0][2] / heads) ** -0.5
        nodes += _attention(model.graph, node, shapes, heads, scale)
        found += 1
    replace_nodes(model.graph, nodes)
    return found


def _attention(
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
    shapes: Sequence[Sequence[int]],
    heads: int,
    scale: float,
) -> list[onnx.NodeProto]:
    base = node.name
    made: list[onnx.NodeProto] = []

    def add(kind: str, inputs: Sequence[str], name: str, **settings: object) -> str:
        made.append(helper.make_node(kind, inputs, [name], name=name, **settings))
        return name

    def constant(name: str, value: object, dtype: type[np.generic]) -> str:
        graph.initializer.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    split = []
    for part, source, (batch, length, width) in zip("qkv", node.input, shapes, strict=False):
        shape = constant(f"{base}/{part}_shape", [batch, length, heads, width // heads], np.int64)
        rows = add("Reshape", [source, shape], f"{base}/{part}_heads")
        # Keys are turned over at once, so that no second transposition is needed.
        order = [0, 2, 3, 1] if part == "k" else [0, 2, 1, 3]
        split.append(add("Transpose", [rows], f"{base}/{part}", perm=order))
    query, keys, values = split
    factor = constant(f"{base}/scale", scale, np.float32)
    query = add("Mul", [query, factor], f"{base}/q_scaled")
    scores = add("MatMul", [query, keys], f"{base}/scores")
    weights = add("Softmax", [scores], f"{base}/weights", axis=-1)
    mixed = add("MatMul", [weights, values], f"{base}/mixed")
    rows = add("Transpose", [mixed], f"{base}/rows", perm=[0, 2, 1, 3])
    batch, length, _ = shapes[0]
    shape = constant(f"{base}/shape", [batch, length, shapes[2][2]], np.int64)
    made.append(helper.make_node("Reshape", [rows, shape], [node.output[0]], name=f"{base}/out"))
    return made


def norms_apart(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return ``model`` with factor and offset of each LayerNormalization behind it.

    The HTP takes such a factor in 8 bits alone, and those made nearly all the error of Smart Turn
    in 16-bit activations: its probability was apart by 0.0117 on average, and by 0.0003 with
    factors in 16 bits. A factor of one is exact in 8 bits; the true one is a product of its own.
    """
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    graph = plain.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        factor = constants.get(node.input[1]) if node.op_type == "LayerNormalization" else None
        if factor is None or len(node.output) > 1:
            nodes.append(node)
            continue
        made = onnx.NodeProto()
        made.CopyFrom(node)
        base = node.output[0]
        ones = np.ones(list(factor.dims), numpy_helper.to_array(factor).dtype)
        graph.initializer.append(numpy_helper.from_array(ones, f"{base}/ones"))
        del made.input[1:]
        made.input.append(f"{base}/ones")
        made.output[0] = f"{base}/normal"
        offset = node.input[2] if len(node.input) > 2 else ""
        scaled = f"{base}/scaled" if offset else base
        nodes.append(made)
        nodes.append(helper.make_node("Mul", [made.output[0], factor.name], [scaled], scaled))
        if offset:
            nodes.append(helper.make_node("Add", [scaled, offset], [base], f"{base}/moved"))
    replace_nodes(graph, nodes)
    return plain


def cut(model: onnx.ModelProto, inputs: Sequence[str], outputs: Sequence[str]) -> onnx.ModelProto:
    """Return the part of ``model`` from ``inputs`` to ``outputs``; values keep their shapes."""
    return onnx.utils.Extractor(model).extract_model(list(inputs), list(outputs))


def _folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """Let onnxruntime compute what is constant; its fusions of a higher level stay out."""
    import onnxruntime as ort

    with tempfile.TemporaryDirectory(prefix="edgevoice-") as folder:
        path = Path(folder) / "folded.onnx"
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(path)
        options.log_severity_level = 3
        try:
            ort.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise ExportError(f"the graph does not hold with fixed sizes: {reason}") from error
        return onnx.load(str(path))


def _count(model: onnx.ModelProto, kind: str) -> int:
    return sum(node.op_type == kind for node in model.graph.node)
