"""Silero VAD on its real weights."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from speech import hum, librivox, noise, silence, spoken

from edgevoice.engines.edges import Edge, Paused, SpeechEdges, Started
from edgevoice.engines.silero_vad import ONSET_LAG_MS, SileroVadModel, load_vad
from edgevoice.errors import ArtifactError, EngineError
from edgevoice.frames import Float32
from edgevoice.settings import VadSettings
from edgevoice.stages import Vad

pytestmark = pytest.mark.bundle

QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def model(artifact: Callable[[str], Path]) -> SileroVadModel:
    return load_vad(artifact("silero-vad"), VadSettings())


def edges(model: SileroVadModel, samples: Float32) -> Iterator[Edge]:
    return model.open_edges().feed(model.open().accept(samples))


def test_it_finds_where_a_sentence_begins_and_ends(model: SileroVadModel) -> None:
    before, after = silence(1.0), silence(1.0)
    found = list(edges(model, np.concatenate([before, librivox(880), after])))
    starts = [e.onset_ms for e in found if isinstance(e, Started)]
    ends = [e.end_ms for e in found if isinstance(e, Paused)]
    # The clip is 2990 ms long and has some 200 ms of silence at either end.
    assert 1000 <= starts[0] <= 1400
    assert 3500 <= ends[-1] <= 3990


@pytest.mark.parametrize("sound", [silence(3), noise(3, 0.05), hum(3)], ids=["nil", "noise", "hum"])
def test_no_speech_has_no_edges(model: SileroVadModel, sound: Float32) -> None:
    assert list(edges(model, sound)) == []


def test_how_the_samples_are_cut_makes_no_difference(model: SileroVadModel) -> None:
    samples = spoken(QUESTION)
    whole = list(model.open().accept(samples))
    vad = model.open()
    pieces = [d for i in range(0, len(samples), 160) for d in vad.accept(samples[i : i + 160])]
    assert pieces == whole
    assert len(whole) == len(samples) // vad.window_samples
    assert any(whole)


def test_two_conversations_do_not_share_state(model: SileroVadModel) -> None:
    one, other = model.open(), model.open()
    one.accept(spoken(QUESTION))
    assert not any(other.accept(silence(1)))


def test_reset_forgets(model: SileroVadModel) -> None:
    vad = model.open()
    first = list(vad.accept(spoken(QUESTION)[:20_000]))
    vad.reset()
    assert list(vad.accept(spoken(QUESTION)[:20_000])) == first


def test_the_first_positive_window_comes_one_late(model: SileroVadModel) -> None:
    """The lag that the edges take off is there: sherpa-onnx against the bare model."""
    import onnxruntime

    samples = np.concatenate([silence(0.5), spoken(QUESTION)])
    session = onnxruntime.InferenceSession(model._path)
    state = np.zeros((2, 1, 128), np.float32)
    padded = np.concatenate([silence(64 / 16_000), samples])
    for window in range(len(samples) // 512):
        chunk = padded[window * 512 : window * 512 + 576]
        out, state = session.run(
            None, {"input": chunk[None], "state": state, "sr": np.array(16_000)}
        )
        if out[0, 0] > 0.5:
            break
    assert list(model.open().accept(samples)).index(True) == window + ONSET_LAG_MS / 32


def test_nan_and_empty_audio_do_no_harm(model: SileroVadModel) -> None:
    vad = model.open()
    assert list(vad.accept(np.zeros(0, np.float32))) == []
    assert not any(vad.accept(np.full(5120, np.nan, np.float32)))
    assert any(vad.accept(spoken(QUESTION)))


def test_stereo_is_refused(model: SileroVadModel) -> None:
    with pytest.raises(EngineError, match=r"mono.*\(512, 2\)"):
        model.open().accept(np.zeros((512, 2), np.float32))


def test_it_keeps_the_protocol(model: SileroVadModel) -> None:
    vad: Vad = model.open()
    detector: SpeechEdges = model.open_edges()
    assert vad.window_samples == 512
    assert detector.heard_ms == 0


@pytest.fixture
def copied(artifact: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(artifact("silero-vad"), tmp_path / "silero-vad"))


def test_a_missing_file_is_named(copied: Path) -> None:
    (copied / "silero_vad.onnx").unlink()
    with pytest.raises(ArtifactError, match=r"silero_vad\.onnx is missing.*models pull"):
        load_vad(copied, VadSettings())


def test_a_truncated_file_is_named(copied: Path) -> None:
    path = copied / "silero_vad.onnx"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ArtifactError, match="has 1000 bytes, 2327524 are expected"):
        load_vad(copied, VadSettings())


def test_another_format_is_named(copied: Path) -> None:
    path = copied / "silero_vad.onnx"
    path.write_bytes(b"GGUF" + path.read_bytes()[4:])
    with pytest.raises(ArtifactError, match="is not an ONNX model: it begins with b'GGUF"):
        load_vad(copied, VadSettings())


def test_damage_inside_the_file_does_not_end_the_process(copied: Path) -> None:
    path = copied / "silero_vad.onnx"
    content = bytearray(path.read_bytes())
    content[100:400_000] = bytes(len(content[100:400_000]))
    path.write_bytes(content)
    with pytest.raises(ArtifactError):
        load_vad(copied, VadSettings())


def test_another_familys_artifact_is_refused(artifact: Callable[[str], Path]) -> None:
    with pytest.raises(ArtifactError, match=r"'smart-turn' artifact; vad\.model needs"):
        load_vad(artifact("smart-turn-v3.2"), VadSettings())
