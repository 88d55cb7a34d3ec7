"""The user's own loudness is learned, and what is quieter is known by how much."""

import numpy as np
import pytest

from edgevoice.loudness import Loudness, power_of

RANDOM = np.random.default_rng(1)


def speak(loudness: Loudness, level: float, frames: int = 100) -> None:
    for _ in range(frames):
        noise = RANDOM.normal(0.0, level, 160).astype(np.float32)
        loudness.hear(power_of(noise), in_speech=True)


def rest(loudness: Loudness) -> None:
    for _ in range(20):
        loudness.hear(0.0003**2, in_speech=False)


def test_nothing_is_known_before_a_turn() -> None:
    loudness = Loudness()
    assert loudness.margin_db() is None
    loudness.learn()
    speak(loudness, 0.1)
    assert loudness.margin_db() is None


@pytest.mark.parametrize("factor", [0.1, 0.5, 1.0, 2.0])
def test_speech_is_measured_against_the_turns_before(factor: float) -> None:
    loudness = Loudness()
    speak(loudness, 0.1)
    rest(loudness)
    loudness.learn()
    speak(loudness, 0.1 * factor, frames=12)
    margin_db = loudness.margin_db()
    assert margin_db == pytest.approx(20.0 * np.log10(factor), abs=1.0)


def test_a_knock_in_a_turn_is_not_how_loud_the_user_speaks() -> None:
    loudness = Loudness()
    speak(loudness, 0.1)
    speak(loudness, 0.9, frames=5)
    loudness.learn()
    rest(loudness)
    speak(loudness, 0.1, frames=12)
    margin_db = loudness.margin_db()
    assert margin_db is not None
    assert abs(margin_db) < 2.0


def test_the_usual_loudness_follows_slowly() -> None:
    loudness = Loudness()
    speak(loudness, 0.1)
    loudness.learn()
    rest(loudness)
    speak(loudness, 0.01)
    loudness.learn()
    rest(loudness)
    speak(loudness, 0.1, frames=12)
    assert loudness.margin_db() == pytest.approx(6.0, abs=1.0)
