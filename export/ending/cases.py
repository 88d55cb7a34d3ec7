"""Of one recording of one whole turn: the turn, and where a speaker might have paused in it.

Owns where speech begins, pauses and ends in a recording, and what a recogniser would be given
there: that much speech, and a little silence behind it. Nothing is known of the words.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgevoice.frames import SAMPLE_RATE_HZ, Float32, ms_to_samples

Kind = Literal["whole", "pause", "cut"]

SHORTEST_S, LONGEST_S = 1.0, 12.0
_FRAME = ms_to_samples(10)
_QUIET = 0.06
"""Of the loudness that a recording has in its loudest twentieth: 24 dB below is a pause."""
_FEWEST_FRAMES = 30
_PAUSE_FRAMES = 16
"""A silence of 160 ms is a pause: the closure of a "t" or a "k" is shorter."""
_BEFORE_FRAMES, _BEHIND_FRAMES = 25, 20
_MOST_PAUSES = 2
_LEAD_SAMPLES = ms_to_samples(300)
_FADE_SAMPLES = ms_to_samples(5)
_SILENCE_MS = (40.0, 160.0)
"""Behind the speech, as a detector of speech leaves it before it says that there is none."""
PEAK = 0.25
GAINS = (0.4, 1.6)
_LOUD_DB, _SILENT_DB = (12.0, 40.0), 60.0
_COLOUR = (1.0, 0.9, 0.7, 0.5, 0.3, 0.1)


@dataclass(frozen=True, slots=True)
class Case:
    """Something to judge.

    Attributes:
        kind: "whole"; "pause", where the speaker paused in the turn; "cut", at a quiet place.
        samples: float32, 16 kHz, as a recogniser hears them when a pause is known.
    """

    kind: Kind
    samples: Float32


def cases(recording: Float32, random: np.random.Generator) -> Iterator[Case]:
    """Yield what there is to judge in ``recording`` (float32, 16 kHz), the whole turn first.

    Nothing where it is too short, too long or silent. Loudness, noise, and how long a silence is
    heard are drawn from ``random``.
    """
    if not SHORTEST_S * SAMPLE_RATE_HZ <= recording.size <= LONGEST_S * SAMPLE_RATE_HZ:
        return
    level = loudness(recording)
    voiced = voiced_frames(level)
    if voiced.size < _FEWEST_FRAMES:
        return
    loud = np.zeros(level.size, bool)
    loud[voiced] = True
    begin, end = int(voiced[0]), int(voiced[-1]) + 1
    yield Case("whole", _heard(recording, begin, end, random, fade=False))
    pauses = _pauses(loud, begin, end)
    random.shuffle(pauses)
    for place in pauses[:_MOST_PAUSES]:
        yield Case("pause", _heard(recording, begin, place, random, fade=False))
    place = _quiet_place(level, begin, end, random)
    yield Case("cut", _heard(recording, begin, place, random, fade=True))


def loudness(samples: Float32) -> NDArray[np.float32]:
    """Return the RMS of each 10 ms."""
    frames = samples[: samples.size // _FRAME * _FRAME].reshape(-1, _FRAME)
    level: NDArray[np.float32] = np.sqrt(np.square(frames).mean(axis=1))
    return level


def voiced_frames(level: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return which frames of :func:`loudness` are not quiet; none of silence."""
    return (
        np.flatnonzero(level > _QUIET * np.percentile(level, 95))
        if level.size
        else np.empty(0, np.intp)
    )


def _pauses(loud: NDArray[np.bool_], begin: int, end: int) -> list[int]:
    """Return the frames at which the speaker falls silent for a while."""
    edges = np.flatnonzero(np.diff(loud[begin:end].astype(np.int8))) + begin + 1
    silences = zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
    return [
        first
        for first, last in silences
        if last - first >= _PAUSE_FRAMES
        and first - begin >= _BEFORE_FRAMES
        and end - last >= _BEHIND_FRAMES
    ]


def _quiet_place(
    level: NDArray[np.float32], begin: int, end: int, random: np.random.Generator
) -> int:
    """Return the quietest frame of 150 or of 600 ms anywhere in the middle."""
    low, high = begin + (end - begin) // 5, begin + (end - begin) * 9 // 10
    first = int(random.integers(low, max(low + 1, high - 40)))
    near = np.convolve(level, np.ones(4) / 4, "same")[first : first + int(random.choice((15, 60)))]
    return first + int(near[: max(1, high - first)].argmin())


def _heard(
    recording: Float32, begin: int, end: int, random: np.random.Generator, *, fade: bool
) -> Float32:
    """Return frames ``begin`` to ``end`` and a silence: the recording's own, or none of it."""
    gain = PEAK / max(1e-4, float(np.abs(recording).max())) * random.uniform(*GAINS)
    speech = (recording[begin * _FRAME : end * _FRAME] * gain).astype(np.float64)
    length = ms_to_samples(random.uniform(*_SILENCE_MS))
    behind = recording[end * _FRAME : end * _FRAME + length].astype(np.float64) * gain
    if fade or behind.size < length or random.random() < 0.4:
        ramp = min(_FADE_SAMPLES, speech.size)
        speech[speech.size - ramp :] *= np.linspace(1.0, 0.0, ramp)
        behind = np.zeros(length)
    return in_noise(speech, behind, random)


def in_noise(
    speech: NDArray[np.float64], behind: NDArray[np.float64], random: np.random.Generator
) -> Float32:
    """Return ``speech`` and what is heard ``behind`` it, after a silence, in noise that is drawn:
    float32, as long as all of them."""
    samples = np.concatenate((np.zeros(_LEAD_SAMPLES), speech, behind))
    below_db = random.uniform(*_LOUD_DB) if random.random() < 0.5 else _SILENT_DB
    noise = random.standard_normal(samples.size)
    if random.random() < 0.5:
        noise = np.convolve(noise, _COLOUR, "same")
        noise /= noise.std()
    level = max(3e-4, float(np.sqrt(np.square(speech).mean())) * 10 ** (-below_db / 20))
    heard: Float32 = (samples + level * noise).astype(np.float32)
    return heard
