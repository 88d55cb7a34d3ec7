"""Convolutions and matrix products in eight bits, all as one kind of product.

Owns the rewriting of one graph in memory. Which tensors, and whether it pays, is the exporter's
business.

``quantize_dynamic`` writes a convolution as ``ConvInteger``, whose product has the weights on the
left and unsigned bytes on both sides. onnxruntime's fast kernels multiply unsigned activations
with signed, packed weights on the right. So a 1-D convolution becomes what it is anyway, a product
of the weights with k shifted copies of the input beside each other (im2col), made after the input
was rounded to bytes, so that the copies are cheap. One scale per output channel comes for free,
and the product's own node adds the bias and returns floats. One core with VNNI, 192 to 384
channels, k = 5: 3.1 ms in float, 2.1 as ``ConvInteger``, 1.1 so.

On x86 without VNNI two products of ``255 * 127`` overflow the 16 bits that they are summed in:
export for such a device with ``largest=63`` (onnxruntime's ``reduce_range``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgevoice.quant.int8 import LARGEST, round_columns
from edgevoice.quant.onnx_nodes import CONTRIB, attributes, declare_contrib, replace_nodes

T = TypeVar("T")

_OPERATORS = ("Conv", "ConvTranspose", "MatMul", "Gemm")
_TO_THE_END = 2**31
LEAST_OPSET = 13  # Slice and Pad with inputs, and Pad of bytes
LEAST_ELEMENTS = 1024


def weights_of(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    """Return the float weights that :func:`quantise` can round, with the nodes that use them."""
    constants = {t.name: t for t in graph.initializer}
    users: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            if name in constants:
                users[name].append(node)
    return {
        name: nodes
        for name, nodes in users.items()
        if constants[name].data_type == TensorProto.FLOAT
        and np.prod(constants[name].dims) >= LEAST_ELEMENTS
        and all(_fits(node, name, constants) for node in nodes)
    }


def quantise(
    model: onnx.ModelProto,
    chosen: Callable[[str], bool] = lambda _: True,
    *,
    largest: int = LARGEST,
    per_channel: bool = True,
) -> list[str]:
    """Rewrite ``model`` in place and return the names of the weights that are int8 now.

    Args:
        model: Opset 13 at least.
        chosen: Asked for the name of each weight of :func:`weights_of`.
        largest: Weights are rounded to ``-largest`` to ``largest``.
        per_channel: One scale for each output channel; False is for measuring what that is worth.

    Raises:
        ValueError: The model's opset is too old.
    """
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    if opset < LEAST_OPSET:
        raise ValueError(f"opset {opset}; {LEAST_OPSET} or later is needed")
    graph = model.graph
    names = [name for name in weights_of(graph) if chosen(name)]
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer if t.name in names}
    writer = _Writer(constants, largest, per_channel)
    for node in graph.node:
        weight = next((n for n in node.input if n in constants), None)
        if weight is None:
            writer.nodes.append(node)
        else:
            writer.rewrite(node, weight)
    kept = [t for t in graph.initializer if t.name not in constants]
    replace_nodes(graph, writer.nodes)
    del graph.initializer[:]
    graph.initializer.extend([*kept, *writer.initializers])
    if names:
        declare_contrib(model)
    return names


def _fits(node: onnx.NodeProto, weight: str, constants: dict[str, onnx.TensorProto]) -> bool:
    if node.op_type not in _OPERATORS or list(node.input).count(weight) != 1:
        return False
    if node.input[1] != weight:
        return False
    rank = len(constants[weight].dims)
    known = attributes(node)
    if node.op_type == "MatMul":
        return rank == 2
    if len(node.input) > 2 and node.input[2] not in constants:
        return False
    if node.op_type == "Gemm":
        plain = known.get("alpha", 1.0) == known.get("beta", 1.0) == 1.0
        vector = len(node.input) < 3 or len(constants[node.input[2]].dims) == 1
        return rank == 2 and plain and vector and not known.get("transA", 0)
    plain = known.get("group", 1) == 1 and known.get("auto_pad", b"NOTSET") == b"NOTSET"
    if node.op_type == "ConvTranspose":
        plain = plain and known.get("dilations", [1]) == [1] and "output_shape" not in known
        extra = known.get("output_padding", [0])[0]
        (stride,), size = known.get("strides", [1]), constants[weight].dims[-1]
        plain = plain and extra <= -size % stride + known.get("pads", [0, 0])[1]
    return rank == 3 and plain


@dataclass(slots=True)
class _Writer:
    """Writes the new nodes in order; what several nodes can share is made once."""

    floats: dict[str, NDArray[np.float32]]
    largest: int
    per_channel: bool
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    _made: dict[tuple[Any, ...], Any] = field(default_factory=dict)

    def rewrite(self, node: onnx.NodeProto, weight: str) -> None:
        """Write ``node`` with ``weight`` in bytes; its output keeps its name."""
        known = attributes(node)
        values = self.floats[weight]
        bias = node.input[2] if len(node.input) > 2 else ""
        out = node.output[0]
        if node.op_type in ("MatMul", "Gemm"):
            matrix = values.T if known.get("transB", 0) else values
            self._product(self._bytes(node.input[0]), weight, matrix, bias, out)
        elif node.op_type == "Conv":
            rows = self._bytes(self._transposed(node.input[0]))
            shifted = self._shifted(rows, known, values.shape[2])
            matrix = values.transpose(2, 1, 0).reshape(-1, values.shape[0])
            made = f"{out}/rows"
            self._product((shifted, *rows[1:]), weight, matrix, bias, made)
            self._op("Transpose", [made], out, perm=[0, 2, 1])
        else:
            self._spread(node.input[0], weight, bias, known, out)

    def _spread(self, value: str, weight: str, bias: str, known: dict[str, Any], out: str) -> None:
        """Write a transposed convolution: one product, whose rows overlap and are added.

        A kernel of n strides makes n blocks of one stride from each row of the input; block i
        lands i rows further down.
        """
        values = self.floats[weight]  # [in, out, size]
        channels, size = values.shape[1:]
        stride = int(known.get("strides", [1])[0])
        first, last = (int(p) for p in known.get("pads", [0, 0]))
        extra = int(known.get("output_padding", [0])[0])
        blocks = -(-size // stride)
        filled = np.pad(values, ((0, 0), (0, 0), (0, blocks * stride - size)))
        matrix = filled.transpose(0, 2, 1).reshape(len(values), -1)
        rows = self._bytes(self._transposed(value))
        self._product(rows, weight, matrix, "", f"{out}/blocks")
        width = stride * channels
        parts = []
        for i in range(blocks):
            part = self._op(
                "Slice",
                [f"{out}/blocks", self._ints(i * width), self._ints((i + 1) * width),
                 self._ints(2)],
                f"{out}/block{i}",
            )  # fmt: skip
            pads = self._ints(0, i, 0, 0, blocks - 1 - i, 0)
            parts.append(self._op("Pad", [part, pads], f"{out}/placed{i}"))
        total = parts[0]
        for i, part in enumerate(parts[1:], 1):
            total = self._op("Add", [total, part], f"{out}/sum{i}")
        total = self._op("Reshape", [total, self._ints(0, -1, channels)], f"{out}/samples")
        end = blocks * stride - size + last - extra
        if first or end:
            stop = self._ints(-end if end else _TO_THE_END)
            cropped = [total, self._ints(first), stop, self._ints(1)]
            total = self._op("Slice", cropped, f"{out}/cropped")
        if bias:
            total = self._op("Add", [total, bias], f"{out}/biased")
        self._op("Transpose", [total], out, perm=[0, 2, 1])

    def _transposed(self, value: str) -> str:
        """Return ``value`` [1, channels, time] as [1, time, channels]."""
        return self._once(
            ("rows", value),
            lambda: self._op("Transpose", [value], f"{value}/transposed", perm=[0, 2, 1]),
        )

    def _bytes(self, value: str) -> tuple[str, str, str]:
        """Return ``value`` in bytes, its scale and its zero point, as they come when it runs."""

        def make() -> tuple[str, str, str]:
            made = (f"{value}/bytes", f"{value}/scale", f"{value}/zero")
            self._op("DynamicQuantizeLinear", [value], *made)
            return made

        return self._once(("bytes", value), make)

    def _shifted(self, rows: tuple[str, str, str], known: dict[str, Any], size: int) -> str:
        """Return ``size`` shifted copies of bytes [1, time, channels] beside each other."""
        dilation, stride = (int(known.get(k, [1])[0]) for k in ("dilations", "strides"))
        first, last = (int(p) for p in known.get("pads", [0, 0]))

        def make() -> str:
            data, _, zero = rows
            label = f"{data}/k{size}d{dilation}s{stride}p{first}_{last}"
            if first or last:
                pads = self._ints(0, first, 0, 0, last, 0)
                data = self._op("Pad", [data, pads, zero], f"{label}/padded")
            parts = []
            for i in range(size):
                left = (size - 1 - i) * dilation
                bounds = (i * dilation, -left if left else _TO_THE_END, 1, stride)
                inputs = [data, *(self._ints(bound) for bound in bounds)]
                parts.append(self._op("Slice", inputs, f"{label}/{i}"))
            return self._op("Concat", parts, f"{label}/beside", axis=2)

        if size == 1 and stride == 1 and not (first or last):
            return rows[0]
        return self._once(("shifted", rows[0], size, dilation, stride, first, last), make)

    def _product(
        self,
        rows: tuple[str, str, str],
        weight: str,
        matrix: NDArray[np.float32],
        bias: str,
        out: str,
    ) -> None:
        data, scale, zero = rows

        def make() -> tuple[str, str]:
            whole, scales = round_columns(matrix, self.largest, self.per_channel)
            return self._add(weight, whole), self._add(f"{weight}_scale", scales)

        packed, scales = self._once(("weight", weight), make)
        inputs = [data, packed, scale, scales, zero, "", bias]
        self._op("MatMulIntegerToFloat", inputs if bias else inputs[:5], out, domain=CONTRIB)

    def _op(
        self, kind: str, inputs: list[str], *outputs: str, domain: str = "", **more: Any
    ) -> str:
        label = f"{outputs[0]}/{kind}"
        self.nodes.append(
            helper.make_node(kind, inputs, list(outputs), name=label, domain=domain, **more)
        )
        return outputs[0]

    def _ints(self, *numbers: int) -> str:
        name = "ints/" + "_".join(map(str, numbers))
        return self._once(("ints", numbers), lambda: self._add(name, np.array(numbers, np.int64)))

    def _add(self, name: str, array: NDArray[Any]) -> str:
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def _once(self, key: tuple[Any, ...], make: Callable[[], T]) -> T:
        if key not in self._made:
            self._made[key] = make()
        made: T = self._made[key]
        return made
