"""Weights in blocks of few bits, activations in float: onnxruntime's ``MatMulNBits``.

Owns the rewriting of one model in memory; :mod:`edgevoice.quant.blocks` rounds. Which model, and
whether the result is good enough to publish, is the exporter's business.

A product with a constant right side of shape [in, out] becomes ``MatMulNBits``: every ``block``
weights of one output column share a scale, and a zero point when they are asymmetric. An embedding
that reads rows of the same matrix (tied to the logits) reads them with ``GatherBlockQuantized``
from the same bytes, so that the largest matrix of a small language model lies in the file once.
Scales are stored as float16, as GGUF does: 4.5 bits a weight in blocks of 32 in place of 5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgevoice.quant.blocks import fit_blocks, round_blocks
from edgevoice.quant.float16 import LARGEST, SMALLEST_NORMAL
from edgevoice.quant.matrix_uses import Plan, Uses
from edgevoice.quant.onnx_nodes import CONTRIB, declare_contrib, graphs, replace_nodes
from edgevoice.quant.recipe import TensorChoice

# How MatMulNBits computes: 0 as its inputs are, 4 with activations in blocks of 8 bits, which is
# what its fast kernels for x86-64 (VNNI) and Arm (dot product) do.
FLOAT_ACTIVATIONS = 0
INT8_ACTIVATIONS = 4


def quantise(
    model: onnx.ModelProto,
    bits: int,
    block_size: int,
    symmetric: bool,
    keep: Sequence[str] = (),
    *,
    operators: Sequence[str] = ("MatMul",),
    accuracy_level: int = INT8_ACTIVATIONS,
    least_elements: int = 4096,
    importance: Mapping[str, NDArray[np.float32]] | None = None,
) -> list[TensorChoice]:
    """Rewrite ``model`` in place and return what became of the matrices that are in blocks now.

    Every ``MatMul`` is rewritten whose right side is a float32 initializer of rank 2, or the
    transpose of one. A ``Gather`` of rows (or of columns) from a matrix that such a product reads
    as well is rewritten with it; one on its own only where ``operators`` names ``Gather``.
    Initializers that are used in any other way, have fewer than ``least_elements`` elements, or
    whose name matches one of the shell patterns in ``keep``, stay as they are.

    Args:
        model: Changed in place; its weights must be in it, not in external data.
        bits: 4 or 8.
        block_size: Weights that share a scale: 16, 32, 64, 128 or 256.
        symmetric: Without zero points.
        keep: Shell patterns of initializers' names.
        operators: ``MatMul``, ``Gather``, or both.
        accuracy_level: :data:`FLOAT_ACTIVATIONS` or :data:`INT8_ACTIVATIONS`.
        least_elements: Smaller matrices are not worth a block.
        importance: Per matrix, the mean square of what each of its inputs carries, [in]
            (:mod:`edgevoice.quant.activations`); its blocks are fitted with these weights.

    Raises:
        ConfigError: There is no kernel for ``bits`` or ``block_size``.
    """
    how = _How(bits, block_size, symmetric, accuracy_level, importance or {})
    made: list[TensorChoice] = []
    for graph in graphs(model.graph):
        uses = Uses(graph)
        rewriting = _Rewriting()
        for tensor in graph.initializer:
            if (
                tensor.data_type != TensorProto.FLOAT
                or len(tensor.dims) != 2
                or tensor.dims[0] * tensor.dims[1] < least_elements
                or any(fnmatchcase(tensor.name, pattern) for pattern in keep)
            ):
                continue
            plan = uses.plan(tensor, block_size)
            if plan is not None and ("MatMul" if plan.products else "Gather") in operators:
                made.append(_rewrite(tensor, plan, how, rewriting))
        rewriting.apply(graph)
    if made:
        declare_contrib(model)
    return made


@dataclass(frozen=True, slots=True)
class _How:
    """What is the same for every matrix."""

    bits: int
    block_size: int
    symmetric: bool
    accuracy_level: int
    importance: Mapping[str, NDArray[np.float32]]


@dataclass(slots=True)
class _Rewriting:
    """Nodes and initializers that will stand in for those of one graph."""

    before: list[onnx.NodeProto] = field(default_factory=list)
    instead: dict[str, list[onnx.NodeProto]] = field(default_factory=dict)
    added: list[onnx.TensorProto] = field(default_factory=list)

    def apply(self, graph: onnx.GraphProto) -> None:
        """Put them in; a node is known by its first output."""
        nodes = [*self.before]
        for node in graph.node:
            nodes.extend(self.instead.get(node.output[0] if node.output else "", [node]))
        replace_nodes(graph, nodes)
        graph.initializer.extend(self.added)


def _rewrite(
    tensor: onnx.TensorProto, plan: Plan, how: _How, rewriting: _Rewriting
) -> TensorChoice:
    """Round ``tensor`` and note what its users become."""
    name = tensor.name
    weight = numpy_helper.to_array(tensor)
    turned = np.ascontiguousarray(weight.T) if plan.out_first else weight
    if name in how.importance:
        weighing = how.importance[name]
        blocks = fit_blocks(turned, how.bits, how.block_size, how.symmetric, weighing)
    else:
        blocks = round_blocks(turned, how.bits, how.block_size, how.symmetric)
    rows, columns = turned.shape
    tensor.CopyFrom(numpy_helper.from_array(blocks.values, name))
    operands = [name, f"{name}_scales"]
    scales, widen = _scales(blocks.scales, name)
    side = [scales]
    rewriting.before += widen
    if blocks.zero_points is not None:
        operands.append(f"{name}_zero_points")
        side.append(numpy_helper.from_array(blocks.zero_points, operands[-1]))
    stored = sum(len(part.raw_data) for part in (tensor, *side))
    sizes = {"bits": how.bits, "block_size": how.block_size}
    level = {"accuracy_level": how.accuracy_level} if how.accuracy_level else {}
    for node in plan.products:
        rewriting.instead[node.output[0]] = [
            helper.make_node(
                "MatMulNBits",
                [node.input[0], *operands],
                list(node.output),
                name=node.name,
                domain=CONTRIB,
                K=rows,
                N=columns,
                **sizes,
                **level,
            )
        ]
    if plan.gathers:
        shape = np.array([columns, -1], np.int64)
        side.append(numpy_helper.from_array(shape, f"{name}_rows_shape"))
        rewriting.before.append(
            helper.make_node(
                "Reshape", [name, f"{name}_rows_shape"], [f"{name}_rows"], name=f"{name}_as_rows"
            )
        )
    for node in plan.gathers:
        rewriting.instead[node.output[0]] = _gather(node, operands, sizes, plan.out_first)
    for node in plan.transposes:
        rewriting.instead[node.output[0]] = []
    rewriting.added += side
    return TensorChoice(name, f"int{how.bits}", rows * columns, stored)


def _scales(
    scales: NDArray[np.float32], weight: str
) -> tuple[onnx.TensorProto, list[onnx.NodeProto]]:
    """Return scales as float16 with the node that widens them; as float32 where that loses."""
    name = f"{weight}_scales"
    sizes = np.abs(scales[scales != 0.0])
    if sizes.size and (sizes.min() < SMALLEST_NORMAL or sizes.max() > LARGEST):
        return numpy_helper.from_array(scales, name), []
    half = numpy_helper.from_array(scales.astype(np.float16), f"{name}_half")
    widen = helper.make_node(
        "Cast", [half.name], [name], name=f"widen_{name}", to=TensorProto.FLOAT
    )
    return half, [widen]


def _gather(
    node: onnx.NodeProto, operands: Sequence[str], sizes: Mapping[str, int], out_first: bool
) -> list[onnx.NodeProto]:
    """Read rows of [out, in]; what read columns of [in, out] gets them turned back."""
    result = node.output[0] if out_first else f"{node.output[0]}_rows"
    gather = helper.make_node(
        "GatherBlockQuantized",
        [f"{operands[0]}_rows", node.input[1], *operands[1:]],
        [result],
        name=node.name,
        domain=CONTRIB,
        gather_axis=0,
        quantize_axis=1,
        **sizes,
    )
    if out_first:
        return [gather]
    turn = helper.make_node(
        "Einsum", [result], [node.output[0]], name=f"{node.name}_turned", equation="...k->k..."
    )
    return [gather, turn]
