"""Smart Turn and the features that it is fed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from speech import librivox, noise, silence, spoken

from edgevoice.engines.log_mel import log_mel_of_tail
from edgevoice.engines.recogniser import load_end_of_turn
from edgevoice.engines.smart_turn import HEARD_SAMPLES, SmartTurn, load_smart_turn
from edgevoice.errors import ArtifactError, EngineError
from edgevoice.frames import Float32
from edgevoice.settings import EndOfTurnSettings
from edgevoice.stages import EndOfTurn


@pytest.fixture(scope="module")
def model(artifact: Callable[[str], Path]) -> SmartTurn:
    return load_smart_turn(artifact("smart-turn-v3.2"), EndOfTurnSettings())


def frame_by_frame(wave: Float32) -> Float32:
    """Whisper's features written the slow and plain way: every frame, matrices, a loop."""
    wave = ((wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)).astype(np.float64)
    padded = np.pad(wave, 200, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    angles = np.outer(np.arange(201), np.arange(400)) * (2 * np.pi / 400)
    basis = np.exp(-1j * angles)

    def mel(hz: float) -> float:
        return hz * 3 / 200 if hz < 1000 else 15 + 27 * np.log(hz / 1000) / np.log(6.4)

    def hz(mel: float) -> float:
        return mel * 200 / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)

    corners = [hz(m) for m in np.linspace(0, mel(8000), 82)]
    filters = np.zeros((80, 201))
    for band in range(80):
        low, peak, high = corners[band : band + 3]
        for k in range(201):
            rise, fall = (k * 40 - low) / (peak - low), (high - k * 40) / (high - peak)
            filters[band, k] = max(0.0, min(rise, fall)) * 2 / (high - low)
    frames = len(wave) // 160
    power = [np.abs(basis @ (padded[t * 160 : t * 160 + 400] * window)) ** 2 for t in range(frames)]
    log = np.log10(np.maximum(np.array(power) @ filters.T, 1e-10))
    return ((np.maximum(log, log.max() - 8) + 4) / 4).T.astype(np.float32)


@pytest.mark.parametrize("count", [0, 1, 150, 200, 201, 400, 7000, 15_999, 16_000, 20_000])
def test_features_equal_the_plain_form(count: int) -> None:
    samples = noise(2, 0.1)[:count]
    total = 16_000
    padded = np.concatenate([np.zeros(max(0, total - count), np.float32), samples])[-total:]
    np.testing.assert_allclose(log_mel_of_tail(samples, total), frame_by_frame(padded), atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, HEARD_SAMPLES + 500))
def test_padding_frames_that_are_not_computed_are_right(count: int) -> None:
    """A short utterance takes the short way; zeros given as audio take the long one."""
    samples = noise(8.1, 0.1)[:count]
    explicit = np.concatenate([silence(8), samples])[-HEARD_SAMPLES:]
    short = log_mel_of_tail(samples, HEARD_SAMPLES)
    assert short.shape == (80, 800)
    np.testing.assert_allclose(short, log_mel_of_tail(explicit, HEARD_SAMPLES), atol=1e-6)


# The figures of pipecat-ai 1.14.0's own LocalSmartTurnAnalyzerV3 on the same clips and weights.
@pytest.mark.bundle
@pytest.mark.parametrize(
    ("clip", "reference"),
    [(870, 0.9854), (880, 0.0992), (890, 0.9425), (920, 0.9849), (930, 0.2209)],
)
def test_it_says_what_the_reference_says(model: SmartTurn, clip: int, reference: float) -> None:
    assert model.probability(librivox(clip)) == pytest.approx(reference, abs=1e-3)


@pytest.mark.bundle
def test_a_turn_that_trails_off_sounds_less_finished_than_a_question(model: SmartTurn) -> None:
    def heard(text: str) -> float:
        return model.probability(np.concatenate([spoken(text), silence(0.2)]))

    question = heard("What is the capital of France?")
    assert question > 0.5 > heard("I would like to know if")
    assert question > 0.5 > heard("So I was thinking that")


@pytest.mark.bundle
def test_only_the_last_eight_seconds_count(model: SmartTurn) -> None:
    clip = np.concatenate([librivox(870), librivox(880)])
    assert model.probability(clip) == model.probability(clip[-HEARD_SAMPLES:])


@pytest.mark.bundle
@pytest.mark.parametrize(
    "samples", [silence(0), silence(1), np.full(16_000, np.nan, np.float32)], ids=str
)
def test_odd_audio_gives_a_probability(model: SmartTurn, samples: Float32) -> None:
    assert 0.0 <= model.probability(samples) <= 1.0


@pytest.mark.bundle
def test_stereo_is_refused(model: SmartTurn) -> None:
    with pytest.raises(EngineError, match="mono"):
        model.probability(np.zeros((100, 2), np.float32))


@pytest.mark.bundle
def test_it_keeps_the_protocol(artifact: Callable[[str], Path]) -> None:
    judge: EndOfTurn = load_end_of_turn(artifact("smart-turn-v3.2"), EndOfTurnSettings())
    assert 0.0 <= judge.probability(silence(1)) <= 1.0


@pytest.mark.bundle
def test_a_model_with_other_inputs_is_refused(
    artifact: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(artifact("silero-vad"), tmp_path / "smart-turn"))
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"family": "smart-turn"}))
    with pytest.raises(ArtifactError, match="is not Smart Turn v3: it takes"):
        load_smart_turn(folder, EndOfTurnSettings())


@pytest.mark.bundle
def test_a_damaged_model_is_refused(artifact: Callable[[str], Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(artifact("smart-turn-v3.2"), tmp_path / "smart-turn"))
    path = next(folder.glob("*.onnx"))
    content = path.read_bytes()
    path.write_bytes(content[:500] + bytes(len(content) - 500))
    with pytest.raises(ArtifactError, match="cannot be loaded"):
        load_smart_turn(folder, EndOfTurnSettings())


@pytest.mark.bundle
def test_another_familys_artifact_is_refused(artifact: Callable[[str], Path]) -> None:
    with pytest.raises(ArtifactError, match=r"'silero-vad' artifact; end_of_turn\.model"):
        load_smart_turn(artifact("silero-vad"), EndOfTurnSettings())
