"""Whisper straight on onnxruntime: with a draft, without one, and with a wrong one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from speech import librivox, silence, spoken, word_errors

from edgevoice import manifest as manifests
from edgevoice.engines import whisper_drafted
from edgevoice.engines.providers import Ran
from edgevoice.engines.recogniser import load_recogniser, load_unguarded
from edgevoice.engines.segmented_recogniser import OfflineRecogniserModel
from edgevoice.engines.sherpa_offline_packs import SherpaDecoder
from edgevoice.engines.whisper_drafted import DraftedWhisper
from edgevoice.engines.whisper_greedy import GreedyWhisper, most_tokens
from edgevoice.errors import ArtifactError
from edgevoice.settings import RecogniserSettings
from edgevoice.store import describe

SETTINGS = RecogniserSettings(threads=1)
QUESTION = "What is the capital of France?"

pytestmark = pytest.mark.bundle


@pytest.fixture(scope="module")
def folder(artifact: Callable[[str], Path]) -> Path:
    return artifact("whisper-tiny.en-int8")


@pytest.fixture(scope="module")
def whisper(folder: Path) -> DraftedWhisper:
    model: Any = load_recogniser(folder, SETTINGS)
    assert isinstance(model.decoder, DraftedWhisper)
    return model.decoder


class Stepped:
    """The decoder's session with its steps counted."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.steps: list[int] = []

    def run(self, names: None, feed: dict[str, Any]) -> list[Any]:
        self.steps.append(feed["tokens"].shape[1])
        outputs: list[Any] = self._session.run(names, feed)
        return outputs


@pytest.fixture
def stepped(whisper: DraftedWhisper, monkeypatch: pytest.MonkeyPatch) -> Stepped:
    counted = Stepped(whisper._decoder._session)
    monkeypatch.setattr(whisper._decoder, "_session", counted)
    return counted


@pytest.mark.parametrize(("heard", "steps"), [(0.8, 0.5), (0.6, 0.7), (0.5, 0.8)])
def test_a_draft_of_the_beginning_saves_its_steps(
    whisper: DraftedWhisper, stepped: Stepped, heard: float, steps: float
) -> None:
    """Of the first half it hears "Mr. John", of the whole "And Mr. John"."""
    clip = librivox(870)
    alone = whisper.decode(clip)
    each, stepped.steps = len(stepped.steps), []
    assert each == len(alone.tokens) + 1
    draft = whisper.decode(clip[: int(heard * len(clip))]).tokens
    stepped.steps = []
    assert whisper.decode(clip, draft) == alone
    assert stepped.steps[0] == 2 + len(draft)
    assert len(stepped.steps) < steps * each


def test_its_own_text_is_confirmed_in_one_step(whisper: DraftedWhisper, stepped: Stepped) -> None:
    sound = spoken(QUESTION)
    alone = whisper.decode(sound)
    assert word_errors(QUESTION, alone.text) == 0
    stepped.steps = []
    assert whisper.decode(sound, alone.tokens) == alone
    assert stepped.steps == [2 + len(alone.tokens)]


@pytest.mark.parametrize("clip", [870, 880, 890, 920, 930])
def test_a_wrong_draft_changes_nothing(whisper: DraftedWhisper, clip: int) -> None:
    sound = librivox(clip)
    alone = whisper.decode(sound)
    other = whisper.decode(spoken(QUESTION)).tokens
    # Activations are rounded with one scale for a step: a mark may come out differently.
    for draft in (other, (*alone.tokens, *other), alone.tokens[1:], alone.tokens[::-1]):
        assert word_errors(alone.text, whisper.decode(sound, draft).text) == 0


