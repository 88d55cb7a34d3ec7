"""Writes one ONNX graph in a scheme, tensor by tensor.

Owns the order of the steps and the choice of the quantiser for each treatment; the rounding is
:mod:`edgevoice.quant.int8`'s, :mod:`edgevoice.quant.int4`'s and :mod:`edgevoice.quant.float16`'s.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from glob import escape

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgevoice.errors import ConfigError, unknown
from edgevoice.quant import float16, int4, int8
from edgevoice.quant.recipe import KEEP
from edgevoice.quant.scheme import SCHEMES
from edgevoice.quant.tensors import graphs

TREATMENTS = (KEEP, "fp16", "int8", "int8-weights", "int4", "int4-asymmetric")
"""What a recipe may ask for a tensor of an ONNX graph."""

# Operators that nothing but a quantiser writes.
_QUANTISED = frozenset(
    "MatMulInteger ConvInteger MatMulIntegerToFloat DynamicQuantizeMatMul DynamicQuantizeLSTM "
    "QLinearMatMul QLinearConv QuantizeLinear MatMulNBits GatherBlockQuantized".split()
)


def is_quantised(model: onnx.ModelProto) -> bool:
    """Whether some weight of ``model`` is in integers already."""
    return any(n.op_type in _QUANTISED for graph in graphs(model.graph) for n in graph.node)


def write(model: onnx.ModelProto, treatment: Callable[[str], str]) -> None:
    """Rewrite ``model`` in place; ``treatment`` names one of :data:`TREATMENTS` for a tensor.

    A treatment reaches what its quantiser takes: the right sides of matrix products (``Gemm``
    included) for the integer ones, every large weight for ``fp16``. The rest stays as it is, but
    for float32 that float16 holds exactly, which is stored so: it costs nothing.

    Raises:
        ConfigError: A treatment is not known.
    """
    names: dict[str, list[str]] = defaultdict(list)
    for tensor in model.graph.initializer:
        wanted = treatment(tensor.name)
        if wanted not in TREATMENTS:
            raise ConfigError(unknown("treatment of an ONNX tensor", wanted, TREATMENTS))
        names[wanted].append(tensor.name)
    everything = [name for group in names.values() for name in group]
    if set(names) - {KEEP, "fp16"}:
        products_from_gemm(model)
    for wanted, group in names.items():
        chosen = set(group)
        others = [escape(name) for name in everything if name not in chosen]
        if wanted == "int8":
            int8.quantise(model, others)
        elif wanted == "fp16":
            float16.store(model, others)
        elif wanted != KEEP:
            scheme = SCHEMES[wanted]
            size, symmetric = scheme.options["block_size"], scheme.options["symmetric"]
            int4.quantise(model, int(scheme.bits), size, symmetric, others)
    if set(names) != {KEEP}:
        int8.halve_exact(model)


def products_from_gemm(model: onnx.ModelProto) -> None:
    """Write every plain ``Gemm`` with a constant right side as ``MatMul`` and ``Add``, in place.

    Quantisers of products then see one operator. ``alpha`` and ``beta`` of 1 and no transposed
    left side, which is what exporters write for a linear layer; any other stays.
    """
    graph = model.graph
    initializers = {t.name: t for t in graph.initializer}
    uses: dict[str, int] = defaultdict(int)
    for node in graph.node:
        for name in node.input:
            uses[name] += 1
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        settings = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        weight = initializers.get(node.input[1]) if node.op_type == "Gemm" else None
        turned = bool(settings.get("transB"))
        if (
            weight is None
            or weight.data_type != TensorProto.FLOAT
            or settings.get("alpha", 1.0) != 1.0
            or settings.get("beta", 1.0) != 1.0
            or settings.get("transA")
            or (turned and uses[weight.name] > 1)
        ):
            nodes.append(node)
            continue
        if turned:
            values = np.ascontiguousarray(numpy_helper.to_array(weight).T)
            weight.CopyFrom(numpy_helper.from_array(values, weight.name))
        biased = len(node.input) > 2 and bool(node.input[2])
        product = f"{node.output[0]}_product" if biased else node.output[0]
        nodes.append(helper.make_node("MatMul", node.input[:2], [product], name=node.name))
        if biased:
            nodes.append(
                helper.make_node(
                    "Add", [product, node.input[2]], [node.output[0]], name=f"{node.name}_bias"
                )
            )
    del graph.node[:]
    graph.node.extend(nodes)
