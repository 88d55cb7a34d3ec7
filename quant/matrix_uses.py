"""Who reads a matrix of an ONNX graph, and in which of its two layouts.

Owns the question whether all uses of one initializer can read blocks of it; the blocks themselves
are :mod:`edgevoice.quant.int4`'s.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import onnx

from edgevoice.quant.onnx_nodes import graphs


@dataclass(frozen=True, slots=True)
class Plan:
    """Every use of one matrix; ``out_first`` when it lies as [out, in]."""

    out_first: bool
    products: list[onnx.NodeProto]
    gathers: list[onnx.NodeProto]
    transposes: list[onnx.NodeProto]


class Uses:
    """Who reads what in one graph."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._users: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self._users[name].append(node)
        inner = (n for sub in list(graphs(graph))[1:] for n in sub.node)
        # What a sub-graph or the caller reads by name has to stay what it is.
        self._outside = {o.name for o in graph.output} | {i for n in inner for i in n.input}

    def plan(self, tensor: onnx.TensorProto, block_size: int) -> Plan | None:
        """Sort the uses of an initializer; None when one of them needs it in float."""
        name = tensor.name
        direct: list[onnx.NodeProto] = []
        turned: list[onnx.NodeProto] = []
        transposes: list[onnx.NodeProto] = []
        rows: list[onnx.NodeProto] = []
        columns: list[onnx.NodeProto] = []
        if name in self._outside:
            return None
        for node in self._users[name]:
            if _is_product(node, name):
                direct.append(node)
            elif node.op_type == "Gather" and node.input[0] == name:
                (columns if _attribute(node, "axis", 0) == 1 else rows).append(node)
            elif node.op_type == "Transpose" and node.output[0] not in self._outside:
                users = self._users[node.output[0]]
                if not users or not all(_is_product(user, node.output[0]) for user in users):
                    return None
                transposes.append(node)
                turned += users
            else:
                return None
        # One layout serves all: columns are blocked along `in`, so rows of [out, in] and columns
        # of [in, out] can be gathered, and the other two cannot.
        out_first = bool(turned or rows)
        if out_first and (direct or columns):
            return None
        inner = tensor.dims[1] if out_first else tensor.dims[0]
        gathers = [*rows, *columns]
        if gathers and inner % block_size:
            return None  # a gathered row would come with the filling of its last block
        if not (direct or turned or gathers):
            return None
        return Plan(out_first, [*direct, *turned], gathers, transposes)


def _is_product(node: onnx.NodeProto, weight: str) -> bool:
    return bool(node.op_type == "MatMul" and node.input[1] == weight and node.input[0] != weight)


def _attribute(node: onnx.NodeProto, name: str, otherwise: int) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), otherwise)