def test_it_writes_what_sherpa_writes(folder: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(folder, tmp_path / "whisper"))
    about = json.loads((copied / "manifest.json").read_text())
    del about["engine"]["quiet_frames"]
    (copied / "manifest.json").write_text(json.dumps(about))
    theirs: Any = load_unguarded(copied, SETTINGS)
    assert isinstance(theirs.decoder, SherpaDecoder)
    ours: Any = load_unguarded(folder, SETTINGS)
    for clip in (870, 880, 890, 920, 930):
        sound = librivox(clip)
        assert ours.decoder.decode(sound).text == theirs.decoder.decode(sound).text


def test_over_the_agents_voice_it_is_told_that_such_words_came_before(
    whisper: DraftedWhisper, stepped: Stepped
) -> None:
    sound = spoken("yeah.", voice="awb")
    heard = whisper.decode(sound, expected="interjection")
    prompt = whisper._decoder._prompts["interjection"]
    assert stepped.steps[:2] == [len(prompt), 2]
    assert heard.text.strip(".").lower() == "yeah"
    pieces = whisper._decoder._pieces
    said = b"".join(pieces[token] for token in prompt[1:]).decode()
    assert said.startswith(" Oh. Hmm. Mm-hmm.") and said.endswith(" Sure.")
    assert prompt[0] == 50360  # <|startofprev|> of the English vocabulary
    assert [pieces[token] for token in prompt[1:4]] == [b" Oh", b".", b" Hmm"]


def test_a_wish_over_the_agents_voice_is_heard_as_it_is(whisper: DraftedWhisper) -> None:
    for wish in ("Stop, please.", "Wait a moment.", QUESTION):
        heard = whisper.decode(spoken(wish), expected="interjection")
        assert word_errors(wish, heard.text) <= 1
        assert heard.text != whisper.decode(silence(1.0), expected="interjection").text


def test_what_was_heard_over_the_agent_is_heard_anew_when_it_is_a_turn(folder: Path) -> None:
    model: Any = load_recogniser(folder, SETTINGS)
    recogniser = model.open()
    counted = Stepped(model.decoder._decoder._session)
    model.decoder._decoder._session = counted
    recogniser.accept(spoken(QUESTION))
    recogniser.glance()
    first = len(counted.steps)
    recogniser.conclude("interjection")
    assert len(counted.steps) == first, "only the same sound, and the same expected"
    assert word_errors(QUESTION, recogniser.conclude().text) == 0
    turns = len(counted.steps)
    assert turns > first
    recogniser.conclude()
    assert len(counted.steps) == turns


def test_other_providers_are_sherpas(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        "edgevoice.engines.sherpa_offline_packs.load_offline", lambda *args: asked.append(args[3])
    )
    load_unguarded(folder, SETTINGS, Ran("cuda"))
    assert [ran.name for ran in asked] == ["cuda"]


def test_a_breath_and_silence_have_no_words(whisper: DraftedWhisper) -> None:
    assert len(whisper.decode(silence(0.001)).tokens) <= most_tokens(0.001)
    assert len(whisper.decode(np.full(16, 0.1, np.float32)).tokens) <= most_tokens(0.001)


def test_logits_of_the_last_token_alone_leave_no_use_for_a_draft(
    folder: Path, tmp_path: Path
) -> None:
    """As artifacts of earlier versions have them, which the NPU's decoder still reads."""
    copied = Path(shutil.copytree(folder, tmp_path / "whisper"))
    path = next(copied.glob("decoder*.onnx"))
    graph = onnx.load(str(path)).graph
    path.write_bytes(_last_only(onnx.load(str(path))).SerializeToString())
    assert graph.output[0].name == "logits"
    about = json.loads((copied / "manifest.json").read_text())
    about["files"] = [
        {"path": f.path, "size": f.size, "sha256": f.sha256} for f in describe(copied)
    ]
    (copied / "manifest.json").write_text(json.dumps(about))
    model: Any = load_unguarded(copied, SETTINGS)
    counted = Stepped(model.decoder._decoder._session)
    model.decoder._decoder._session = counted
    sound = spoken(QUESTION)
    alone = model.decoder.decode(sound)
    assert word_errors(QUESTION, alone.text) == 0
    counted.steps = []
    assert model.decoder.decode(sound, alone.tokens) == alone
    assert len(counted.steps) == len(alone.tokens) + 1
    with pytest.raises(ArtifactError, match="cannot say how sure it is of its words; pull or exp"):
        model.decoder.log_probability(sound, alone.tokens)


