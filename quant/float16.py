"""Float16 storage: half the bytes on the disk, the same arithmetic when it runs.

An initializer becomes float16 with a ``Cast`` behind it; onnxruntime folds the cast once, when it
loads the model, so that speed and memory are those of float32. What changes is the rounding of the
weights to 11 significant bits (IEEE 754 binary16).
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from math import prod

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgevoice.quant.recipe import TensorChoice
from edgevoice.quant.tensors import graphs

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
    stored: list[TensorChoice] = []
    for graph in graphs(model.graph):
        casts: list[onnx.NodeProto] = []
        taken = {o.name for o in graph.output}
        for tensor in graph.initializer:
            if (
                tensor.data_type != TensorProto.FLOAT
                or prod(tensor.dims) < least_elements
                or tensor.name in taken
                or any(fnmatchcase(tensor.name, pattern) for pattern in keep)
            ):
                continue
            values = numpy_helper.to_array(tensor)
            largest = float(np.abs(values).max(initial=0.0))
            # NaN compares as False as well.
            if not (largest == 0.0 or SMALLEST_NORMAL <= largest <= LARGEST):
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
        nodes = [*casts, *graph.node]
        del graph.node[:]
        graph.node.extend(nodes)
    return stored
