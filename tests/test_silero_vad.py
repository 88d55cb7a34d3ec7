"""Silero VAD on its real weights."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import sherpa_onnx
from onnx import TensorProto, helper
from speech import hum, librivox, noise, silence, spoken

from edgevoice import manifest
from edgevoice.engines.edges import Edge, Paused, SpeechEdges, Started
from edgevoice.engines.silero_vad import SileroVadModel, load_vad
from edgevoice.errors import ArtifactError, EngineError
from edgevoice.frames import Float32
from edgevoice.manifest import Manifest
from edgevoice.settings import VadSettings
from edgevoice.stages import Vad
from edgevoice.store import describe

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
    assert max(whole) > 0.9


def test_two_conversations_do_not_share_state(model: SileroVadModel) -> None:
    one, other = model.open(), model.open()
    one.accept(spoken(QUESTION))
    assert max(other.accept(silence(1))) < 0.5


def test_reset_forgets(model: SileroVadModel) -> None:
    vad = model.open()
    first = list(vad.accept(spoken(QUESTION)[:20_000]))
    vad.reset()
    assert list(vad.accept(spoken(QUESTION)[:20_000])) == first


def test_it_says_what_sherpa_onnx_hears_from_the_same_weights(
    model: SileroVadModel, artifact: Callable[[str], Path]
) -> None:
    """sherpa-onnx says yes one window late, and goes on down to 0.15 below the threshold."""
    samples = np.concatenate([silence(0.5), spoken(QUESTION), silence(0.5)])
    config = sherpa_onnx.VadModelConfig(
        silero_vad=sherpa_onnx.SileroVadModelConfig(
            model=str(artifact("silero-vad") / "silero_vad.onnx"),
            min_silence_duration=0.0,
            min_speech_duration=0.0,
            window_size=512,
        )
    )
    other = sherpa_onnx.VadModel.create(config)
    context = other.window_size() - 512
    padded = np.concatenate([silence(context / 16_000), samples])
    starts = range(0, len(padded) - 512 - context + 1, 512)
    heard = [other.is_speech(padded[i : i + 512 + context].tolist()) for i in starts]
    probabilities = np.array(model.open().accept(samples))
    assert len(probabilities) == len(heard)
    assert (probabilities[heard] > 0.35).all()
    late = np.flatnonzero(probabilities > 0.5)[0] + 1
    assert heard.index(True) == late


@pytest.fixture(scope="module")
def version_4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph with version 4's inputs: louder than 0.1 is speech, h and c count the windows."""
    folder = tmp_path_factory.mktemp("silero-4")
    state = helper.make_tensor_value_info("h", TensorProto.FLOAT, [2, 1, 64])
    kept = helper.make_tensor_value_info("hn", TensorProto.FLOAT, [2, 1, 64])
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMax", ["input"], ["loudest"], axes=[1], keepdims=1),
            helper.make_node("Greater", ["loudest", "bound"], ["is"]),
            helper.make_node("Cast", ["is"], ["output"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["h", "one"], ["hn"]),
            helper.make_node("Add", ["c", "one"], ["cn"]),
        ],
        "version-4",
        [
            helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 512]),
            helper.make_tensor_value_info("sr", TensorProto.INT64, []),
            state,
            helper.make_tensor_value_info("c", TensorProto.FLOAT, [2, 1, 64]),
        ],
        [
            helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 1]),
            kept,
            helper.make_tensor_value_info("cn", TensorProto.FLOAT, [2, 1, 64]),
        ],
        [
            helper.make_tensor("bound", TensorProto.FLOAT, [1], [0.1]),
            helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0]),
        ],
    )
    version = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=8)
    onnx.save(version, folder / "silero_vad.onnx")
    facts = ("other", "vad", "silero-vad", "onnx", "fp32", "MIT", "", describe(folder))
    manifest.write(Manifest(*facts), folder)
    return folder


def test_version_4_hears_windows_without_context(version_4: Path) -> None:
    vad = load_vad(version_4, VadSettings()).open()
    quiet, loud = silence(512 / 16_000), np.full(512, 0.2, np.float32)
    assert list(vad.accept(np.concatenate([quiet, loud, quiet]))) == [0.0, 1.0, 0.0]


def test_nan_and_empty_audio_do_no_harm(model: SileroVadModel) -> None:
    vad = model.open()
    assert list(vad.accept(np.zeros(0, np.float32))) == []
    assert max(vad.accept(np.full(5120, np.nan, np.float32))) < 0.5
    assert max(vad.accept(spoken(QUESTION))) > 0.9


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


def test_a_graph_of_no_known_version_is_refused(version_4: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(version_4, tmp_path / "vad"))
    graph = onnx.load(folder / "silero_vad.onnx")
    graph.graph.input[0].name = "x"
    graph.graph.node[0].input[0] = "x"
    onnx.save(graph, folder / "silero_vad.onnx")
    facts = ("other", "vad", "silero-vad", "onnx", "fp32", "MIT", "", describe(folder))
    manifest.write(Manifest(*facts), folder)
    with pytest.raises(ArtifactError, match=r"not Silero VAD of version 4, 5 or 6.*c, h, sr, x"):
        load_vad(folder, VadSettings())
