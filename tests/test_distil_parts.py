"""Parts of distilling: features, augmentation, sentences, shards, batches, plans, first weights."""

from __future__ import annotations

from pathlib import Path

import hf_whisper
import numpy as np
import pytest
from ctranslate2_file import HEADS, STATE, small_vocabulary, small_whisper, write_small_whisper
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevoice.engines.log_mel import log_mel_power
from edgevoice.errors import ArtifactError, ConfigError, ExportError
from edgevoice.export.distil import (
    alphabet,
    augment,
    corpus,
    plan,
    preparing,
    sentences,
    shards,
    start,
)
from edgevoice.export.distil.alphabet import Alphabet
from edgevoice.export.distil.augment import Augmentation
from edgevoice.export.distil.batches import Batches
from edgevoice.export.distil.fbank import FLOOR, fbank, warp
from edgevoice.export.distil.outliers import Losses
from edgevoice.export.distil.plan import Plan, Shape, Stage
from edgevoice.export.distil.shards import Line
from edgevoice.frames import Float32

RATE = 16_000


def tone(hz: float, seconds: float = 1.0) -> Float32:
    return (0.3 * np.sin(2 * np.pi * hz * np.arange(int(seconds * RATE)) / RATE)).astype(np.float32)


def band_of(hz: float) -> int:
    low, high, mel = (1127 * np.log1p(f / 700) for f in (20.0, 7600.0, hz))
    return round((mel - low) / (high - low) * 81) - 1


def test_energies_peak_in_the_band_of_a_tone_and_count_in_16_bits() -> None:
    for hz in (300.0, 1000.0, 4000.0):
        features = fbank(tone(hz))
        assert features.shape == (100, 80)
        assert abs(int(features[50].argmax()) - band_of(hz)) <= 1
    # Ten times the amplitude is ln 100 more energy.
    louder = fbank(tone(1000.0))[50].max() - fbank(tone(1000.0) / 10)[50].max()
    assert louder == pytest.approx(np.log(100), abs=1e-3)
    assert fbank(np.zeros(RATE, np.float32)).max() == pytest.approx(np.log(2.0**-23), abs=1e-3)


def test_a_longer_vocal_tract_moves_formants_down() -> None:
    features = fbank(tone(2000.0))
    moved = warp(features, 1.1)
    assert abs(int(moved[50].argmax()) - band_of(2000.0 / 1.1)) <= 1
    assert np.allclose(warp(features, 1.0), features, atol=1e-4)


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_augmented_speech_follows_from_the_seed_and_stays_within_16_bits(seed: int) -> None:
    sound = tone(440.0, 0.7)
    first, again = (
        augment.of_samples(sound, Augmentation(), np.random.default_rng(seed)) for _ in range(2)
    )
    assert np.array_equal(first, again)
    assert np.isfinite(first).all()
    assert 0.01 < np.abs(first).max() < 1.0
    assert len(sound) / 1.25 < len(first) < len(sound) / 0.8


