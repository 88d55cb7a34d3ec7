"""Sounds over which an agent must not lose its answer: at least 60, made by code, always the same.

Coughs, knocks, keyboards, music and the like are synthesised; backchannels and background talk
are spoken by flite's voices, none of which is the agent's.
"""

from __future__ import annotations

import functools
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgevoice.audio.resample import resample
from edgevoice.audio.wav import read_wav
from edgevoice.frames import SAMPLE_RATE_HZ, Float32

Sound = NDArray[np.float64]

BACKCHANNELS = ("mm-hm.", "yeah.", "right.", "uh huh.", "okay.", "I see.", "wow.", "hmm.")
TALK = (
    "And then she said that the shop would be closed on Sunday.",
    "The weather tomorrow will be mostly cloudy with some rain.",
    "He shoots, he scores, and the crowd goes wild.",
    "Breaking news this evening from the capital.",
)
VOICES = ("slt", "rms", "awb", "kal16")
NEAR_PEAK, FAR_PEAK = 0.25, 0.04


@dataclass(frozen=True, slots=True)
class Disturbance:
    """One sound.

    Attributes:
        name: Kind and number, unique.
        kind: "cough", "knock", "keyboard", "music", "backchannel", "background" or "household".
        samples: float32, 16 kHz, as loud as the microphone hears it.
    """

    name: str
    kind: str
    samples: Float32


@functools.cache
def disturbances() -> tuple[Disturbance, ...]:
    """Return all of them."""
    made = []
    for kind, sounds in (
        ("cough", _coughs()),
        ("knock", _knocks()),
        ("keyboard", _keyboards()),
        ("music", _music()),
        ("household", _household()),
        ("backchannel", _backchannels()),
        ("background", _background()),
    ):
        for number, samples in enumerate(sounds, 1):
            made.append(Disturbance(f"{kind}-{number:02d}", kind, samples.astype(np.float32)))
    return tuple(made)


