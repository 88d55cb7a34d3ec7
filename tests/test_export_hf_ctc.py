"""The family `hf-ctc`, with a stand-in for optimum that traces a model built by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import stand_in
from onnx import numpy_helper
from traced_ctc import tones

from edgevoice.engines.recogniser import load_recogniser
from edgevoice.errors import ArtifactError, ConfigError, EdgevoiceError, ExportError
from edgevoice.export import family as families
from edgevoice.export.checks import weights
from edgevoice.export.families import pack_search
from edgevoice.export.family import Job
from edgevoice.quant.recipe import by_type
from edgevoice.quant.scheme import find
from edgevoice.settings import RecogniserSettings

STAND_IN = "traced_ctc.py"
FAMILY = families.load("hf-ctc")
SAID = "AB|CA..B|A"


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return stand_in.job(tmp_path, STAND_IN)


def checkpoint(folder: Path, trouble: str = "", kind: str = "wav2vec2") -> Path:
    folder.mkdir(parents=True)
    config = {"model_type": kind, "architectures": ["Wav2Vec2ForCTC"], "tests": trouble}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.json").write_text(json.dumps({"<pad>": 0, "|": 4, "A": 5}))
    (folder / "preprocessor_config.json").write_text(json.dumps({"sampling_rate": 16_000}))
    stand_in.write_weights(folder)
    return folder


def converted(job: Job, tmp_path: Path, trouble: str = "") -> Path:
    out = tmp_path / "fp32"
    out.mkdir()
    written = FAMILY.convert(checkpoint(tmp_path / "source", trouble), out, job)
    assert written.notes[1] == "3 tokens that are no text count as blank"
    pack_search.describe(out, FAMILY.artifact_family, written.engine)
    return out


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    return converted(stand_in.job(folder, STAND_IN), folder)


def hears(folder: Path, text: str = SAID) -> str:
    model = load_recogniser(folder, RecogniserSettings(threads=1))
    recogniser = model.open()
    recogniser.accept(tones(text))
    heard = recogniser.conclude().text
    model.close()
    return heard


def test_the_artifact_writes_words_and_no_special_tokens(reference: Path) -> None:
    lines = (reference / "tokens.txt").read_text().splitlines()
    assert lines[0] == "<blk> 0"
    assert lines[4:] == ["4", "A 5", "B 6", "C 7"]
    # Quiet sound: the level that sherpa-onnx leaves is not what the model was trained on.
    assert hears(reference) == "AB CAB A"
    names = {t.name for t in onnx.load(reference / "model.onnx").graph.initializer}
    assert {"layers.0.fc.weight", "lm_head.weight", "front.conv.weight"} <= names


def test_sound_that_is_too_short_for_a_frame_is_lengthened(reference: Path) -> None:
    session = ort.InferenceSession(reference / "model.onnx")
    for samples, frames in ((10, 4), (1600, 4), (4000, 12)):
        scores = session.run(None, {"samples": np.ones((1, samples), np.float32)})[0]
        assert scores.shape == (1, frames, 8)
        assert np.isfinite(scores).all()


@pytest.mark.parametrize(
    ("scheme", "stored"),
    [
        ("fp16", "float16"),
        ("int8", "int8"),
        ("int8-weights", "int8"),
        ("int4", "int4"),
        ("int4-asymmetric", "int4"),
    ],
)
def test_every_scheme_hears_the_same(
    reference: Path, job: Job, tmp_path: Path, scheme: str, stored: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    written = FAMILY.quantise(reference, find(scheme), FAMILY.recipe(scheme), out, job)
    pack_search.describe(out, FAMILY.artifact_family, written.engine)
    assert (out / "model.onnx").stat().st_size < (reference / "model.onnx").stat().st_size
    assert by_type(written.tensors)[stored] > 4_000
    assert hears(out) == "AB CAB A"
    assert weights.compare(reference, out)["weight_excess"] < 3.0


@pytest.mark.parametrize("fault", ["zero", "swapped"])
def test_a_planted_fault_is_seen(reference: Path, job: Job, tmp_path: Path, fault: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    written = FAMILY.quantise(reference, find("int8"), FAMILY.recipe("int8"), out, job)
    model = onnx.load(out / "model.onnx")
    name = "lm_head.weight_scale" if fault == "zero" else "layers.0.fc.weight"
    tensor = next(t for t in model.graph.initializer if t.name.startswith(name))
    values = numpy_helper.to_array(tensor)
    spoiled = np.zeros_like(values) if fault == "zero" else values[:, ::-1]
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(spoiled), tensor.name))
    onnx.save(model, out / "model.onnx")
    pack_search.describe(out, FAMILY.artifact_family, written.engine)
    assert weights.compare(reference, out)["weight_excess"] > 3.0
    assert hears(out) != "AB CAB A"


def test_the_same_source_gives_the_same_bytes(reference: Path, job: Job, tmp_path: Path) -> None:
    again = converted(job, tmp_path)
    for name in ("model.onnx", "tokens.txt"):
        assert (again / name).read_bytes() == (reference / name).read_bytes()


def test_a_tokenizer_of_small_letters_writes_them(job: Job, tmp_path: Path) -> None:
    assert hears(converted(job, tmp_path, "small letters")) == "ab cab a"


@pytest.mark.parametrize(
    ("trouble", "error", "said"),
    [
        ("nan", ArtifactError, r"weight '.*' has 1 of .* NaN"),
        ("wrong", ExportError, "spread away from torch: it computes something else"),
        ("loud", ExportError, "trained on sound as loud as it came"),
        ("no blank", ArtifactError, "names no padding token"),
        ("white space", ArtifactError, "token 7, 'a b', has white space"),
        ("few tokens", ExportError, "gives 8 scores for 7 tokens"),
    ],
)
def test_trouble_is_one_line(
    job: Job, tmp_path: Path, trouble: str, error: type[EdgevoiceError], said: str
) -> None:
    with pytest.raises(error, match=said) as raised:
        converted(job, tmp_path, trouble)
    assert "\n" not in str(raised.value)


def test_what_a_source_says_of_itself(job: Job, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source")
    assert families.recognise(source) == (FAMILY,)
    assert FAMILY.inspect(source).detail["tokens"] == 3
    with pytest.raises(ConfigError, match="unknown option 'pyton'"):
        FAMILY.convert(source, tmp_path, replace(job, options={"pyton": "x"}))
    for name, text, said in (
        ("tokenizer_config.json", '{"tokenizer_class": "Wav2Vec2PhonemeCTCTokenizer"}', "phonemes"),
        ("vocab.json", '{"eng": {"a": 1}, "deu": {"a": 1}}', "vocabulary for each language"),
        ("vocab.json", "[", "cannot be read as JSON"),
        ("preprocessor_config.json", '{"sampling_rate": 8000}', "sampling_rate is 8000"),
        ("config.json", '{"model_type": "hubert", "architectures": ["HubertModel"]}', "no text"),
        ("config.json", '{"model_type": "mctct"}', "unknown architecture 'mctct'"),
    ):
        before = (source / name).read_text() if (source / name).is_file() else None
        (source / name).write_text(text)
        with pytest.raises(ArtifactError, match=said) as raised:
            FAMILY.inspect(source)
        assert "\n" not in str(raised.value)
        (source / name).write_text(before if before is not None else "{}")
    assert not FAMILY.recognises(tmp_path)
