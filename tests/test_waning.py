"""When speech has died away."""

from __future__ import annotations

import numpy as np

from edgevoice.frames import FRAME_MS, FRAME_SAMPLES, Float32
from edgevoice.loudness import power_of
from edgevoice.waning import Waning


def told_ms(waning: Waning, *sounds: tuple[float, int]) -> list[float]:
    """Return when it said so, of sounds of (amplitude, milliseconds)."""
    random = np.random.default_rng(1)
    found, at_ms = [], 0.0
    for amplitude, length_ms in sounds:
        for _ in range(length_ms // round(FRAME_MS)):
            at_ms += FRAME_MS
            frame: Float32 = random.normal(0.0, amplitude, FRAME_SAMPLES).astype(np.float32)
            found += [at_ms] if waning.hear(power_of(frame)) else []
    return found


def test_it_is_told_once_soon_after_the_last_sound() -> None:
    assert told_ms(Waning(), (0.1, 800), (0.001, 500)) == [840.0]


def test_a_stop_and_a_soft_consonant_are_passed_over() -> None:
    assert told_ms(Waning(), (0.1, 300), (0.001, 30), (0.1, 300), (0.008, 100), (0.1, 50)) == []


def test_what_follows_counts_when_it_is_a_word() -> None:
    again = [(0.1, 300), (0.001, 60), (0.1, 300), (0.001, 60)]
    assert told_ms(Waning(), *again) == [340.0, 700.0]
    click = [(0.1, 300), (0.001, 60), (0.1, 20), (0.001, 60)]
    assert told_ms(Waning(), *click) == [340.0]


def test_speech_that_does_not_leave_the_noise_is_never_told() -> None:
    assert told_ms(Waning(), (0.1, 500), (0.01, 1000)) == []


def test_a_quiet_utterance_after_a_loud_one_is_told_once_it_is_known_to_be_another() -> None:
    waning = Waning()
    assert told_ms(waning, (0.5, 300), (0.0001, 100)) == [340.0]
    waning.restart()
    assert told_ms(waning, (0.01, 300), (0.0001, 100)) == [340.0]
