import dataclasses
import json
import logging
import shutil
import threading
import time
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgevoice import manifest
from edgevoice.engines import ort, piper, providers, sherpa_speech, vits_graph
from edgevoice.engines.providers import ON_CPU, Files, Ran, Wanted
from edgevoice.engines.speech import load_speech
from edgevoice.errors import ArtifactError, ConfigError
from edgevoice.frames import Float32
from edgevoice.settings import SpeechSettings
from edgevoice.stages import Speech, never

VOICE = "piper-en_US-joe-medium-int8"
SENTENCE = "The quick brown fox jumps over the lazy dog."


@pytest.fixture(scope="module", params=["onnx", "sherpa"])
def speech(request: pytest.FixtureRequest, artifact: Callable[[str], Path]) -> Iterator[Speech]:
    voice = load_speech(artifact(VOICE), SpeechSettings(engine=request.param))
    yield voice
    voice.close()


def say(speech: Speech, text: str, cancelled: Callable[[], bool] = never) -> Float32:
    return np.concatenate([np.zeros(0, np.float32), *speech.synthesise(text, cancelled)])


def seconds(speech: Speech, text: str) -> float:
    return len(say(speech, text)) / speech.sample_rate_hz


def test_a_sentence_sounds_like_speech(speech: Speech) -> None:
    samples = say(speech, SENTENCE)
    assert speech.sample_rate_hz == 22050
    assert samples.dtype == np.float32
    assert 1.8 < len(samples) / 22050 < 4.5
    assert 0.1 < np.abs(samples).max() <= 1.0
    assert (np.abs(samples) >= 1.0).mean() < 0.001  # not clipping
    assert 0.02 < float(np.sqrt((samples**2).mean())) < 0.4
    # Words and pauses: the level moves, as that of noise or of a tone does not.
    level = np.abs(samples[: len(samples) // 441 * 441]).reshape(-1, 441).mean(axis=1)
    assert level.std() / level.mean() > 0.4


def test_chunks_are_short(speech: Speech) -> None:
    sizes = [len(chunk) for chunk in speech.synthesise(SENTENCE)]
    assert len(sizes) > 10
    assert max(sizes) <= 2205


@pytest.mark.parametrize("text", ["", "   ", "😀👍🏽", "***", "```\ncode()\n```", "..."])
def test_nothing_speakable_gives_nothing(speech: Speech, text: str) -> None:
    assert list(speech.synthesise(text)) == []


@pytest.mark.parametrize(
    ("short", "longer"),
    [("Yes.", "1234567."), ("See.", "https://example.com"), ("It is.", "It is $3.50."),
     ("Hot.", "**20°C**, really 😀, hot.")],
)  # fmt: skip
def test_what_is_hard_to_say_is_said(speech: Speech, short: str, longer: str) -> None:
    assert seconds(speech, longer) > seconds(speech, short) + 0.3


def test_a_cancel_before_the_start_gives_nothing(speech: Speech) -> None:
    assert list(speech.synthesise(SENTENCE, lambda: True)) == []


def test_a_cancel_between_chunks_stops(speech: Speech) -> None:
    stop = threading.Event()
    heard = 0
    for _ in speech.synthesise(SENTENCE * 3, stop.is_set):
        heard += 1
        if heard == 3:
            stop.set()
    assert heard == 3


def test_an_abandoned_stream_is_closed(speech: Speech) -> None:
    stream = speech.synthesise(SENTENCE * 3)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert seconds(speech, "Still here.") > 0.4


def test_threads_share_the_weights(speech: Speech) -> None:
    lengths: list[float] = []
    threads = [
        threading.Thread(target=lambda: lengths.append(seconds(speech, SENTENCE))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lengths) == 4
    assert all(1.8 < length < 4.5 for length in lengths)


def halves(folder: Path) -> piper.PiperSpeech:
    return piper.load(folder, threads=1, engine=manifest.read(folder).engine)


def whole(folder: Path) -> piper.PiperSpeech:
    return piper.load(folder, threads=1)


FOX = "ðə kwˈɪk bɹˈaʊn fˈɑːks "


@pytest.mark.parametrize("load", [halves, whole])
def test_a_cancel_ends_a_run_that_is_under_way(
    artifact: Callable[[str], Path], load: Callable[[Path], piper.PiperSpeech]
) -> None:
    voice = load(artifact(VOICE))
    phonemes = FOX * 16  # about 12 s of speech: the whole run takes longest
    started = time.monotonic()
    assert (len(list(voice.run(phonemes))) == 1) == (load is whole)
    whole_s = time.monotonic() - started
    started = time.monotonic()
    assert list(voice.run(phonemes, lambda: time.monotonic() - started > 0.02)) == []
    assert time.monotonic() - started < whole_s


def test_a_cancel_ends_a_stretch_that_is_under_way(artifact: Callable[[str], Path]) -> None:
    voice = halves(artifact(VOICE))
    cancelled = threading.Event()
    sound = voice.run(FOX * 10, cancelled.is_set)
    assert len(next(sound)) == 30 * 256
    cancelled.set()
    assert list(sound) == []


def test_sound_comes_before_all_of_it_is_made(artifact: Callable[[str], Path]) -> None:
    voice = halves(artifact(VOICE))
    list(voice.run(FOX))
    started = time.monotonic()
    sound = voice.run(FOX * 10)
    next(sound)
    first_s = time.monotonic() - started
    list(sound)
    assert first_s < 0.75 * (time.monotonic() - started)  # about 0.45: the front and 0.35 s


def level_db(samples: Float32, rate_hz: int = 22050) -> npt.NDArray[np.float64]:
    """Power of each 10 ms, dB."""
    frame = rate_hz // 100
    framed = samples[: len(samples) // frame * frame].astype(np.float64).reshape(-1, frame)
    decibels: npt.NDArray[np.float64] = 10 * np.log10((framed**2).mean(axis=1) + 1e-6)
    return decibels


def test_stretches_are_what_one_run_gives(artifact: Callable[[str], Path]) -> None:
    folder = artifact(VOICE)
    cut = vits_graph.read_cut(folder, manifest.read(folder).engine)
    assert cut is not None
    config = piper.read_config(piper.find_files(folder)[1])
    ids = np.array([piper.SymbolTable(config.symbol_ids).ids(FOX * 8)], dtype=np.int64)
    feed = {
        "input": ids,
        "input_lengths": np.array([ids.shape[1]]),
        "scales": np.array([0, 1, 0], dtype=np.float32),
    }
    parts = list(vits_graph.CutGraph(cut, 1, 22050).run(feed))
    got = np.concatenate(parts)
    (wanted,) = vits_graph.WholeGraph(piper.find_files(folder)[0], 1).run(feed)
    assert len(parts) >= 4
    assert len(got) == len(wanted)
    # int8 rounds activations by the range of a run, so stretches differ a little from the whole;
    # a seam would be a click or a step in level at a border.
    assert np.abs(level_db(got) - level_db(wanted)).mean() < 1.5
    borders = np.cumsum([len(part) for part in parts])[:-1]
    step = np.abs(np.diff(got))
    assert max(step[b - 1] for b in borders) < np.quantile(step, 0.999)


@pytest.mark.parametrize(("phonemes", "fewest"), [(FOX * 8, 4), ("jˈɛs.", 1)])
def test_a_decoder_of_one_length_gives_what_one_run_gives(
    phonemes: str, fewest: int, artifact: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A binary for an NPU takes 64 frames, whatever the sentence is; here the CPU stands for it."""
    folder = artifact(VOICE)
    cut = vits_graph.read_cut(folder, manifest.read(folder).engine)
    assert cut is not None

    class Fixed:
        def __init__(self, session: Any) -> None:
            self.get_outputs = session.get_outputs
            self.session = session

        def get_inputs(self) -> list[Any]:
            return [SimpleNamespace(name=i.name, shape=[1, 192, 64]) for i in self.given()]

        def given(self) -> list[Any]:
            found: list[Any] = self.session.get_inputs()
            return found

        def run(self, names: Any, feed: dict[str, Any], options: Any) -> list[Any]:
            assert [value.shape for value in feed.values()] == [(1, 192, 64)]
            made: list[Any] = self.session.run(names, feed, options)
            return made

    opened = providers.open_session

    def on_npu(files: Files, options: Any, wanted: Wanted) -> tuple[Any, Ran]:
        session, ran = opened(files, options, ON_CPU)
        return (Fixed(session), Ran("qnn")) if "qnn" in wanted.order else (session, ran)

    monkeypatch.setattr(providers, "open_session", on_npu)
    config = piper.read_config(piper.find_files(folder)[1])
    ids = np.array([piper.SymbolTable(config.symbol_ids).ids(phonemes)], dtype=np.int64)
    feed = {
        "input": ids,
        "input_lengths": np.array([ids.shape[1]]),
        "scales": np.array([0, 1, 0], dtype=np.float32),
    }
    graph = vits_graph.CutGraph(cut, 1, 22050, Wanted(("qnn", "cpu")))
    assert graph.provider.name == "qnn"
    parts = list(graph.run(feed))
    got = np.concatenate(parts)
    (wanted,) = vits_graph.WholeGraph(piper.find_files(folder)[0], 1).run(feed)
    assert len(parts) >= fewest and len(got) == len(wanted)
    assert np.abs(level_db(got) - level_db(wanted)).mean() < 1.5


def test_windows_cover_every_frame_once() -> None:
    for frames in (1, 63, 64, 65, 107, 108, 500, 1234):
        spans = list(vits_graph.windows(frames, 64, 10))
        assert [start for _, start, _ in spans] == [0, *(stop for *_, stop in spans[:-1])]
        assert spans[-1][2] == frames
        for low, start, stop in spans:
            assert low >= 0 and stop <= low + 64
            assert start - low >= 10 or low == 0  # enough before it, or the sound begins
            assert low + 64 - stop >= 10 or stop == frames


def test_stretches_cover_every_frame_once() -> None:
    for frames in (1, 29, 30, 31, 72, 500, 1234):
        spans = list(vits_graph.stretches(frames, 30, 86))
        assert [a for a, _ in spans] == [0, *(b for _, b in spans[:-1])]
        assert spans[-1][1] == frames
        lengths = [b - a for a, b in spans]
        assert max(lengths) <= 86 + 43
        assert all(a < b for a, b in spans)


@pytest.mark.parametrize(
    "changes",
    [{"front": 3, "decoder": "../x"}, {"decoder_overlap_frames": -1}, {"samples_per_frame": "a"},
     {"decoder_overlap_frames": None}],
)  # fmt: skip
def test_a_cut_that_is_not_described(copy: Path, changes: dict[str, object]) -> None:
    retag(copy, engine={**manifest.read(copy).engine, **changes})
    with pytest.raises(ArtifactError, match=r"does not describe the voice's halves.*--force"):
        load_speech(copy, SpeechSettings())


def test_halves_of_different_voices(copy: Path) -> None:
    shutil.copy(copy / "en_US-joe-medium.onnx", copy / "halves/decoder.onnx")
    with pytest.raises(ArtifactError, match="not halves of one voice"):
        load_speech(copy, SpeechSettings())


@pytest.mark.parametrize("engine", ["onnx", "sherpa"])
def test_speed_changes_the_duration(artifact: Callable[[str], Path], engine: str) -> None:
    slow, fast = (
        seconds(load_speech(artifact(VOICE), SpeechSettings(engine=engine, speed=speed)), SENTENCE)
        for speed in (0.7, 1.6)
    )
    assert 1.6 < slow / fast < 3.0


def test_a_very_long_text_is_said_in_parts() -> None:
    parts = list(piper.bounded("wˈɜːd, " * 200 + "x" * 500))
    assert max(map(len, parts)) <= piper.MAX_SYMBOLS
    joined = "".join("".join(parts).split())
    assert joined == "wˈɜːd," * 200 + "x" * 500


def test_an_unknown_phoneme_is_left_out_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    table = piper.SymbolTable({"_": (0,), "^": (1,), "$": (2,), "a": (3, 4)})
    with caplog.at_level(logging.WARNING):
        assert table.ids("aʘʘa") == [1, 0, 3, 4, 0, 3, 4, 0, 2]
        table.ids("ʘ")
    assert [r.getMessage() for r in caplog.records] == [
        "the voice has no symbol for 'ʘ'; it is left out"
    ]


# ------------------------------------------------------------------------- bad input


@pytest.fixture
def copy(artifact: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(artifact(VOICE), tmp_path / "voice"))


def test_missing_json(copy: Path) -> None:
    (copy / "en_US-joe-medium.onnx.json").unlink()
    with pytest.raises(ArtifactError, match=r"en_US-joe-medium\.onnx\.json is missing"):
        load_speech(copy, SpeechSettings())


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"audio": 3}', "\x00"])
def test_broken_json(copy: Path, text: str) -> None:
    (copy / "en_US-joe-medium.onnx.json").write_text(text)
    with pytest.raises(ArtifactError, match="not a Piper voice's settings"):
        load_speech(copy, SpeechSettings())


@pytest.mark.parametrize("size", [0, 1000, 1_000_000])
@pytest.mark.parametrize("name", ["en_US-joe-medium", "halves/front", "halves/decoder"])
def test_truncated_model(copy: Path, size: int, name: str) -> None:
    if "/" not in name:
        retag(copy, engine={})
    with (copy / f"{name}.onnx").open("r+b") as file:
        file.truncate(size)
    with pytest.raises(ArtifactError) as caught:
        load_speech(copy, SpeechSettings())
    assert "\n" not in str(caught.value)
    assert "models pull voice" in str(caught.value)


def test_another_graph_is_no_voice(copy: Path, artifact: Callable[[str], Path]) -> None:
    shutil.copy(
        artifact("smart-turn-v3.2") / "smart-turn-v3.2-cpu.onnx", copy / "en_US-joe-medium.onnx"
    )
    retag(copy, engine={})
    with pytest.raises(ArtifactError, match="not a Piper voice"):
        load_speech(copy, SpeechSettings())


@pytest.mark.parametrize("engine", ["onnx", "sherpa"])
def test_a_speaker_that_is_not_there(artifact: Callable[[str], Path], engine: str) -> None:
    with pytest.raises(ConfigError, match=r"speaker 5: .* allowed: 0 to 0"):
        load_speech(artifact(VOICE), SpeechSettings(engine=engine, speaker=5))


def test_not_a_voice(artifact: Callable[[str], Path]) -> None:
    with pytest.raises(ArtifactError, match="needs a voice"):
        load_speech(artifact("silero-vad"), SpeechSettings())


def retag(folder: Path, **changes: object) -> None:
    described = dataclasses.replace(manifest.read(folder), **changes)  # type: ignore[arg-type]
    manifest.write(described, folder)


def test_an_unknown_family(copy: Path) -> None:
    retag(copy, family="pipper")
    with pytest.raises(ArtifactError, match="did you mean 'piper'"):
        load_speech(copy, SpeechSettings())
    with pytest.raises(ConfigError, match="use engine = 'auto'"):
        load_speech(copy, SpeechSettings(engine="onnx"))


# ------------------------------------------------------------------------- packs

PACKS = {
    "vits": ["model.onnx", "tokens.txt", "lexicon.txt"],
    "kokoro": ["model.int8.onnx", "voices.bin", "tokens.txt", "lexicon-us-en.txt"],
    "kitten": ["model.fp16.onnx", "voices.bin", "tokens.txt"],
    "matcha": ["model-steps-3.onnx", "vocos-22khz-univ.onnx", "tokens.txt"],
    "supertonic": ["duration_predictor.onnx", "text_encoder.onnx", "vector_estimator.onnx",
                   "vocoder.onnx", "tts.json", "unicode_indexer.bin", "voice.bin"],
    "pocket": ["lm_flow.int8.onnx", "lm_main.int8.onnx", "encoder.onnx", "decoder.int8.onnx",
               "text_conditioner.onnx", "vocab.json", "token_scores.json"],
    "zipvoice": ["tokens.txt", "encoder.int8.onnx", "decoder.int8.onnx", "vocos_24khz.onnx",
                 "lexicon.txt"],
}  # fmt: skip


@pytest.mark.parametrize("family", PACKS)
def test_a_pack_becomes_a_configuration(tmp_path: Path, family: str) -> None:
    for name in PACKS[family]:
        (tmp_path / name).touch()
    config = sherpa_speech.configure(tmp_path, family, 3)
    assert config.model.num_threads == 3
    text = str(getattr(config.model, family))
    for name in PACKS[family]:
        assert f"{tmp_path}/{name}" in text


@pytest.mark.parametrize("family", PACKS)
def test_a_pack_that_lacks_a_file_names_it(tmp_path: Path, family: str) -> None:
    for name in PACKS[family][1:]:
        (tmp_path / name).touch()
    with pytest.raises(ArtifactError, match="the pack needs one"):
        sherpa_speech.configure(tmp_path, family, 1)


def test_a_cloning_voice_needs_its_recording(copy: Path) -> None:
    retag(copy, family="zipvoice")
    with pytest.raises(ArtifactError, match="set reference_audio"):
        load_speech(copy, SpeechSettings())
    with wave.open(str(copy / "voice.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(bytes(64))
    retag(copy, engine={"reference_audio": "voice.wav"})
    with pytest.raises(ArtifactError, match="not a usable recording: mono"):
        load_speech(copy, SpeechSettings())


def test_chunks_stop_when_cancelled() -> None:
    seen: list[int] = []
    for chunk in ort.chunks(np.zeros(22050, np.float32), 22050, lambda: len(seen) >= 2):
        seen.append(len(chunk))
    assert seen == [2205, 2205]


def test_the_settings_of_a_voice(artifact: Callable[[str], Path]) -> None:
    model, settings = piper.find_files(artifact(VOICE))
    config = piper.read_config(settings)
    assert model.name == "en_US-joe-medium.onnx"
    assert config.espeak_voice == "en-us"
    assert config.symbol_ids["^"] == (1,)
    assert config.sample_rate_hz == json.loads(settings.read_text())["audio"]["sample_rate"]
