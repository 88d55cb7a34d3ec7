"""Walks an ONNX graph: who makes a value, who reads it, what nobody needs.

For the rewriting of traced graphs; what is looked for is the rewriter's business.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import onnx


class Unrecognised(Exception):
    """The graph has a part that is written in a way that this module does not know."""


class Wires:
    """Who makes and who reads every value of a graph, and what has to be added to it."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.added: list[onnx.NodeProto] = []
        self.maker = {out: node for node in graph.node for out in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in dict.fromkeys(node.input):
                self.readers[name].append(node)

    def made_by(self, value: str, *kinds: str) -> onnx.NodeProto:
        """Return the node that makes ``value``, one of ``kinds``.

        Raises:
            Unrecognised: It is another one.
        """
        node = self.maker.get(value)
        if node is None or node.op_type not in kinds:
            found = "no node" if node is None else node.op_type
            raise Unrecognised(f"{value} is made by {found}, {' or '.join(kinds)} was expected")
        return node

    def comes_from(self, value: str, origin: str, through: Sequence[str]) -> bool:
        """Whether ``value`` is ``origin``, at most reshaped by nodes of the kinds ``through``."""
        while value != origin:
            node = self.maker.get(value)
            if node is None or node.op_type not in through:
                return False
            value = node.input[0]
        return True


def prune(graph: onnx.GraphProto) -> None:
    """Remove nodes, initializers and inputs that no output needs."""
    needed = {o.name for o in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if any(o in needed for o in node.output):
            kept.append(node)
            needed.update(node.input)
    for field, values in (
        (graph.node, kept[::-1]),
        (graph.initializer, [t for t in graph.initializer if t.name in needed]),
        (graph.input, [i for i in graph.input if i.name in needed]),
    ):
        del field[:]
        field.extend(values)
