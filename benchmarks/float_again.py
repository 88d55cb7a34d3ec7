"""Turns an ONNX graph that `quantize_dynamic` wrote back into floats, to measure against.

    python benchmarks/float_again.py QUANTISED.onnx FLOAT.onnx

The weights are the bytes' values; what rounding took is gone. For voices whose float weights no
package registry carries (Kokoro). ConvInteger, MatMulInteger and DynamicQuantizeLSTM go with the
arithmetic around them, the bias that is rounded at run time included.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper


class _Graph:
    """Looks around in a graph."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.constants = {t.name: t for t in graph.initializer}
        self.made_by = {name: node for node in graph.node for name in node.output}
        self.users: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self.users[name].append(node)

    def value(self, name: str) -> NDArray[Any]:
        return numpy_helper.to_array(self.constants[name])

    def wide(self, weight: str, scale: str, zero: str) -> NDArray[np.float32]:
        """Return the floats that bytes [..] or, for an LSTM, [directions, in, out] stand for."""
        bytes_, scales, zeros = self.value(weight), self.value(scale), self.value(zero)
        if bytes_.ndim == 3 and scales.ndim == 1:
            scales, zeros = scales[:, None, None], np.reshape(zeros, (-1, 1, 1))
        floats = (bytes_.astype(np.float32) - zeros.astype(np.float32)) * scales
        return floats.astype(np.float32)

    def after(self, node: onnx.NodeProto, *kinds: str) -> onnx.NodeProto | None:
        """Return the last of a chain of single users of these kinds."""
        for kind in kinds:
            following = self.users[node.output[0]]
            if len(following) != 1 or following[0].op_type != kind:
                return None
            node = following[0]
        return node

    def scale_of(self, product: onnx.NodeProto, cast: str) -> str:
        """Return the weight's scale that ``product`` multiplies into ``cast``."""
        other = next(name for name in product.input if name != cast)
        return next(n for n in self.made_by[other].input if n in self.constants)

    def bias_of(self, name: str) -> str:
        """Return the float bias that was rounded into ``name``."""
        while name not in self.constants:
            node = self.made_by[name]
            name = next((n for n in node.input if n in self.constants
                         and self.constants[n].data_type == onnx.TensorProto.FLOAT
                         and len(self.constants[n].dims) == 1), node.input[0])  # fmt: skip
        return name


def restore(model: onnx.ModelProto) -> int:
    """Rewrite ``model`` in place and return how many operators became floats."""
    graph = model.graph
    known = _Graph(graph)
    new: dict[str, onnx.NodeProto] = {}  # by the output that they make
    weights: dict[str, NDArray[np.float32]] = {}

    def weight(name: str, floats: NDArray[np.float32]) -> str:
        wide = name.removesuffix("_quantized")
        weights[wide] = floats
        return wide

    for node in graph.node:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type in ("ConvInteger", "MatMulInteger"):
            biased = known.after(node, "Add")
            cast = known.after(biased or node, "Cast")
            if cast is None:
                biased, cast = None, known.after(node, "Cast")
            assert cast is not None
            last = known.after(cast, "Mul")
            assert last is not None
            scale = known.scale_of(last, cast.output[0])
            floats = known.wide(node.input[1], scale, node.input[3])
            inputs = [known.made_by[node.input[0]].input[0], weight(node.input[1], floats)]
            if biased is not None:
                inputs.append(known.bias_of(next(n for n in biased.input if n != node.output[0])))
            kind = node.op_type.removesuffix("Integer")
            out = last.output[0]
            new[out] = helper.make_node(kind, inputs, [out], name=out, **attributes)
        elif node.op_type == "DynamicQuantizeLSTM":
            x, w, r, b, lengths, h, c, peep, *scales = node.input
            floats = [
                weight(n, known.wide(n, s, z).transpose(0, 2, 1))
                for n, s, z in ((w, scales[0], scales[1]), (r, scales[2], scales[3]))
            ]
            inputs = [x, *floats, b, lengths, h, c, peep]
            while not inputs[-1]:
                inputs.pop()
            made = helper.make_node("LSTM", inputs, list(node.output), name=node.name, **attributes)
            new.update(dict.fromkeys((n for n in node.output if n), made))
        elif node.op_type == "DequantizeLinear":
            gather = known.made_by[node.input[0]]
            assert gather.op_type == "Gather"
            floats = known.wide(gather.input[0], node.input[1], node.input[2])
            inputs = [weight(gather.input[0], floats), gather.input[1]]
            new[node.output[0]] = helper.make_node(
                "Gather", inputs, list(node.output), name=gather.name,
                **{a.name: helper.get_attribute_value(a) for a in gather.attribute},
            )  # fmt: skip
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        made = next((new[n] for n in node.output if n in new), node)
        if not any(made is n for n in nodes[-1:]):
            nodes.append(made)
    _keep_needed(graph, nodes, weights)
    return len({id(n) for n in new.values()})


def _keep_needed(
    graph: onnx.GraphProto, nodes: list[onnx.NodeProto], weights: dict[str, NDArray[np.float32]]
) -> None:
    """Write the nodes and constants that the outputs depend on."""
    needed = {o.name for o in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(nodes):
        if not needed.isdisjoint(node.output):
            kept.append(node)
            needed.update(node.input)
    constants = [t for t in graph.initializer if t.name in needed and t.name not in weights]
    added = [numpy_helper.from_array(np.ascontiguousarray(w), n) for n, w in weights.items()]
    del graph.node[:]
    graph.node.extend(reversed(kept))
    del graph.initializer[:]
    graph.initializer.extend([*constants, *added])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("quantised", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    model = onnx.load(str(arguments.quantised))
    count = restore(model)
    del model.graph.value_info[:]
    onnx.save(model, str(arguments.out))
    print(f"{count} operators in {arguments.out}, {arguments.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
