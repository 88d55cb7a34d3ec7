"""Speaker embeddings: a tiny WeSpeaker graph that sherpa-onnx loads, exported and measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_models import change, converted, missed, quantised, silence, weights

from edgevoice import manifest
from edgevoice.errors import ArtifactError
from edgevoice.export import family as families
from edgevoice.export.checks import speaker
from edgevoice.export.family import Job

pytestmark = pytest.mark.usefixtures("few_runs")
SPEAKER = families.load("speaker-embedding")
WESPEAKER = {
    "framework": "wespeaker",
    "language": "English",
    "output_dim": "192",
    "sample_rate": "16000",
    "normalize_samples": "1",
}


def speaker_graph(metadata: dict[str, str]) -> onnx.ModelProto:
    drawn = np.random.default_rng(0)
    constants = {
        "first": drawn.standard_normal((80, 192)).astype(np.float32) / 9,
        "second": drawn.standard_normal((192, 192)).astype(np.float32) / 14,
    }
    nodes = [
        helper.make_node("MatMul", ["feats", "first"], ["h"], name="/layer1/MatMul"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("ReduceMean", ["r"], ["pooled"], axes=[1], keepdims=0, name="pool"),
        helper.make_node("MatMul", ["pooled", "second"], ["embs"], name="/layer2/MatMul"),
    ]
    graph = helper.make_graph(
        nodes,
        "speaker",
        [helper.make_tensor_value_info("feats", TensorProto.FLOAT, ["N", "T", 80])],
        [helper.make_tensor_value_info("embs", TensorProto.FLOAT, ["N", 192])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    helper.set_model_props(model, metadata)
    return model


def test_a_speaker_embedding_in_int8_stays_close_and_a_fault_does_not(
    tmp_path: Path, material: Path, job: Job
) -> None:
    source = tmp_path / "campplus.onnx"
    onnx.save(speaker_graph(WESPEAKER), str(source))
    assert families.recognise(source) == (SPEAKER,)
    reference = converted(SPEAKER, source, tmp_path / "reference", job)
    assert manifest.read(reference).engine == {"engine": "sherpa-onnx", "dimensions": 192}
    candidate = quantised(SPEAKER, reference, "int8", job)
    figures = speaker.measure(reference, candidate, material, 1)
    assert not missed(SPEAKER, figures)
    assert 0.98 < figures["cosine"] < 1.0
    assert figures["size_ratio"] < 0.5
    change(candidate, lambda m: silence(weights(m)[0]), SPEAKER)
    assert missed(SPEAKER, speaker.measure(reference, candidate, material, 1)) == {"cosine"}


def test_an_embedding_without_sherpas_metadata_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "speaker.onnx"
    for metadata, message in (
        ({}, "framework '' in its metadata; sherpa-onnx knows wespeaker, 3d-speaker, nemo"),
        ({"framework": "wespeaker", "output_dim": "9"}, "lacks sample_rate, normalize_samples, la"),
    ):
        onnx.save(speaker_graph(metadata), str(source))
        with pytest.raises(ArtifactError, match=message):
            SPEAKER.inspect(source)
