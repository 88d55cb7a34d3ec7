"""Recordings that checks listen to: the user's, or what this machine has and can make.

Recognisers are judged by what was said: by default five LibriVox clips where Debian's
``pocketsphinx-testdata`` is installed, and questions said by voices that are not the agent's, other
sentences than those that calibration uses. The small listening models are judged by speech as
such, with pauses, coloured noise over it and noise alone: a VAD that calls everything speech agrees
with itself on speech. Nothing is downloaded.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from edgevoice.audio.resample import resample
from edgevoice.audio.wav import read_wav
from edgevoice.errors import ConfigError
from edgevoice.export.calibration import (
    TRANSCRIPTS,
    Calibration,
    Clip,
    default_sentences,
    recordings,
)
from edgevoice.frames import SAMPLE_RATE_HZ, Float32, to_float32
from edgevoice.questions import speak_questions

LIBRIVOX = Path("/usr/share/pocketsphinx/test/data/librivox")
_LINE = re.compile(r"<s> (.*) </s> \((.*)\)")  # CMU Sphinx's transcription files
MAX_CLIPS = 16
NOISE_DB = 10.0
"""Speech over noise, by power."""


def transcribed(material: Path | None) -> tuple[Clip, ...]:
    """Return recordings to recognise, each with its words where they are known.

    Args:
        material: Folder with ``*.wav`` and ``transcripts.tsv`` (``file<TAB>text``); None for the
            default.

    Raises:
        ConfigError: The folder has no recordings, or no words for any of them.
        MissingDependencyError: The default needs flite or espeak-ng, and neither is here.
    """
    if material is None:
        return (*librivox(), *spoken_questions())
    found = tuple(recordings(material))
    if not any(clip.text for clip in found):
        raise ConfigError(
            f"{material} has {len(found)} *.wav and words for none of them; write what is said "
            f"into {TRANSCRIPTS}, one line a file: its name, a tab, the words"
        )
    return found


def librivox() -> tuple[Clip, ...]:
    """Return Debian's clips of read speech, none where they are not installed."""
    listing = LIBRIVOX / "transcription"
    if not listing.is_file():
        return ()
    found = []
    for line in listing.read_text(encoding="utf-8").splitlines():
        match = _LINE.fullmatch(line.strip())
        if match and (path := LIBRIVOX / f"{match[2]}.wav").is_file():
            samples, rate_hz = read_wav(path)
            found.append(Clip(path.name, resample(samples, rate_hz, SAMPLE_RATE_HZ), match[1]))
    return tuple(found)


def spoken_questions() -> tuple[Clip, ...]:
    """Return the project's own sentences, said on this machine."""
    sentences = default_sentences("questions")
    return tuple(
        Clip(said.name, to_float32(said.samples), text)
        for said, text in zip(speak_questions(sentences), sentences, strict=True)
    )


def speech(material: Path | None) -> tuple[Clip, ...]:
    """Return up to :data:`MAX_CLIPS` recordings, spread over all of them.

    Raises:
        ConfigError: The user's folder has no recordings.
        MissingDependencyError: The default needs flite or espeak-ng.
    """
    found = Calibration(material).clips()
    step = -(-len(found) // MAX_CLIPS)
    return found[::step]


def noise(samples: int, seed: int) -> Float32:
    """Return noise whose power falls with the frequency, at a tenth of full scale."""
    drawn = np.random.default_rng(seed).standard_normal(samples)
    spectrum = np.fft.rfft(drawn)
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    spectrum[0] = 0.0
    shaped = np.fft.irfft(spectrum, samples)
    scaled: Float32 = (0.1 * shaped / max(float(np.abs(shaped).max()), 1e-9)).astype(np.float32)
    return scaled


def noisy(samples: Float32, seed: int) -> Float32:
    """Return ``samples`` with noise :data:`NOISE_DB` below them."""
    over = noise(len(samples), seed)
    level = np.sqrt(np.mean(samples**2) / max(float(np.mean(over**2)), 1e-12))
    mixed: Float32 = (samples + over * level * 10 ** (-NOISE_DB / 20)).astype(np.float32)
    return mixed


def track(material: Path | None) -> Float32:
    """Return one recording: each clip plain and noisy, pauses between them, noise at the end."""
    pause = np.zeros(SAMPLE_RATE_HZ // 2, np.float32)
    parts: list[Float32] = []
    for number, clip in enumerate(speech(material)):
        parts += [pause, clip.samples if number % 2 else noisy(clip.samples, number)]
    parts += [pause, noise(4 * SAMPLE_RATE_HZ, len(parts))]
    return np.concatenate(parts)
