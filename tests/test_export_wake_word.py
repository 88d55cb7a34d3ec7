"""Wake words: three tiny graphs in openWakeWord's shapes, exported and measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_models import converted, missed, quantised, silence, weights

from edgevoice import manifest
from edgevoice.errors import ArtifactError
from edgevoice.export import family as families
from edgevoice.export.checks import wake_word
from edgevoice.export.families.wake_word import FILES
from edgevoice.export.family import Job

pytestmark = pytest.mark.usefixtures("few_runs")
WAKE_WORD = families.load("wake-word")


def graph_of(
    nodes: list[onnx.NodeProto], shapes: list[list[object]], constants: dict[str, np.ndarray]
) -> onnx.ModelProto:
    given, result = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in zip(("x", "y"), shapes, strict=True)
    )
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", [given], [result], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def wake_word_source(folder: Path) -> Path:
    folder.mkdir()
    drawn = np.random.default_rng(0)
    t = np.arange(512) / 16_000
    tones = np.stack([np.hanning(512) * np.cos(2 * np.pi * 90 * (n + 1) * t) for n in range(32)])
    node = helper.make_node
    mel = graph_of(
        [
            node("Unsqueeze", ["x", "one"], ["u"]),
            node("Conv", ["u", "tones"], ["c"], strides=[160], name="dft"),
            node("Abs", ["c"], ["a"]),
            node("Clip", ["a", "least", "open"], ["k"]),
            node("Log", ["k"], ["l"]),
            node("Transpose", ["l"], ["t"], perm=[0, 2, 1]),
            node("Unsqueeze", ["t", "one"], ["y"]),
        ],
        [["batch", "samples"], ["batch", 1, "frames", 32]],
        {
            "tones": tones[:, None].astype(np.float32),
            "one": np.array([1], np.int64),
            "least": np.array(1.0, np.float32),
            "open": np.array(np.inf, np.float32),
        },
    )
    embedding = graph_of(
        [
            node("Reshape", ["x", "flat"], ["f"]),
            node("MatMul", ["f", "w"], ["m"], name="embed"),
            node("Reshape", ["m", "out"], ["y"]),
        ],
        [["n", 76, 32, 1], ["n", 1, 1, 96]],
        {
            "w": (drawn.standard_normal((76 * 32, 96)) / 50).astype(np.float32),
            "flat": np.array([-1, 76 * 32], np.int64),
            "out": np.array([-1, 1, 1, 96], np.int64),
        },
    )
    head = graph_of(
        [
            node("Flatten", ["x"], ["f"]),
            node("MatMul", ["f", "w"], ["m"], name="score"),
            node("Sigmoid", ["m"], ["y"]),
        ],
        [[1, 16, 96], [1, 1]],
        {"w": (drawn.standard_normal((16 * 96, 1)) / 200).astype(np.float32)},
    )
    for name, model in zip(FILES, (mel, embedding, head), strict=True):
        onnx.save(model, str(folder / name))
    return folder


def test_a_wake_word_scores_alike_and_a_fault_does_not(
    tmp_path: Path, material: Path, job: Job
) -> None:
    source = wake_word_source(tmp_path / "source")
    assert families.recognise(source) == (WAKE_WORD,)
    reference = converted(WAKE_WORD, source, tmp_path / "reference", job)
    assert manifest.read(reference).engine == {"engine": "onnxruntime", "embeddings": 16}
    candidate = quantised(WAKE_WORD, reference, "fp16", job)
    figures = wake_word.measure(reference, candidate, material, 1)
    assert not missed(WAKE_WORD, figures)
    assert figures["size_ratio"] < 0.6
    path = candidate / FILES[1]
    model = onnx.load(str(path))
    silence(weights(model)[0])
    onnx.save(model, str(path))
    broken = missed(WAKE_WORD, wake_word.measure(reference, candidate, material, 1))
    assert "embedding_cosine" in broken


def test_a_missing_graph_is_named(tmp_path: Path) -> None:
    source = wake_word_source(tmp_path / "source")
    (source / FILES[0]).unlink()
    with pytest.raises(ArtifactError, match=f"lacks {FILES[0]}"):
        WAKE_WORD.inspect(source)