def test_every_change_can_be_heard() -> None:
    random = np.random.default_rng(0)
    still = dict.fromkeys(
        ("speed_share", "tract_share", "room_share", "tone_share", "telephone_share",
         "noise_share", "mask_share"), 0.0,
    )  # fmt: skip
    level = {"level_db": (-10.0, -10.0)}
    sound = tone(1000.0)

    def heard(**how: object) -> Float32:
        return augment.of_samples(sound, Augmentation(**{**still, **level, **how}), random)  # type: ignore[arg-type]

    plain = heard()
    assert np.abs(plain).max() == pytest.approx(10 ** (-10 / 20), rel=1e-3)
    assert np.corrcoef(plain, sound)[0, 1] > 0.9999
    faster = heard(speed_share=1.0, speed=(1.25, 1.25))
    assert len(faster) == pytest.approx(len(sound) / 1.25, abs=2)
    assert abs(int(fbank(faster)[40].argmax()) - band_of(1250.0)) <= 1
    noisy = heard(noise_share=1.0, noise_db=(0.0, 0.0))
    assert np.corrcoef(noisy, sound)[0, 1] < 0.85
    # A room goes on after the voice; here it is the last tenth of a second after a click.
    click = np.zeros(RATE, np.float32)
    click[100] = 0.5
    wet = augment.of_samples(click, Augmentation(**{**still, **level, "room_share": 1.0}), random)  # type: ignore[arg-type]
    assert np.abs(wet[400:1200]).max() > 1e-3
    both = tone(1000.0) + tone(100.0)
    called = augment.of_samples(both, Augmentation(**{**still, "telephone_share": 1.0}), random)  # type: ignore[arg-type]
    spectrum = np.abs(np.fft.rfft(called))
    assert spectrum[100] < 0.05 * spectrum[1000]
    features = random.normal(10.0, 3.0, (300, 80)).astype(np.float32)
    masked = augment.of_features(features, Augmentation(mask_share=1.0, tract_share=0.0), random)
    changed = masked != features
    assert changed.all(axis=0).any() or changed.all(axis=1).any()
    assert changed.mean() < 0.5


def test_speed_keeps_the_level() -> None:
    for speed in (0.8, 1.0, 1.3):
        assert np.abs(augment.at_speed(tone(500.0), speed)).max() == pytest.approx(0.3, rel=0.05)


def test_the_projects_sentences_have_no_slot_left_and_differ() -> None:
    requests = sentences.own("requests")
    said = [requests.draw(np.random.default_rng(seed)) for seed in range(400)]
    assert len(set(said)) > 350
    assert not any("{" in text or "  " in text or " a e" in text for text in said)
    letters = {letter for text in said for letter in sentences.transcript(text)}
    assert letters <= set("abcdefghijklmnopqrstuvwxyz' ")
    assert requests.draw(np.random.default_rng(7)) == said[7]


def test_a_template_with_an_unknown_slot_is_named() -> None:
    with pytest.raises(ConfigError, match="there is no slot 'colour'"):
        sentences.Requests({"a": ["make it {colour}"]}, {})


