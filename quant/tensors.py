"""What every weight of an ONNX model is written in, and whether it is a number at all.

Reads a finished model. A quantised weight lies in several initializers (values, scales, zero
points): they are counted as one tensor, under the name of its values. Which scales belong to which
values is read from the operators that use them, not from names.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from math import prod

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgevoice.errors import ArtifactError
from edgevoice.quant.onnx_nodes import attributes, graphs
from edgevoice.quant.recipe import TensorChoice

# Operators that read a quantised weight: which inputs are its values, and its scales and zero
# points. Both are onnxruntime's (ContribOperators.md) or ONNX's own.
_PARTS: Mapping[str, tuple[int, tuple[int, ...]]] = {
    "MatMulNBits": (1, (2, 3)),
    "GatherBlockQuantized": (0, (2, 3)),
    "DynamicQuantizeMatMul": (1, (2, 3)),
    "MatMulIntegerToFloat": (1, (3, 5)),
    "MatMulInteger": (1, (3,)),
    "ConvInteger": (1, (3,)),
    "QLinearConv": (3, (4, 5)),
    "QLinearMatMul": (3, (4, 5)),
    "DequantizeLinear": (0, (1, 2)),
}
_QUANTISED = frozenset(
    "MatMulInteger ConvInteger MatMulIntegerToFloat DynamicQuantizeMatMul DynamicQuantizeLSTM "
    "QLinearMatMul QLinearConv QuantizeLinear MatMulNBits GatherBlockQuantized".split()
)
_NAMES: Mapping[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
    TensorProto.DOUBLE: "float64",
}
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


def choices(model: onnx.ModelProto, file: str = "") -> tuple[TensorChoice, ...]:
    """Return every weight of ``model`` in the order of the file.

    Args:
        model: With its weights in it; sub-graphs (``If``, ``Loop``) are walked too.
        file: Put before every name as ``file:``, for an artifact of several graphs.
    """
    found: list[TensorChoice] = []
    for graph in graphs(model.graph):
        found += _of_graph(graph, f"{file}:" if file else "")
    return tuple(found)


def require_finite(model: onnx.ModelProto) -> None:
    """Make sure that no float weight holds NaN or infinity.

    An attention mask is no weight: zeros and minus infinity alone pass. Nor is a single infinity,
    which is a bound that a Clip leaves open.

    Raises:
        ArtifactError: One does; it is named.
    """
    for graph in graphs(model.graph):
        for tensor in graph.initializer:
            if tensor.data_type not in _FLOATS:
                continue
            values = numpy_helper.to_array(tensor).astype(np.float32, copy=False)
            wrong = int(values.size - np.isfinite(values).sum())
            if values.size == 1 and np.isinf(values).all():
                continue
            if wrong and not (np.isneginf(values) | (values == 0)).all():
                raise ArtifactError(
                    f"weight {tensor.name!r} has {wrong} of {values.size} values that are NaN or "
                    "infinite; the source is damaged, fetch it again"
                )


def rounded_to(found: Iterable[TensorChoice]) -> str:
    """Return ``int8`` or ``int4``, whichever more weights are in; "" where all are in float."""
    elements = {"int8": 0, "int4": 0}
    for choice in found:
        if (kind := choice.type.removeprefix("u")) in elements:
            elements[kind] += choice.elements
    return max(elements, key=lambda kind: elements[kind]) if any(elements.values()) else ""


def integer_operators(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the operators of ``model`` that nothing but a quantiser writes."""
    found = {n.op_type for graph in graphs(model.graph) for n in graph.node}
    return tuple(sorted(found & _QUANTISED))


def _of_graph(graph: onnx.GraphProto, prefix: str) -> Iterator[TensorChoice]:
    initializers = {t.name: t for t in graph.initializer}
    # Values that a Cast, Reshape or Transpose of a weight makes are that weight.
    origin = {name: name for name in initializers}
    for node in graph.node:
        if node.op_type in ("Cast", "Reshape", "Transpose") and node.input[0] in origin:
            origin[node.output[0]] = origin[node.input[0]]
    parts: dict[str, list[str]] = defaultdict(list)
    nibbles: dict[str, tuple[int, int]] = {}
    for node in graph.node:
        if node.op_type not in _PARTS:
            continue
        place, others = _PARTS[node.op_type]
        weight = origin.get(node.input[place])
        if weight is None:
            continue
        for other in others:
            part = origin.get(node.input[other]) if other < len(node.input) else None
            if part is not None and part not in parts[weight]:
                parts[weight].append(part)
        if node.op_type == "MatMulNBits":
            sizes = attributes(node)
            nibbles[weight] = (sizes["bits"], sizes["K"] * sizes["N"])
        elif node.op_type == "GatherBlockQuantized" and weight not in nibbles:
            bits = attributes(node).get("bits", 4)
            tensor = initializers[weight]
            packed = 8 // bits if tensor.data_type == TensorProto.UINT8 else 1
            nibbles[weight] = (bits, prod(tensor.dims) * packed)
    _add_dynamic_scales(graph, initializers, parts)
    owned = {name for others in parts.values() for name in others}
    for name, tensor in initializers.items():
        if name in owned:
            continue
        whole = [tensor, *(initializers[part] for part in parts.get(name, ()))]
        bits, elements = nibbles.get(name, (0, prod(tensor.dims)))
        yield TensorChoice(
            name=prefix + name,
            type=f"int{bits}" if bits else _type_name(tensor.data_type),
            elements=elements,
            bytes=sum(_bytes(t) for t in whole),
        )


def _add_dynamic_scales(
    graph: onnx.GraphProto,
    initializers: Mapping[str, onnx.TensorProto],
    parts: dict[str, list[str]],
) -> None:
    """Find the scale that `quantize_dynamic` multiplies into an integer product's result.

    It stands in no input of MatMulInteger or ConvInteger: a Mul of the activation's and the
    weight's scale lies beside it, and is found by the name that onnxruntime gives the pair.
    """
    for weight, others in parts.items():
        scale = f"{weight.removesuffix('_quantized')}_scale"
        if scale in initializers and scale not in others:
            others.append(scale)


def _type_name(data_type: int) -> str:
    return _NAMES.get(data_type, TensorProto.DataType.Name(data_type).lower())


def _bytes(tensor: onnx.TensorProto) -> int:
    if tensor.HasField("raw_data"):
        return len(tensor.raw_data)
    if tensor.data_type in (TensorProto.INT4, TensorProto.UINT4):
        return int(-(-prod(tensor.dims) // 2))
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return int(prod(tensor.dims) * dtype.itemsize)
