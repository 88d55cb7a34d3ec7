"""Gives every weight of an ONNX graph the treatment that a recipe asks for.

A treatment is the name of an ONNX scheme, or :data:`edgevoice.quant.recipe.KEEP`. Owns that
vocabulary, and which quantiser takes which weights; rounding is :mod:`edgevoice.quant.int8`'s and
:mod:`edgevoice.quant.int4`'s. What becomes of the weights that stay in float is the family's
choice: :mod:`edgevoice.quant.float16` stores them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from glob import escape

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgevoice.errors import ConfigError, unknown
from edgevoice.quant import int4, int8
from edgevoice.quant.onnx_nodes import attributes, replace_nodes
from edgevoice.quant.recipe import HALF, INT8, KEEP, Recipe
from edgevoice.quant.scheme import SCHEMES

BLOCKS = ("int8-weights", "int4", "int4-asymmetric")
TREATMENTS = (KEEP, HALF, INT8, *BLOCKS)
"""What a recipe may ask for a tensor of an ONNX graph."""


def choose(
    model: onnx.ModelProto, recipe: Recipe, otherwise: str, file: str = ""
) -> dict[str, str]:
    """Return the treatment of every initializer of ``model``, by its name.

    Args:
        model: Of float weights.
        recipe: Asked first.
        otherwise: For the tensors that it says nothing of.
        file: In an artifact of several graphs, a recipe's tensor is called ``file:name``.

    Raises:
        ConfigError: A treatment is none of :data:`TREATMENTS`.
    """
    prefix = f"{file}:" if file else ""
    chosen = {t.name: recipe.treatment(prefix + t.name, otherwise) for t in model.graph.initializer}
    for wanted in chosen.values():
        if wanted not in TREATMENTS:
            raise ConfigError(unknown("treatment", wanted, TREATMENTS))
    return chosen


def round_products(
    model: onnx.ModelProto,
    chosen: Mapping[str, str],
    *,
    operators: Sequence[str] = ("MatMul",),
    importance: Mapping[str, NDArray[np.float32]] | None = None,
    largest: int = int8.LARGEST,
) -> dict[str, list[str]]:
    """Rewrite ``model`` in place; return the weights that are integers now, by treatment.

    A treatment reaches what its quantiser takes: the right sides of matrix products, ``Gemm``
    included. Other weights, those to be kept and those for float16 stay as they are.

    Args:
        model: As :func:`choose` has seen it.
        chosen: What it said, or a part of it.
        operators: What blocks may be read by, see :func:`edgevoice.quant.int4.quantise`.
        importance: Also there; for blocks of four bits.
        largest: See :func:`edgevoice.quant.int8.quantise`.
    """
    asked = [name for name in dict.fromkeys(chosen.values()) if name not in (KEEP, HALF)]
    if asked:
        products_from_gemm(model)
    rounded = {}
    for treatment in asked:
        others = [
            escape(t.name) for t in model.graph.initializer if chosen.get(t.name) != treatment
        ]
        if treatment == INT8:
            rounded[treatment] = int8.quantise(model, others, largest)
            continue
        scheme = SCHEMES[treatment]
        made = int4.quantise(
            model,
            int(scheme.bits),
            scheme.options["block_size"],
            scheme.options["symmetric"],
            others,
            operators=operators,
            importance=importance if scheme.bits == 4 else None,
        )
        rounded[treatment] = [choice.name for choice in made]
    return rounded


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
        settings = attributes(node)
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
    replace_nodes(graph, nodes)
