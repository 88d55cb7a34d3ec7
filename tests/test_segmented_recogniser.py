"""Segmented recognisers: Whisper tiny.en of the default bundle, and sherpa-onnx's packs."""

import inspect
import json
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sherpa_onnx
from speech import feed, librivox, silence, spoken, word_errors

from edgevoice.engines.agreement import LocalAgreement
from edgevoice.engines.recogniser import load_recogniser
from edgevoice.engines.segmented_recogniser import OfflineRecogniser, with_tail
from edgevoice.engines.sherpa_offline_packs import OFFLINE_FAMILIES, build
from edgevoice.engines.utterance_decoder import UtteranceDecoder, Written
from edgevoice.errors import ArtifactError, ConfigError
from edgevoice.frames import Float32
from edgevoice.manifest import ArtifactFile, Manifest
from edgevoice.settings import RecogniserSettings
from edgevoice.stages import Expected, RecogniserModel, Transcript

SETTINGS = RecogniserSettings(threads=1)
QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def model(artifact: Callable[[str], Path]) -> RecogniserModel:
    return load_recogniser(artifact("whisper-tiny.en-int8"), SETTINGS)


class Counted:
    """A decoder with its decodes counted."""

    def __init__(self, decoder: UtteranceDecoder) -> None:
        self._decoder = decoder
        self.decodes = 0

    def decode(
        self, samples: Float32, draft: Sequence[int] = (), expected: Expected = "turn"
    ) -> Written:
        self.decodes += 1
        return self._decoder.decode(samples, draft, expected)


@pytest.fixture
def counted(model: Any) -> Counted:
    return Counted(model.decoder)


@pytest.mark.bundle
def test_it_understands_recorded_and_spoken_sentences(model: RecogniserModel) -> None:
    recogniser = model.open()
    said = {
        870: "and mister john dashwood had then leisure to consider how much there might be "
        "prudently in his power to do for them",
        930: "he might even have been made amiable himself",
    }
    for clip, text in said.items():
        recogniser.accept(librivox(clip))
        # "Mr." for "mister" is right.
        assert word_errors(text.replace("mister", "mr"), recogniser.conclude().text) <= 1
        recogniser.reset()
    recogniser.accept(spoken(QUESTION))
    assert word_errors(QUESTION, recogniser.conclude().text) == 0


@pytest.mark.bundle
def test_partials_grow_to_the_sentence(model: RecogniserModel) -> None:
    recogniser = model.open()
    told = feed(recogniser, librivox(870))
    assert len(told) >= 5
    assert all(t.text.startswith(t.stable) for t in told)
    assert all(a.audio_ms + 690 <= b.audio_ms for a, b in pairwise(told))
    assert any(len(t.stable.split()) >= 5 for t in told)
    final = recogniser.conclude()
    assert final.stable == final.text
    assert final.audio_ms == 7100.0


@pytest.mark.bundle
def test_a_partial_waits_for_enough_new_audio(counted: Counted) -> None:
    recogniser = OfflineRecogniser(counted, 700.0, 28_000.0)
    assert recogniser.partial() is None
    recogniser.accept(spoken(QUESTION)[: 16 * 690])
    assert recogniser.partial() is None
    assert counted.decodes == 0
    recogniser.accept(spoken(QUESTION)[16 * 690 : 16 * 1000])
    assert recogniser.partial() is not None
    assert recogniser.partial() is None
    assert counted.decodes == 1


@pytest.mark.bundle
def test_a_conclusion_uses_the_last_decode_when_only_silence_followed(counted: Counted) -> None:
    recogniser = OfflineRecogniser(counted, 700.0, 28_000.0)
    recogniser.accept(spoken(QUESTION))
    first = recogniser.conclude()
    recogniser.accept(silence(0.5))
    assert recogniser.conclude().text == first.text
    assert counted.decodes == 1
    recogniser.accept(spoken("And of Spain?"))
    assert "Spain" in recogniser.conclude().text
    assert counted.decodes == 2


@pytest.mark.bundle
def test_a_faint_beginning_is_not_taken_for_the_silence_behind_it(counted: Counted) -> None:
    """Only what came since the last decode is compared, with the loudest of all."""
    recogniser = OfflineRecogniser(counted, 700.0, 28_000.0)
    recogniser.accept(silence(0.3))
    recogniser.conclude()
    recogniser.accept(spoken(QUESTION))
    assert "France" in recogniser.conclude().text
    assert counted.decodes == 2


@pytest.mark.bundle
def test_a_long_utterance_is_cut_where_it_is_quiet_and_nothing_is_lost(model: Any) -> None:
    recogniser = OfflineRecogniser(model.decoder, 100_000.0, 6_000.0)
    parts = [librivox(930), spoken(QUESTION), librivox(930), spoken("Who wrote Hamlet?")]
    recogniser.accept(np.concatenate(parts))
    text = recogniser.conclude().text
    said = "he might even have been made amiable himself"
    assert word_errors(f"{said} {QUESTION} {said} Who wrote Hamlet?", text) <= 4
    assert recogniser.conclude().text == text
    assert sum(map(len, recogniser._pieces)) <= 6 * 16_000


