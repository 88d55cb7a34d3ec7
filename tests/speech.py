"""Speech and noise for the tests: recorded clips, spoken questions, and sounds that are neither."""

import functools
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from edgevoice.audio.resample import resample
from edgevoice.audio.wav import read_wav
from edgevoice.export import words
from edgevoice.frames import SAMPLE_RATE_HZ, Float32
from edgevoice.stages import Recogniser, Transcript

LIBRIVOX = Path("/usr/share/pocketsphinx/test/data/librivox")
"""Debian's pocketsphinx-testdata: five sentences of "Sense and Sensibility", 16 kHz."""


@functools.cache
def spoken(text: str, voice: str = "slt") -> Float32:
    """`text` in one of flite's voices, 16 kHz float32, with flite's own short silences."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spoken.wav"
        subprocess.run(["flite", "-voice", voice, "-t", text, "-o", str(path)], check=True)
        samples, rate_hz = read_wav(path)
    return resample(samples, rate_hz, SAMPLE_RATE_HZ)


@functools.cache
def librivox(number: int) -> Float32:
    """The clip whose name ends with `number` (870, 880, 890, 920, 930)."""
    (path,) = LIBRIVOX.glob(f"*-0{number}.wav")
    return read_wav(path)[0]


def silence(seconds: float) -> Float32:
    return np.zeros(int(seconds * SAMPLE_RATE_HZ), np.float32)


def noise(seconds: float, level: float) -> Float32:
    """White noise with this RMS, the same every time."""
    count = int(seconds * SAMPLE_RATE_HZ)
    return np.random.default_rng(7).normal(0.0, level, count).astype(np.float32)


def hum(seconds: float) -> Float32:
    """Mains hum with two harmonics and a little noise."""
    t = np.arange(int(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    parts = [0.1 / k * np.sin(2 * np.pi * 50 * k * t) for k in (1, 2, 3)]
    return (sum(parts) + noise(seconds, 0.002)).astype(np.float32)


def feed(recogniser: Recogniser, samples: Float32) -> list[Transcript]:
    """In frames of 10 ms, as a conversation does; return the partials."""
    told = []
    for start in range(0, len(samples), 160):
        recogniser.accept(samples[start : start + 160])
        if (partial := recogniser.partial()) is not None:
            told.append(partial)
    return told


def word_errors(reference: str, hypothesis: str) -> int:
    """How many words differ, case and punctuation aside."""
    return words.word_errors(words.normalise(reference), words.normalise(hypothesis))
