"""What the checks of the small listening models share: sound to judge by, sizes, run times.

The sound is the user's recordings or the project's own synthesised speech, with pauses, coloured
noise over it and noise alone: a VAD that calls everything speech agrees with itself on speech.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgevoice import manifest
from edgevoice.export.calibration import Calibration, Clip
from edgevoice.export.gates import Figures
from edgevoice.export.paired import compare
from edgevoice.frames import SAMPLE_RATE_HZ, Float32

MAX_CLIPS = 16
NOISE_DB = 10.0
"""Speech over noise, by power."""
PAIRS = 21


def clips(material: Path | None) -> tuple[Clip, ...]:
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
    for number, clip in enumerate(clips(material)):
        parts += [pause, clip.samples if number % 2 else noisy(clip.samples, number)]
    parts += [pause, noise(4 * SAMPLE_RATE_HZ, len(parts))]
    return np.concatenate(parts)


def size_ratio(reference: Path, candidate: Path) -> float:
    """Return the bytes of all files of one artifact over another's."""
    first, second = (sum(f.size for f in manifest.read(a).files) for a in (reference, candidate))
    return second / first


def speed(reference: Callable[[], object], candidate: Callable[[], object]) -> Figures:
    """Return the run time of ``candidate`` over ``reference``, with its interval."""
    ratio = compare(reference, candidate, pairs=PAIRS)
    return {
        "speed_ratio": ratio.median,
        "speed_ratio_low": ratio.low,
        "speed_ratio_high": ratio.high,
    }