def test_books_give_sentences_that_can_be_said(tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    filler = "\n\n".join(f"This is sentence {word} of it." for word in _words(120))
    book.write_text(
        "CHAPTER IV\n\nMr. Smith, who was there, laughed--loudly. In 1811 he left! XII.\n\n"
        "“Never,” said she; “and that's that.”\n\n" + filler,
        encoding="utf-8",
    )
    found = sentences.read_book(book).sentences
    assert "Mister Smith, who was there, laughed--loudly." in found
    assert not any("1811" in text or "CHAPTER" in text or "XII" in text for text in found)
    book.write_text("Too short. By far.", encoding="utf-8")
    with pytest.raises(ConfigError, match="2 sentences that can be said; 100 are needed"):
        sentences.read_book(book)


def _words(count: int) -> list[str]:
    return ["".join(chr(97 + (n // 26**k) % 26) for k in range(3)) for n in range(count)]


def test_words_are_drawn_in_rows(tmp_path: Path) -> None:
    listed = tmp_path / "words"
    listed.write_text("\n".join([*_words(120), "Paris", "don't", "é"]), encoding="utf-8")
    row = sentences.read_words(listed).draw(np.random.default_rng(1))
    assert 3 <= len(row.split()) <= 8
    assert row.endswith(".")


def speech(folder: Path, count: int = 12, seconds: float = 1.0) -> Path:
    """Shards of tones that are called by letters."""
    folder.mkdir()
    said = [
        ((tone(200.0 + 50 * n, seconds) * 32767).astype(np.int16),
         Line(0, 0, "ab ba" if n % 2 else "Abba.", f"tone {n}", "tests", "none"))
        for n in range(count)
    ]  # fmt: skip
    shards.write(folder, 0, said[: count // 2])
    shards.write(folder, 1, said[count // 2 :])
    return folder


def test_shards_give_back_what_was_written_and_a_cut_one_is_named(tmp_path: Path) -> None:
    folder = speech(tmp_path / "speech")
    clips = list(shards.clips(folder))
    assert len(clips) == 12
    assert np.array_equal(clips[7].samples(), (tone(550.0) * 32767).astype(np.int16))
    assert clips[6].line.text == "Abba."
    whole = (folder / "000001.pcm").read_bytes()
    (folder / "000001.pcm").write_bytes(whole[:-2])
    with pytest.raises(ArtifactError, match=r"000001.pcm has \d+ samples, its table says more"):
        list(shards.clips(folder))
    # Without its table a shard is not there.
    (folder / "000001.tsv").unlink()
    assert len(list(shards.clips(folder))) == 6
    assert not shards.exists(folder, 1)


def test_what_is_held_out_stays_held_out_as_speech_is_added(tmp_path: Path) -> None:
    folder = speech(tmp_path / "speech", 900, 0.02)
    read = corpus.read([folder], [])
    out = {clip.line.speaker for clip in read.held_out[corpus.OWN]}
    assert 0 < len(out) < 30
    assert not out & {clip.line.speaker for clip in read.training}
    (folder / "000001.tsv").unlink()
    fewer = corpus.read([folder], [f"again={folder}"])
    assert {clip.line.speaker for clip in fewer.held_out[corpus.OWN]} <= out
    assert len(fewer.held_out["again"]) == 450
    with pytest.raises(ConfigError, match="has no speech"):
        corpus.read([tmp_path], [])


def test_a_batch_is_the_same_whenever_it_is_asked_for(tmp_path: Path) -> None:
    clips = list(shards.clips(speech(tmp_path / "speech")))
    letters = Alphabet((alphabet.BLANK, alphabet.SPACE, "a", "b"))

    def batches() -> Batches:
        return Batches(clips, letters, batch_frames=2000, seed=5, how=Augmentation())

    first, again, other = batches().batch(3), batches().batch(3), batches().batch(4)
    assert np.array_equal(first.features, again.features)
    assert np.array_equal(first.targets, again.targets)
    assert other.features.shape != first.features.shape or not np.array_equal(
        other.features, first.features
    )
    assert first.features.min() >= FLOOR - 1e-4
    assert first.target_lengths.sum() == len(first.targets)
    assert set(first.targets) <= {1, 2, 3}
    assert first.frames.max() == first.features.shape[1]
    assert first.features.shape[0] * first.features.shape[1] <= 2000 * 1.3  # slowed down
    with pytest.raises(ExportError, match="no utterance can be trained on"):
        Batches(clips, Alphabet(("<blk>", "▁", "x")), batch_frames=9, seed=0, how=Augmentation())


def test_what_is_left_out_is_drawn_no_more(tmp_path: Path) -> None:
    clips = list(shards.clips(speech(tmp_path / "speech")))
    letters = Alphabet((alphabet.BLANK, alphabet.SPACE, "a", "b"))
    batches = Batches(clips, letters, batch_frames=4000, seed=5, how=Augmentation())
    out = {clip.name for clip in clips[2:]}
    assert out & {name for row in batches.batch(0).names for name in row}
    batches.leave_out(out)
    assert {n for row in batches.batch(0).names for n in row} <= {clip.name for clip in clips[:2]}
    with pytest.raises(ExportError, match="all of the speech"):
        batches.leave_out({clip.name for clip in clips})


def test_wrong_words_stand_out_and_what_was_joined_with_them_does_not() -> None:
    losses, random = Losses(), np.random.default_rng(0)
    for hearing in range(3):
        for number in range(60):
            losses.add([f"clip {number}"], 1.2 + 0.2 * random.standard_normal())
        losses.add(["wrong"], 4.0 + hearing)
    losses.add(["clip 5", "wrong"], 3.5)
    losses.add(["once"], 9.0)
    losses.add(["clip 6"], float("nan"))
    assert dict(losses.outliers()) == {"wrong": 3.5}
    few = Losses()
    few.add(["a", "a"], 1.0)
    assert not few.outliers()


def test_letters_and_tokens() -> None:
    letters = alphabet.of(alphabet.letters_of(["to be", "or not to be"], least=2))
    assert letters.tokens == ("<blk>", "▁", "b", "e", "o", "t")
    assert letters.decode([5, 5, 0, 4, 1, 1, 0, 2, 3, 0, 3]) == "to bee"
    assert letters.file().splitlines()[:2] == ["<blk> 0", "▁ 1"]
    assert not letters.covers("to bee or")


def test_plans_are_read_as_they_were_written_and_refuse_what_cannot_be() -> None:
    shape = Shape(16, 2, 3, 1, 40, 4, 8, ("<blk>", "▁", "a"))
    made = Plan(shape, plan.default_stages(4, 10, 20), seed=3)
    assert plan.from_json(made.as_json()) == made
    assert [made.stage_at(step)[0].name for step in (0, 9, 10, 29)] == ["frozen"] * 2 + [
        "whole"
    ] * 2
    assert made.stage_at(12) == (made.stages[1], 2)
    with pytest.raises(IndexError):
        made.stage_at(30)
    with pytest.raises(ConfigError, match="chunk 4 and left context 10 frames"):
        Shape(16, 2, 3, 1, 40, 4, 10, ())
    with pytest.raises(ConfigError, match="not a training plan"):
        plan.from_json({"shape": {}})
    assert Stage("x", 1, 1e-3).from_start == 0.5


def test_both_formats_of_whisper_begin_with_the_same_weights(tmp_path: Path) -> None:
    plain, hub = tmp_path / "plain", tmp_path / "hub"
    plain.mkdir()
    hub.mkdir()
    # The key projection of transformers' Whisper has no bias.
    variables = small_whisper()
    for name, values in variables.items():
        if name.endswith("self_attention/linear_0/bias"):
            values[STATE : 2 * STATE] = 0
        elif name.endswith("/attention/linear_1/bias"):
            values[:STATE] = 0
    write_small_whisper(plain, **variables)
    hf_whisper.write(hub, hf_whisper.tensors(variables), HEADS, small_vocabulary())
    fold = start.Fold(np.eye(80), np.zeros(80), np.full(80, 10.0), 1.0)
    made = []
    for source in (plain, hub):
        whisper = preparing.read_whisper(source, False)
        shape = start.shape(
            whisper.sizes, new_layers=2, chunk=8, left=16, tokens=("<blk>", "▁", "a")
        )
        made.append(start.tensors(whisper, shape, fold, seed=4))
    assert made[0].keys() == made[1].keys()
    assert all(np.array_equal(made[0][name], made[1][name]) for name in made[0])
    # New layers begin as identities.
    assert not made[0]["layers.3.out.weight"].any()
    assert not made[0]["layers.3.fc2.weight"].any()
    assert made[0]["layers.3.qkv.weight"].any()


def test_the_fit_explains_whispers_features() -> None:
    random = np.random.default_rng(0)
    clips = [
        augment.noise(4 * RATE, random) * np.float32(0.1)
        * np.float32(1.2 + np.sin(np.arange(4 * RATE) / 3000)) for _ in range(8)
    ]  # fmt: skip
    for mels in (80, 128):
        fold = start.fit(clips, mels, seed=0)
        assert fold.matrix.shape == (mels, 80)
        assert fold.explained > 0.9
        energies = np.maximum(fbank(clips[0]), FLOOR)
        shifted = np.concatenate([clips[0][80:], np.zeros(80, np.float32)])
        wanted = (log_mel_power(shifted, mels) + 4) / 4
        found = (energies - fold.mean) @ fold.matrix.T + fold.bias
        assert np.corrcoef(found.ravel(), wanted[: len(found)].ravel())[0, 1] > 0.95
    with pytest.raises(ExportError, match="2 s of speech to fit the features on"):
        start.fit([tone(300.0, 2.0)], 80, seed=0)
