"""Synthetic speakers and the generator: real engines, but Kokoro's graph is a fake."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgevoice.errors import ArtifactError, ConfigError
from edgevoice.export.distil import generate, shards, voices

SENTENCE = "Turn on the light."


def drawn(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("speak", [voices.flite("slt"), voices.espeak])
def test_the_same_draw_is_the_same_speaker_and_another_is_another(
    speak: Callable[[str, np.random.Generator], voices.Utterance],
) -> None:
    first, again, other = (speak(SENTENCE, drawn(seed)) for seed in (1, 1, 2))
    assert first.speaker == again.speaker != other.speaker
    assert np.array_equal(first.samples, again.samples)
    assert len(first.samples) != len(other.samples)
    assert 0.5 < len(first.samples) / 16_000 < 4.0


def test_a_piper_voice_is_said_at_other_rates_and_sizes(artifact: Callable[[str], Path]) -> None:
    voice = voices.PiperVoice(artifact("piper-en_US-joe-medium-int8"), 1)
    first, other = voice.speak(SENTENCE, drawn(1)), voice.speak(SENTENCE, drawn(2))
    assert first.speaker != other.speaker
    assert np.abs(first.samples).max() > 0.05
    assert 0.5 < len(other.samples) / 16_000 < 4.0


class KokoroGraph:
    """Remembers what it is fed, and says a second of a tone."""

    def __init__(self) -> None:
        self.fed: list[Mapping[str, Any]] = []

    def get_inputs(self) -> list[SimpleNamespace]:
        types = {"input_ids": "tensor(int64)", "style": "tensor(float)", "speed": "tensor(float)"}
        return [SimpleNamespace(name=name, type=kind) for name, kind in types.items()]

    def run(self, _outputs: object, feed: Mapping[str, Any]) -> list[np.ndarray]:
        self.fed.append(feed)
        return [np.sin(np.arange(24_000) / 20).astype(np.float32)]


def test_kokoros_speakers_are_mixed_of_its_voices_timbre_and_delivery_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.onnx").touch()
    (tmp_path / "voices").mkdir()
    with pytest.raises(ArtifactError, match=r"one .onnx and voices/\*.bin, English ones"):
        voices.KokoroMixtures(tmp_path, 1)
    names = ["af_a", "am_b", "bf_c", "jf_d"]
    for number, name in enumerate(names):
        row = np.zeros((510, 256), "<f4")
        row[:, [number, 128 + number]] = 1.0  # where a mixture's weights can be read off
        row.tofile(tmp_path / "voices" / f"{name}.bin")
    graph = KokoroGraph()
    monkeypatch.setattr(voices, "open_on", lambda *_: (graph, None))
    mixtures = voices.KokoroMixtures(tmp_path, 1)
    said = [mixtures.speak(SENTENCE, drawn(seed)).speaker for seed in range(40)]
    styles = np.array([feed["style"][0] for feed in graph.fed])
    timbre, delivery = styles[:, :4], styles[:, 128:132]
    assert np.allclose(timbre.sum(axis=1), 1.0, atol=1e-5)
    assert np.allclose(delivery.sum(axis=1), 1.0, atol=1e-5)
    assert np.abs(timbre - delivery).max() > 0.5
    assert timbre.min() < 0.0 <= 0.25 + timbre.min()  # past a voice, not far
    assert len(set(said)) == 40
    assert (timbre[:, :3].sum(axis=1) > 0.5).mean() > 0.6  # mostly English
    speeds = [float(feed["speed"][0]) for feed in graph.fed]
    assert 0.8 <= min(speeds) < 0.95
    assert 1.05 < max(speeds) <= 1.3


RECIPE = """
[[text]]
kind = "requests"
share = 1.0
[[voice]]
kind = "espeak-ng"
share = 1.0
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(generate, "SHARD_SENTENCES", 4)
    path = tmp_path / "speech.toml"
    path.write_text(RECIPE)
    return path


def test_a_generation_that_was_stopped_goes_on_with_what_is_missing(
    recipe: Path, tmp_path: Path
) -> None:
    def made(out: str, most_bytes: int) -> dict[str, bytes]:
        folder = tmp_path / out
        generate.generate(
            generate.read_recipe(recipe, 1), folder, seed=7, most_bytes=most_bytes,
            report=lambda line: None,
        )  # fmt: skip
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    whole = made("whole", 600_000)
    assert len(whole) >= 4
    clips = list(shards.clips(tmp_path / "whole"))
    assert 6 <= len(clips) <= len(whole) * 2
    assert clips[0].line.source == "edgevoice's own sentences"
    assert 0.65 < np.abs(clips[0].samples()).max() / 32767 < 0.75
    # Cut off in the first shard: its table was not written.
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "000000.pcm").write_bytes(whole["000000.pcm"][:1000])
    again = made("cut", 600_000)
    assert again["000000.pcm"] == whole["000000.pcm"]
    assert again["000000.tsv"] == whole["000000.tsv"]


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (RECIPE.replace("espeak-ng", "mbrola"), "unknown kind 'mbrola'"),
        (RECIPE.replace('"espeak-ng"', '"kokoro"'), "'path' is missing"),
        (RECIPE.replace("share = 1.0", "chare = 1.0"), "unknown key 'chare'"),
        ("text = []\nvoice = []", r"at least one \[\[text\]\] and one \[\[voice\]\] are needed"),
    ],
)
def test_a_recipe_that_cannot_be_is_one_line(recipe: Path, written: str, message: str) -> None:
    recipe.write_text(written)
    with pytest.raises(ConfigError, match=message) as raised:
        generate.read_recipe(recipe, 1)
    assert "\n" not in str(raised.value)


def test_speech_that_is_too_long_for_its_words_is_left_out() -> None:
    def stuck(sentence: str, random: np.random.Generator) -> voices.Utterance:
        return voices.Utterance(np.full(16_000 * 20, 0.5, np.float32), "stuck")

    text = generate.Share(_One(), 1.0, "tests", "none")
    recipe = generate.Recipe([text], [generate.Share(voices.Speakers([stuck]), 1.0, "x", "none")])
    assert generate.draw(recipe, 0, 0, 0) is None


class _One:
    def draw(self, random: np.random.Generator) -> str:
        return SENTENCE