def _time(seconds: float) -> Sound:
    return np.arange(round(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ


def _peak(samples: Sound, peak: float) -> Sound:
    return samples * (peak / max(1e-9, float(np.abs(samples).max())))


def _noise(random: np.random.Generator, seconds: float, low_hz: float, high_hz: float) -> Sound:
    white = np.fft.rfft(random.normal(0.0, 1.0, _time(seconds).size))
    hz = np.fft.rfftfreq(_time(seconds).size, 1 / SAMPLE_RATE_HZ)
    white[(hz < low_hz) | (hz > high_hz)] = 0.0
    return np.fft.irfft(white, _time(seconds).size)


def _joined(parts: list[Sound]) -> Sound:
    return np.concatenate(parts)


def _pause(seconds: float) -> Sound:
    return np.zeros(_time(seconds).size)


def _coughs() -> Iterator[Sound]:
    """An explosive burst, a noisy middle with the throat's resonances, sometimes a voiced end."""
    for number in range(10):
        random = np.random.default_rng(100 + number)
        parts = []
        for _ in range(1 + number % 3):
            length = 0.18 + 0.04 * (number % 4)
            t = _time(length)
            burst = _noise(random, length, 300, 5000) * np.exp(-t / 0.04)
            throat = _noise(random, length, 500, 1800) * np.exp(-t / 0.12) * 0.6
            pitch = 110 + 20 * (number % 5)
            voiced = np.sin(2 * np.pi * pitch * t) * np.exp(-((t - 0.12) ** 2) / 0.002) * 0.004
            parts += [burst + throat + voiced * (number % 2), _pause(0.12)]
        yield _peak(_joined(parts), NEAR_PEAK)


def _knocks() -> Iterator[Sound]:
    """Damped resonances of a door or a table."""
    for number in range(8):
        random = np.random.default_rng(200 + number)
        parts = []
        for _ in range(1 + number % 4):
            t = _time(0.15)
            modes = sum(
                random.uniform(0.3, 1.0) * np.sin(2 * np.pi * hz * t) * np.exp(-t / decay)
                for hz, decay in ((140 + 20 * number, 0.04), (310, 0.025), (720, 0.012))
            )
            parts += [modes + _noise(random, 0.15, 100, 4000) * np.exp(-t / 0.004), _pause(0.1)]
        yield _peak(_joined(parts), NEAR_PEAK)


def _keyboards() -> Iterator[Sound]:
    """Clicks of keys, down and up, at a typist's pace."""
    for number in range(8):
        random = np.random.default_rng(300 + number)
        out = np.zeros(_time(1.5).size)
        at = 0.05
        while at < 1.35:
            for moment, level in ((at, 1.0), (at + 0.07, 0.4)):
                t = _time(0.02)
                click = _noise(random, 0.02, 1500, 7000) * np.exp(-t / 0.003) * level
                first = round(moment * SAMPLE_RATE_HZ)
                out[first : first + click.size] += click
            at += random.uniform(0.09, 0.2 + 0.02 * number)
        yield _peak(out, 0.12)


def _music() -> Iterator[Sound]:
    """Chords with harmonics and an attack, from a speaker across the room."""
    chords = ((220, 277, 330), (196, 247, 294), (262, 330, 392), (175, 220, 262))
    for number in range(6):
        parts = []
        for step in range(3):
            t = _time(0.5)
            chord = sum(
                np.sin(2 * np.pi * hz * harmonic * t) / harmonic**1.5
                for hz in chords[(number + step) % 4]
                for harmonic in (1, 2, 3, 4)
            )
            parts.append(chord * np.minimum(1.0, t / 0.02) * np.exp(-t / (0.3 + 0.1 * number)))
        yield _peak(_joined(parts), FAR_PEAK)


def _household() -> Iterator[Sound]:
    """Sneeze, claps, a chair, a cup, a fan, rustling paper, a beep, a slammed door."""
    random = np.random.default_rng(400)
    t = _time(0.6)
    yield _peak(_noise(random, 0.6, 1000, 7000) * np.exp(-(((t - 0.25) / 0.12) ** 2)), NEAR_PEAK)
    clap = _noise(random, 0.12, 400, 6000) * np.exp(-_time(0.12) / 0.012)
    yield _peak(_joined([clap, _pause(0.2), clap, _pause(0.2), clap]), NEAR_PEAK)
    scrape = _noise(random, 0.7, 200, 2500) * (1 + np.sign(np.sin(2 * np.pi * 37 * _time(0.7))))
    yield _peak(scrape, 0.1)
    t = _time(0.5)
    ring = sum(np.sin(2 * np.pi * hz * t) * np.exp(-t / 0.1) for hz in (2300, 3700, 5100))
    yield _peak(np.asarray(ring), 0.15)
    yield _peak(_noise(random, 2.0, 80, 1200), 0.04)
    rustle = _noise(random, 0.8, 2000, 7500) * np.abs(_noise(random, 0.8, 1, 12))
    yield _peak(rustle, 0.1)
    t = _time(0.4)
    yield _peak(np.sin(2 * np.pi * 1000 * t) * (np.sin(2 * np.pi * 5 * t) > 0), 0.1)
    yield _peak(_noise(random, 0.5, 40, 900) * np.exp(-_time(0.5) / 0.06), 0.35)


def _backchannels() -> Iterator[Sound]:
    for number, text in enumerate(BACKCHANNELS * 2):
        voice = VOICES[(number + number // len(BACKCHANNELS)) % len(VOICES)]
        yield _peak(_spoken(text, voice), 0.2)


def _background() -> Iterator[Sound]:
    """Talk of others, and a television: two voices at once, far away and without high tones."""
    for number in range(8):
        one = _spoken(TALK[number % len(TALK)], VOICES[number % 4])
        other = _spoken(TALK[(number + 1) % len(TALK)], VOICES[(number + 1) % 4])
        length = min(one.size, other.size, 3 * SAMPLE_RATE_HZ)
        mixed = one[:length] + (other[:length] if number % 2 else 0.0)
        muffled = np.fft.rfft(mixed)
        muffled[np.fft.rfftfreq(length, 1 / SAMPLE_RATE_HZ) > 2500] *= 0.1
        yield _peak(np.fft.irfft(muffled, length), FAR_PEAK * (0.5 + 0.1 * number))


@functools.cache
def _spoken(text: str, voice: str) -> Sound:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spoken.wav"
        subprocess.run(["flite", "-voice", voice, "-t", text, "-o", str(path)], check=True)
        samples, rate_hz = read_wav(path)
    loud = np.flatnonzero(np.abs(samples) > 0.01)
    trimmed = samples[loud[0] : loud[-1] + 1]
    return resample(trimmed, rate_hz, SAMPLE_RATE_HZ).astype(np.float64)
