"""The rotation of queries and keys (RoPE, Su et al. 2021) in a traced graph, as a table.

Every architecture computes its angles in its own way (scaled, long, two of them in one model), and
all of them are a function of the position alone. So the table is not computed from a formula: the
graph's own cosines and sines are evaluated for every position of the context.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgevoice.export.graph_wires import Unrecognised, Wires, prune


@dataclass(frozen=True, slots=True)
class Rotation:
    """The values of a graph that hold cosines and sines, [1, 1, new, width]."""

    cosines: str
    sines: str


def rotation_of(wires: Wires, value: str) -> tuple[str, Rotation]:
    """Return what is rotated into ``value`` [1, heads, new, width], and by what.

    The pattern is ``x * cos + concat(-x[width/2:], x[:width/2]) * sin``.

    Raises:
        Unrecognised: ``value`` is made in another way.
    """
    total = wires.made_by(value, "Add")
    left, right = (wires.made_by(name, "Mul") for name in total.input)
    for plain, turned in ((left, right), (right, left)):
        for place in (0, 1):
            x = plain.input[place]
            for other in (0, 1):
                halves = wires.maker.get(turned.input[other])
                if halves is None or halves.op_type != "Concat":
                    continue
                if _halves_of(wires, halves) == x:
                    return x, Rotation(plain.input[1 - place], turned.input[1 - other])
    raise Unrecognised(f"{value} is not a rotation by halves")


def _halves_of(wires: Wires, concat: onnx.NodeProto) -> str | None:
    """Return the x of ``concat(-x[width/2:], x[:width/2])``."""
    negative = wires.maker.get(concat.input[0])
    first = wires.maker.get(concat.input[1])
    if negative is None or first is None or negative.op_type != "Neg":
        return None
    second = wires.maker.get(negative.input[0])
    if second is None or {first.op_type, second.op_type} - {"Slice", "Split"}:
        return None
    return str(first.input[0]) if first.input[0] == second.input[0] else None


def tables(
    model: onnx.ModelProto, rotations: Iterable[Rotation], positions: int
) -> dict[Rotation, tuple[onnx.TensorProto, onnx.TensorProto]]:
    """Evaluate each rotation for ``positions`` positions.

    Returns:
        Cosines and sines as initializers, float32 [positions, width / 2].

    Raises:
        Unrecognised: The angles depend on more than the position, or the halves differ.
    """
    wanted = sorted(set(rotations), key=lambda r: (r.cosines, r.sines))
    names = list(dict.fromkeys(n for r in wanted for n in (r.cosines, r.sines)))
    part = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    part.graph.name = "rotation"
    part.graph.node.extend(model.graph.node)
    part.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names
    )
    part.graph.input.extend(model.graph.input)
    for tensor in model.graph.initializer:
        # Only the shape of what is embedded can matter, and every token below is the first.
        large = len(tensor.dims) == 2 and np.prod(tensor.dims) > 1 << 16
        first = np.zeros((1, tensor.dims[-1]), np.float32) if large else None
        part.graph.initializer.append(
            tensor if first is None else numpy_helper.from_array(first, tensor.name)
        )
    prune(part.graph)
    feed = _feed(part.graph, positions)
    session = ort.InferenceSession(part.SerializeToString(), providers=["CPUExecutionProvider"])
    values = dict(zip(names, session.run(names, feed), strict=True))
    made: dict[Rotation, tuple[onnx.TensorProto, onnx.TensorProto]] = {}
    for number, rotation in enumerate(wanted):
        pair = []
        for kind, name in (("cos", rotation.cosines), ("sin", rotation.sines)):
            table = np.asarray(values[name], np.float32).reshape(positions, -1)
            half = table.shape[1] // 2
            if not np.array_equal(table[:, :half], table[:, half:]):
                raise Unrecognised(f"the halves of {name} differ")
            half_table = np.ascontiguousarray(table[:, :half])
            pair.append(numpy_helper.from_array(half_table, f"rotation_{number}_{kind}"))
        made[rotation] = (pair[0], pair[1])
    return made


def _feed(graph: onnx.GraphProto, positions: int) -> dict[str, NDArray[Any]]:
    """Return ``positions`` tokens read into an empty cache, for the inputs that ``graph`` has.

    Some architectures are traced with the positions as an input, others count on from the cache.
    """
    tokens: dict[str, NDArray[Any]] = {
        "input_ids": np.zeros((1, positions), np.int64),
        "attention_mask": np.ones((1, positions), np.int64),
        "position_ids": np.arange(positions, dtype=np.int64)[None],
    }
    feed: dict[str, NDArray[Any]] = {}
    for value in graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name.startswith("past_key_values."):
            feed[value.name] = np.zeros((1, dims[1].dim_value, 0, dims[3].dim_value), np.float32)
        elif value.name in tokens:
            feed[value.name] = tokens[value.name]
        else:
            raise Unrecognised(f"the rotation depends on {value.name}")
    return feed