class StopsEarly:
    """A decoder that loses what follows the first sentence, as Whisper now and then does."""

    def __init__(self, texts: list[str]) -> None:
        self._texts = texts

    def decode(
        self, samples: Float32, draft: Sequence[int] = (), expected: Expected = "turn"
    ) -> Written:
        return Written(self._texts.pop(0))


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["Watch all.", "Watch all.", "Next is the keeper."], "Watch all. Next is the keeper."),
        (["Watch all.", "Watch", "all."], "Watch all."),
        (["Watch all night, next is the keeper."], "Watch all night, next is the keeper."),
    ],
    ids=["words were lost", "a slow speaker", "enough text"],
)
def test_too_little_text_for_the_audio_is_looked_at_in_two_parts(
    texts: list[str], expected: str
) -> None:
    recogniser = OfflineRecogniser(StopsEarly(texts), 700.0, 28_000.0)
    recogniser.accept(librivox(890))
    assert recogniser.conclude().text == expected
    assert not texts


@pytest.mark.bundle
def test_empty_audio_and_nan_do_no_harm(model: RecogniserModel) -> None:
    recogniser = model.open()
    recogniser.accept(np.zeros(0, np.float32))
    assert recogniser.conclude() == Transcript("")
    recogniser.accept(np.full(3200, np.nan, np.float32))
    recogniser.accept(spoken(QUESTION))
    assert word_errors(QUESTION, recogniser.conclude().text) == 0
    assert not recogniser.endpoint()


@pytest.mark.bundle
def test_conversations_decode_side_by_side(model: RecogniserModel) -> None:
    def text(clip: int) -> str:
        recogniser = model.open()
        recogniser.accept(librivox(clip))
        return recogniser.conclude().text

    clips = [880, 930] * 3
    alone = {clip: text(clip) for clip in set(clips)}
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(text, clips)) == [alone[c] for c in clips]


@pytest.mark.bundle
def test_hotwords_are_refused(artifact: Callable[[str], Path]) -> None:
    with pytest.raises(ConfigError, match="is a whisper pack and takes none"):
        load_recogniser(artifact("whisper-tiny.en-int8"), RecogniserSettings(hotwords="words"))


@pytest.mark.bundle
def test_a_missing_part_is_named(artifact: Callable[[str], Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(artifact("whisper-tiny.en-int8"), tmp_path / "whisper"))
    next(folder.glob("*decoder*.onnx")).unlink()
    with pytest.raises(ArtifactError, match=r"decoder.*is missing"):
        load_recogniser(folder, SETTINGS)


@pytest.mark.bundle
def test_a_model_without_whispers_metadata_is_one_line(
    artifact: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(artifact("whisper-tiny.en-int8"), tmp_path / "whisper"))
    path = next(folder.glob("*encoder*.onnx"))
    path.write_bytes(Path(artifact("silero-vad") / "silero_vad.onnx").read_bytes())
    about = json.loads((folder / "manifest.json").read_text())
    for file in about["files"]:
        file["size"] = (folder / file["path"]).stat().st_size
    (folder / "manifest.json").write_text(json.dumps(about))
    with pytest.raises(ArtifactError) as raised:
        load_recogniser(folder, SETTINGS)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("family", sorted(OFFLINE_FAMILIES))
def test_every_family_calls_sherpa_with_arguments_that_it_has(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No weights of the other families can be had here; their calls are bound to the signatures."""
    about = OFFLINE_FAMILIES[family]
    signature = inspect.signature(getattr(sherpa_onnx.OfflineRecognizer, about.constructor))
    monkeypatch.setattr(sherpa_onnx.OfflineRecognizer, about.constructor, signature.bind)
    names = [f"{word or 'model'}.int8.onnx" for word in about.parts.values()]
    for name in (*names, "tokens.txt"):
        (tmp_path / name).write_bytes(b"\x08\x08")
    files = tuple(ArtifactFile(name, 2, "") for name in (*names, "tokens.txt"))
    pack = Manifest("a", "recogniser", family, "onnx", "int8", "MIT", "here", files)
    given = build(about, tmp_path, pack, threads=3).arguments
    assert given["num_threads"] == 3
    assert [Path(given[part]).name for part in about.parts] == names


def test_agreement_is_what_two_decodes_begin_with_alike() -> None:
    agreement = LocalAgreement()
    assert agreement.agree("What is.") == ""
    assert agreement.agree("What is the cap") == "What is"
    assert agreement.agree("What is the capital, of France?") == "What is the"
    assert agreement.agree("what is the capital of") == "what is the capital of"
    assert agreement.agree("Why?") == ""
    agreement.reset()
    assert agreement.agree("Why?") == ""


def test_quiet_behind_an_utterance_is_said_on_and_sound_is_not() -> None:
    random = np.random.default_rng(1)
    loud = random.normal(0.0, 0.1, 8000).astype(np.float32)
    quiet = random.normal(0.0, 0.001, 640).astype(np.float32)
    heard = with_tail(np.concatenate((loud, quiet)), 0.003)
    assert heard.size == 8640 + 1600
    assert np.array_equal(heard[:8640], np.concatenate((loud, quiet)))
    assert 0.0005 < heard[8640:].std() < 0.002
    assert with_tail(loud, 0.003) is loud
    assert with_tail(loud[:10], 0.3).size == 10
