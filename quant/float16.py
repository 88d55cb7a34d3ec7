"""Float16 storage: half the bytes on the disk, the same arithmetic when it runs.

An initializer becomes float16 with a ``Cast`` behind it; onnxruntime folds the cast once, when it
loads the model, so that speed and memory are those of float32. What changes is the rounding of the
weights to 11 significant bits (IEEE 754 binary16).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from math import prod

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgevoice.quant.onnx_nodes import graphs, replace_nodes
from edgevoice.quant.recipe import TensorChoice

# Below this, float16 has fewer than its 11 bits; a weight there is lost to at most this much.
SMALLEST_NORMAL = 2.0**-14
LARGEST = 65504.0


def store(
    model: onnx.ModelProto, keep: Sequence[str] = (), least_elements: int = 4096
) -> list[TensorChoice]:
    """Store float32 initializers of ``model`` as float16, in place; return what became of them.

    Initializers with fewer than ``least_elements`` elements, with values that float16 cannot hold
    (beyond 65504, infinite, or so small throughout that its precision is gone), and those whose
    name matches one of the shell patterns in ``keep`` stay as they are. A stored tensor is called
    ``<name>_half``; its uses still read ``<name>``.
    """

    def fits(name: str, values: NDArray[np.float32]) -> bool:
        largest = float(np.abs(values).max(initial=0.0))
        # NaN compares as False as well.
        holds = largest == 0.0 or SMALLEST_NORMAL <= largest <= LARGEST
        return holds and not any(fnmatchcase(name, pattern) for pattern in keep)

    return _store(model, least_elements, fits)


def store_exact(model: onnx.ModelProto, least_elements: int = 4096) -> list[TensorChoice]:
    """Store the float32 initializers that float16 holds exactly, as :func:`store` does.

    Neither results nor speed change: weights that came as float16 lose nothing.
    """

    def fits(name: str, values: NDArray[np.float32]) -> bool:
        with np.errstate(over="ignore"):
            return np.array_equal(values.astype(np.float16).astype(np.float32), values)

    return _store(model, least_elements, fits)


def _store(
    model: onnx.ModelProto, least_elements: int, fits: Callable[[str, NDArray[np.float32]], bool]
) -> list[TensorChoice]:
    stored: list[TensorChoice] = []
    for graph in graphs(model.graph):
        casts: list[onnx.NodeProto] = []
        outputs = {o.name for o in graph.output}
        for tensor in graph.initializer:
            if (
                tensor.data_type != TensorProto.FLOAT
                or prod(tensor.dims) < least_elements
                or tensor.name in outputs
            ):
                continue
            values = numpy_helper.to_array(tensor)
            if not fits(tensor.name, values):
                continue
            name = tensor.name
            half = values.astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(half, f"{name}_half"))
            casts.append(
                helper.make_node(
                    "Cast", [f"{name}_half"], [name], name=f"widen_{name}", to=TensorProto.FLOAT
                )
            )
            stored.append(TensorChoice(f"{name}_half", "float16", half.size, half.nbytes))
        replace_nodes(graph, [*casts, *graph.node])
    return stored
