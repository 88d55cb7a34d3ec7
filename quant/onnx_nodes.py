"""What every rewriting of an ONNX graph needs: attributes, sub-graphs, nodes exchanged in place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import onnx
from onnx import helper

CONTRIB = "com.microsoft"
"""The domain of onnxruntime's own operators."""


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Return the attributes of ``node`` as Python values."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield ``graph`` and every graph inside its nodes, outermost first."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from graphs(attribute.g)
            for inner in attribute.graphs:
                yield from graphs(inner)


def replace_nodes(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Make ``nodes`` the nodes of ``graph``; they may be some of its own."""
    kept = list(nodes)
    del graph.node[:]
    graph.node.extend(kept)


def declare_contrib(model: onnx.ModelProto) -> None:
    """Say in ``model`` that it has operators of onnxruntime's own."""
    if CONTRIB not in {o.domain for o in model.opset_import}:
        model.opset_import.append(helper.make_opsetid(CONTRIB, 1))
