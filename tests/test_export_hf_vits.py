"""The family `hf-vits`, with a stand-in for torch that traces a voice built by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import stand_in
from onnx import numpy_helper
from traced_vits import SAMPLES_PER_TOKEN

from edgevoice import manifest
from edgevoice.engines import speech
from edgevoice.errors import ArtifactError, ConfigError, EdgevoiceError, ExportError
from edgevoice.export import family as families
from edgevoice.export.candidates import artifact
from edgevoice.export.checks import sound
from edgevoice.export.family import Job, Written
from edgevoice.frames import Float32
from edgevoice.quant.recipe import by_type
from edgevoice.quant.scheme import find
from edgevoice.settings import SpeechSettings

STAND_IN = "traced_vits.py"
FAMILY = families.load("hf-vits")


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return stand_in.job(tmp_path, STAND_IN)


def checkpoint(folder: Path, trouble: str = "", **tokenizer: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "vits", "tests": trouble}))
    (folder / "vocab.json").write_text("{}")
    settings = {"phonemize": False, "is_uroman": False, "language": "eng"} | tokenizer
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    stand_in.write_weights(folder)
    return folder


def publish(folder: Path, engine: dict[str, object]) -> None:
    described = artifact(FAMILY, folder.name, folder.name, folder, Written(engine))
    manifest.write(described, folder)


def converted(job: Job, tmp_path: Path, trouble: str = "") -> Path:
    out = tmp_path / "fp32"
    out.mkdir()
    written = FAMILY.convert(checkpoint(tmp_path / "source", trouble), out, job)
    publish(out, dict(written.engine))
    return out


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    return converted(stand_in.job(folder, STAND_IN), folder)


def says(folder: Path, text: str, noise: float = 0.0, speed: float = 1.0) -> Float32:
    settings = SpeechSettings(threads=1, speed=speed)
    voice = speech.load_unguarded(folder, settings, noise)
    assert voice.sample_rate_hz == 16_000
    parts = list(voice.synthesise(text))
    voice.close()
    return np.concatenate([np.zeros(0, np.float32), *parts])


def tokens(made: Float32, per_token: int = SAMPLES_PER_TOKEN) -> float:
    return len(made) / per_token


def test_it_says_characters_and_nothing_else(
    reference: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lines = (reference / "tokens.txt").read_text(encoding="utf-8").splitlines()
    assert lines == ["k 0", "a 1", "b 2", "é 3", "4", "' 5"]
    # A blank before each character and behind the last; a sentence at a time.
    assert tokens(says(reference, "ab")) == 5
    assert tokens(says(reference, "Ab, BÉ!")) == 2 * 5 + 1
    assert tokens(says(reference, "Ab. A? 12")) == 5 + 3
    assert len(says(reference, "12.")) == 0
    assert "Skip unknown character" not in capfd.readouterr().err


def test_its_noise_and_speed_are_the_checkpoints(job: Job, tmp_path: Path) -> None:
    folder = converted(job, tmp_path, "slow")
    quiet, noisy = says(folder, "ab"), says(folder, "ab", noise=1.0)
    assert np.array_equal(quiet, says(folder, "ab"))
    # The checkpoint's 0.5 of a normal distribution, halved by the voice.
    assert np.std(noisy - quiet) == pytest.approx(0.25, rel=0.1)
    assert tokens(quiet, 2 * SAMPLES_PER_TOKEN) == 5
    assert tokens(says(folder, "ab", speed=2.0)) == 5


@pytest.mark.parametrize(
    ("scheme", "stored"), [("fp16", "float16"), ("int8", "int8"), ("int8-mixed", "int8")]
)
def test_every_scheme_sounds_alike(
    reference: Path, job: Job, tmp_path: Path, scheme: str, stored: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    written = FAMILY.quantise(reference, find(scheme), FAMILY.recipe(scheme), out, job)
    publish(out, dict(manifest.read(reference).engine))
    assert (out / "model.onnx").stat().st_size < 0.7 * (reference / "model.onnx").stat().st_size
    assert by_type(written.tensors)[stored] > 12_000
    kinds = {t.name.removesuffix("_half"): t.type for t in written.tensors}
    if scheme == "int8-mixed":
        assert kinds["model.duration_predictor.weight"] == "float16"
    assert distance_db(reference, out) < 2.0


def distance_db(folder: Path, out: Path) -> float:
    text = "ab bé kab'a bab " * 4
    mels = (sound.log_mel_db(says(f, text), 16_000) for f in (folder, out))
    return sound.distance_db(*mels)


@pytest.mark.parametrize("fault", ["zero", "swapped"])
def test_a_planted_fault_is_seen(reference: Path, job: Job, tmp_path: Path, fault: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    FAMILY.quantise(reference, find("int8"), FAMILY.recipe("int8"), out, job)
    model = onnx.load(out / "model.onnx")
    name = "model.decoder.conv_pre.weight" + ("_scale" if fault == "zero" else "")
    tensor = next(t for t in model.graph.initializer if t.name == name)
    values = numpy_helper.to_array(tensor)
    spoiled = np.zeros_like(values) if fault == "zero" else values[:, ::-1]
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(spoiled), name))
    onnx.save(model, out / "model.onnx")
    publish(out, dict(manifest.read(reference).engine))
    assert distance_db(reference, out) > 4.0


def test_the_same_source_gives_the_same_bytes(reference: Path, job: Job, tmp_path: Path) -> None:
    again = converted(job, tmp_path)
    for name in ("model.onnx", "tokens.txt"):
        assert (again / name).read_bytes() == (reference / name).read_bytes()


@pytest.mark.parametrize(
    ("trouble", "error", "said"),
    [
        ("nan", ArtifactError, r"weight '.*' has 1 of .* NaN"),
        ("wrong", ExportError, "of its spread away from torch's"),
        ("long", ExportError, r"says \d+ samples, torch \d+"),
        ("no letters", ArtifactError, "no token is a single letter"),
        ("capitals", ArtifactError, "tells capitals from small letters"),
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
    assert FAMILY.inspect(source).detail["language"] == "eng"
    with pytest.raises(ConfigError, match="unknown option 'pyton'"):
        FAMILY.convert(source, tmp_path, replace(job, options={"pyton": "x"}))
    for settings, said in (
        ({"phonemize": True}, "reads phonemes"),
        ({"is_uroman": True}, "made by uroman"),
    ):
        with pytest.raises(ArtifactError, match=said) as raised:
            FAMILY.inspect(checkpoint(tmp_path / said, **settings))
        assert "\n" not in str(raised.value)
    (source / "vocab.json").unlink()
    with pytest.raises(ArtifactError, match=r"has no vocab\.json"):
        FAMILY.inspect(source)
    assert not FAMILY.recognises(tmp_path)
