"""What a traced language model's graph is given before and after its attention is rewritten.

onnxruntime's own optimiser folds constants and fuses norms and activations, once, here and not at
every start on the device. Then the weights get their names back (the tracer numbers them), and a
matrix that is both embedding and logits lies in the file once.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

from edgevoice.errors import ArtifactError

MOST_INSIDE_BYTES = 1 << 30  # above this, weights lie in a file beside the graph
DATA_SUFFIX = ".data"


def optimised(path: Path, work: Path, threads: int, level: str = "EXTENDED") -> onnx.ModelProto:
    """Return the model at ``path`` after onnxruntime's own optimisation.

    Args:
        path: The traced graph.
        work: A folder for the optimiser's output.
        threads: For its constant folding.
        level: ``EXTENDED``, or ``BASIC`` where the operators shall stay ONNX's own.

    Raises:
        ArtifactError: onnxruntime cannot load it.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    target = work / "optimised.onnx"
    options.optimized_model_filepath = str(target)
    # A packed weight could not be written out again; a message holds 2 GiB at most.
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.add_session_config_entry(
        "session.optimized_model_external_initializers_file_name", f"{target.name}{DATA_SUFFIX}"
    )
    options.add_session_config_entry(
        "session.optimized_model_external_initializers_min_size_in_bytes", "1024"
    )
    try:
        ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes derive from Exception alone
        reason = str(error).replace("\n", " ")[:200]
        raise ArtifactError(f"{path} cannot be loaded by onnxruntime: {reason}") from error
    model = onnx.load(target)
    # onnxruntime lists every domain that it knows.
    used = {node.domain for node in model.graph.node} | {""}
    kept = [opset for opset in model.opset_import if opset.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    return model


def name_weights(model: onnx.ModelProto) -> None:
    """Name each product's weight for the module that it stands in.

    The tracer calls it ``onnx::MatMul_8802``; its node is ``/model/layers.1/mlp/up_proj/MatMul``,
    so it becomes ``model.layers.1.mlp.up_proj.weight``.
    """
    graph = model.graph
    numbered = {t.name: t for t in graph.initializer if t.name.startswith("onnx::")}
    taken = {t.name for t in graph.initializer}
    names: dict[str, str] = {}
    for node in graph.node:
        if node.op_type != "MatMul" or node.input[1] not in numbered:
            continue
        parts = node.name.strip("/").split("/")[:-1]
        name = ".".join([*parts, "weight"])
        if node.input[1] not in names and name not in taken:
            names[node.input[1]] = name
            taken.add(name)
    for old, new in names.items():
        numbered[old].name = new
    for node in graph.node:
        for place, value in enumerate(node.input):
            if value in names:
                node.input[place] = names[value]


def tie(model: onnx.ModelProto) -> str:
    """Keep the logits' matrix once where it is the embedding turned; return its name or ""."""
    graph = model.graph
    matrices = {t.name: t for t in graph.initializer if len(t.dims) == 2}
    tables = [n.input[0] for n in graph.node if n.op_type == "Gather" and n.input[0] in matrices]
    if len(set(tables)) != 1:
        return ""
    table = matrices[tables[0]]
    for node in graph.node:
        twin = matrices.get(node.input[1]) if node.op_type == "MatMul" else None
        if twin is None or list(twin.dims) != list(table.dims)[::-1]:
            continue
        if np.array_equal(numpy_helper.to_array(twin).T, numpy_helper.to_array(table)):
            turned = f"{table.name}_turned"
            node.input[1] = turned
            graph.initializer.remove(twin)
            graph.node.insert(
                0, helper.make_node("Transpose", [table.name], [turned], turned, perm=[1, 0])
            )
            return str(table.name)
    return ""


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write ``model``; equal models give equal bytes. Large weights lie in ``path`` + `.data`."""
    stored = sum(len(t.raw_data) for t in model.graph.initializer)
    if stored < MOST_INSIDE_BYTES:
        path.write_bytes(model.SerializeToString(deterministic=True))
        return
    onnx.save_model(
        model,
        path,
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=f"{path.name}{DATA_SUFFIX}",
        size_threshold=1024,
    )
