"""Silero VAD: exported, measured, and planted faults are caught."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from small_models import change, missed, quantised, reference, silence, swap, weights

from edgevoice.audio.wav import write_wav
from edgevoice.errors import ArtifactError, ExportError
from edgevoice.export import family as families
from edgevoice.export.checks import recordings, vad
from edgevoice.export.families.silero_vad import keep_16_khz
from edgevoice.export.family import Job

pytestmark = pytest.mark.usefixtures("few_runs")
SILERO = families.load("silero-vad")


@pytest.fixture(scope="module")
def silero(artifact: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reference(SILERO, artifact("silero-vad"), tmp_path_factory.mktemp("silero"))


def test_the_branch_for_16_khz_is_the_whole_model_bit_for_bit(silero: Path, tmp_path: Path) -> None:
    assert families.recognise(silero / "model.onnx") == (SILERO,)
    model = onnx.load(str(silero / "model.onnx"))
    assert keep_16_khz(model)
    assert not keep_16_khz(model)
    assert model.ByteSize() < 0.6 * (silero / "model.onnx").stat().st_size
    half = tmp_path / "half"
    half.mkdir()
    onnx.save(model, str(half / "model.onnx"))
    import onnxruntime

    sessions = [
        onnxruntime.InferenceSession(str(folder / "model.onnx")) for folder in (silero, half)
    ]
    drawn = np.random.default_rng(0)
    state = np.zeros((2, 1, 128), np.float32)
    for _ in range(5):
        window = drawn.standard_normal((1, 576)).astype(np.float32) * 0.1
        fed = {"input": window, "state": state, "sr": np.array(16_000, np.int64)}
        one, two = (session.run(None, fed) for session in sessions)
        assert all(map(np.array_equal, one, two))
        state = one[1]


def test_a_third_of_silero_judges_alike_and_int8_does_not_pay(
    silero: Path, material: Path, job: Job
) -> None:
    candidate = quantised(SILERO, silero, "fp16", job)
    figures = vad.measure(silero, candidate, material, 1)
    assert not missed(SILERO, figures)
    assert figures["agreement"] > 0.995
    assert figures["size_ratio"] < 0.32
    assert {"speed_ratio", "speed_ratio_low"} <= set(figures)
    in_bytes = quantised(SILERO, silero, "int8", job)
    assert missed(SILERO, vad.measure(silero, in_bytes, material, 1)) == {"agreement"}


@pytest.mark.parametrize(
    "fault",
    [
        lambda m: silence(next(t for t in weights(m) if "encoder.1" in t.name)),
        lambda m: swap(*(t for t in weights(m) if "decoder.rnn" in t.name)),
    ],
    ids=["scale of zero", "swapped tensors"],
)
def test_a_fault_in_the_vad_is_caught(
    fault: Callable[[onnx.ModelProto], None], silero: Path, material: Path, job: Job
) -> None:
    candidate = quantised(SILERO, silero, "fp16", job)
    change(candidate, fault, SILERO)
    assert missed(SILERO, vad.measure(silero, candidate, material, 1)) == {"agreement"}


def test_a_vad_is_not_judged_by_silence(silero: Path, tmp_path: Path) -> None:
    quiet = tmp_path / "quiet"
    quiet.mkdir()
    write_wav(quiet / "nothing.wav", np.zeros(16_000, np.int16), 16_000)
    with pytest.raises(ExportError, match=r"the reference calls 0% of the recordings speech"):
        vad.measure(silero, silero, quiet, 1)


def test_what_is_no_silero_is_refused(artifact: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no silero-vad graph: its inputs are input_features"):
        SILERO.inspect(artifact("smart-turn-v3.2"))
    with pytest.raises(ArtifactError, match=r"0 \.onnx files, one is needed"):
        SILERO.inspect(tmp_path)


def test_the_material_has_speech_pauses_and_noise(material: Path) -> None:
    track = recordings.track(material)
    assert np.array_equal(track, recordings.track(material))
    assert np.abs(track).max() <= 1.5
    assert (track == 0).mean() > 0.1
    plain = recordings.speech(material)[0].samples
    difference = recordings.noisy(plain, 1) - plain
    assert 10 * np.log10(np.mean(plain**2) / np.mean(difference**2)) == pytest.approx(10, abs=0.1)