class Listened:
    """The decoder's session, whose logits are kept."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.logits: list[Any] = []

    def run(self, names: None, feed: dict[str, Any]) -> list[Any]:
        outputs: list[Any] = self._session.run(names, feed)
        self.logits.append(outputs[0][0])
        return outputs


def test_the_log_probability_is_that_of_the_steps_that_were_taken(
    whisper: DraftedWhisper, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = Listened(whisper._decoder._session)
    monkeypatch.setattr(whisper._decoder, "_session", heard)
    sound = librivox(870)
    tokens = whisper.decode(sound).tokens
    # The most likely token was taken each time, the end at last: a step has one row that counts.
    rows = np.stack([logits[-1] for logits in heard.logits]).astype(np.float64)
    assert rows.argmax(axis=1).tolist()[:-1] == list(tokens)
    taken = rows.max(axis=1) - np.logaddexp.reduce(rows, axis=1)
    found = whisper.log_probability(sound, tokens)
    assert found == pytest.approx(taken.mean(), abs=0.03)
    assert len(heard.logits) == len(tokens) + 2
    # Words of another sentence are far from likely.
    other = whisper.decode(spoken(QUESTION)).tokens
    assert whisper.log_probability(sound, other) < found - 2.0


def test_a_recogniser_says_how_sure_it_is_when_it_is_asked(
    whisper: DraftedWhisper,
) -> None:
    model = OfflineRecogniserModel(whisper, SETTINGS, 29_500)
    recogniser = model.open()
    assert recogniser.log_probability() is None
    recogniser.accept(librivox(890))
    recogniser.conclude()
    clear = recogniser.log_probability()
    recogniser.reset()
    assert recogniser.log_probability() is None
    random = np.random.default_rng(0)
    recogniser.accept(librivox(890) + 0.05 * random.standard_normal(len(librivox(890)), np.float32))
    recogniser.conclude()
    noisy = recogniser.log_probability()
    assert clear is not None and noisy is not None
    assert noisy < clear - 0.1
    assert clear > -0.5


def test_metadata_that_are_missing_are_one_line(folder: Path) -> None:
    with pytest.raises(ArtifactError, match="has no Whisper's metadata") as raised:
        GreedyWhisper(folder, 1, {"sot_sequence": "1,x"})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("seconds", "tokens"), [(0.0, 12), (2.0, 24), (29.5, 189), (60.0, 224)])
def test_how_much_may_be_written(seconds: float, tokens: int) -> None:
    assert most_tokens(seconds) == tokens


def test_a_value_of_another_type_is_refused(folder: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(folder, tmp_path / "whisper"))
    about = json.loads((copied / "manifest.json").read_text())
    about["engine"]["quiet_frames"] = "many"
    (copied / "manifest.json").write_text(json.dumps(about))
    assert whisper_drafted.is_for(manifests.read(copied))
    with pytest.raises(ArtifactError, match=r"engine\.quiet_frames = 'many'"):
        load_unguarded(copied, SETTINGS)


def _last_only(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the decoder with logits of the last token alone."""
    graph = model.graph
    maker = next(node for node in graph.node if "logits" in node.output)
    maker.output[list(maker.output).index("logits")] = "all_logits"
    constants = {"last_begin": [-1], "last_end": [2**31], "last_axis": [1]}
    for name, value in constants.items():
        graph.initializer.append(onnx.numpy_helper.from_array(np.array(value, np.int64), name))
    graph.node.append(onnx.helper.make_node("Slice", ["all_logits", *constants], ["logits"]))
    graph.output[0].type.tensor_type.shape.dim[1].dim_value = 1
    return model
