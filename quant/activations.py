"""How much each input of a product carries: mean squares of the activations in an ONNX graph.

What quantisation weighs its errors with (:mod:`edgevoice.quant.blocks`). Runs the float model in
onnxruntime with an output more per product, which holds means and no activations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper


def mean_squares(
    model: onnx.ModelProto,
    feeds: Iterable[Mapping[str, NDArray[Any]]],
    work: Path,
    threads: int,
) -> dict[str, NDArray[np.float32]]:
    """Return, per matrix [in, out] of a ``MatMul``, the mean square of its inputs, [in].

    Args:
        model: The float model; it stays as it is. Activations are [batch, rows, in].
        feeds: Inputs for one run each; runs count alike.
        work: A folder for the watched copy, which the caller removes.
        threads: For onnxruntime.
    """
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    graph = watched.graph
    matrices = {t.name for t in graph.initializer if len(t.dims) == 2}
    readers: dict[str, list[str]] = {}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in matrices:
            readers.setdefault(node.input[0], []).append(node.input[1])
    rows = np.array([0, 1], np.int64)
    graph.initializer.append(numpy_helper.from_array(rows, "watched_axes"))
    names = [f"{value}.mean_square" for value in readers]
    for value, name in zip(readers, names, strict=True):
        graph.node.extend(
            [
                helper.make_node("Mul", [value, value], [f"{value}.square"]),
                helper.make_node(
                    "ReduceMean", [f"{value}.square", "watched_axes"], [name], keepdims=0
                ),
            ]
        )
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    path = work / "watched.onnx"
    onnx.save_model(watched, path, save_as_external_data=True, location="watched.data")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session: Any = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    sums: dict[str, NDArray[np.float32]] = {}
    runs = 0
    for feed in feeds:
        runs += 1
        for name, found in zip(names, session.run(names, dict(feed)), strict=True):
            sums[name] = sums[name] + found if name in sums else np.asarray(found, np.float32)
    return {
        matrix: (sums[f"{value}.mean_square"] / np.float32(max(runs, 1))).astype(np.float32)
        for value, read in readers.items()
        for matrix in read
        if f"{value}.mean_square" in sums
    }
