"""Makes every hearing of a clip a new one: other speakers, rooms, microphones, noises.

On samples: speed (pitch with it), a room, a microphone's tone, a telephone line, noise, level. On
features: vocal-tract length, and masks (SpecAugment, Park et al. 2019, arXiv:1904.08779). Owns the
drawing and the processing, in numpy; all of it follows from the generator that is passed in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgevoice.export.distil.fbank import BANDS, warp
from edgevoice.frames import SAMPLE_RATE_HZ, Float32

_MU = 255.0


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How likely each change is, and how far it goes.

    Attributes:
        speed: Slowest and fastest.
        tract: Shortest and longest vocal tract, relative.
        noise_db: Least and most speech over noise.
        level_db: Peak of the result, relative to full scale.
    """

    speed_share: float = 0.6
    speed: tuple[float, float] = (0.85, 1.2)
    tract_share: float = 0.6
    tract: tuple[float, float] = (0.88, 1.14)
    room_share: float = 0.4
    tone_share: float = 0.5
    telephone_share: float = 0.08
    noise_share: float = 0.6
    noise_db: tuple[float, float] = (6.0, 36.0)
    level_db: tuple[float, float] = (-32.0, -1.0)
    mask_share: float = 0.6


def of_samples(samples: Float32, how: Augmentation, random: np.random.Generator) -> Float32:
    """Return ``samples`` (float32, 16 kHz, [n]) as another microphone hears another speaker."""
    if random.random() < how.speed_share:
        samples = at_speed(samples, random.uniform(*how.speed))
    size = _fast_length(len(samples) + SAMPLE_RATE_HZ)
    response = np.ones(size // 2 + 1, np.complex64)
    if random.random() < how.room_share:
        response *= np.fft.rfft(room(random), size)
    if random.random() < how.tone_share:
        response *= tone(len(response), random)
    telephone = random.random() < how.telephone_share
    if telephone:
        response *= band(len(response), random.uniform(200, 400), random.uniform(3200, 3700))
    changed = np.fft.irfft(np.fft.rfft(samples, size) * response, size)[: len(samples)]
    heard: Float32 = (changed / max(float(np.abs(changed).max()), 1e-6)).astype(np.float32)
    if random.random() < how.noise_share:
        decibels = random.uniform(*how.noise_db)
        loudness = np.sqrt(np.mean(heard**2))
        heard = heard + noise(len(heard), random) * np.float32(loudness * 10 ** (-decibels / 20))
    if telephone:
        heard = companded(heard)
    level = 10 ** (random.uniform(*how.level_db) / 20) / max(float(np.abs(heard).max()), 1e-6)
    # What 16 bits leave: quiet sound has their noise in it.
    dithered = heard * (level * 32768.0) + random.uniform(-0.5, 0.5, len(heard))
    quantised: Float32 = (np.round(dithered) / 32768.0).astype(np.float32)
    return quantised


def of_features(features: Float32, how: Augmentation, random: np.random.Generator) -> Float32:
    """Return ``features`` ([frames, 80]) of another vocal tract, with parts masked by the mean."""
    if random.random() < how.tract_share:
        features = warp(features, random.uniform(*how.tract))
    if random.random() < how.mask_share:
        features = features.copy()
        mean = features.mean(axis=0)
        for _ in range(2):
            width = int(random.integers(0, 11))
            begin = int(random.integers(0, BANDS - width))
            features[:, begin : begin + width] = mean[begin : begin + width]
        for _ in range(max(1, len(features) // 250)):
            width = min(int(random.integers(0, 15)), len(features))
            begin = int(random.integers(0, len(features) - width + 1))
            features[begin : begin + width] = mean
    return features


def at_speed(samples: Float32, speed: float) -> Float32:
    """Return ``samples`` played ``speed`` times as fast, resampled by their spectrum."""
    size = _fast_length(len(samples))
    made = max(1, round(size / speed))
    spectrum = np.fft.rfft(samples, size)
    played = np.fft.irfft(spectrum[: made // 2 + 1], made)[: round(len(samples) / speed)]
    scaled: Float32 = (played * (made / size)).astype(np.float32)
    return scaled


def room(random: np.random.Generator) -> Float32:
    """Return a room's impulse response: the voice itself, a few reflections, a dying tail."""
    seconds = random.uniform(0.1, 0.7)  # until it has fallen by 60 dB
    samples = int(seconds * SAMPLE_RATE_HZ)
    tail = random.standard_normal(samples) * 10 ** (-3 * np.arange(samples) / samples)
    begins = int(random.uniform(0.002, 0.02) * SAMPLE_RATE_HZ)
    tail[:begins] = 0.0
    for _ in range(int(random.integers(2, 7))):
        tail[int(random.integers(begins // 2, begins * 3))] += random.uniform(-4.0, 4.0)
    reverberant = 10 ** (-random.uniform(0.0, 18.0) / 20)  # relative to the direct sound
    response = tail * reverberant / np.sqrt(np.sum(tail**2))
    response[0] = 1.0
    made: Float32 = response.astype(np.float32)
    return made


def tone(bins: int, random: np.random.Generator) -> Float32:
    """Return a microphone's frequency response: smooth in octaves, some decibels up and down."""
    octaves = np.log2(np.maximum(np.arange(bins) / bins * SAMPLE_RATE_HZ / 2, 40.0) / 40.0)
    knots = np.linspace(0.0, octaves[-1], 7)
    decibels = np.interp(octaves, knots, random.normal(0.0, random.uniform(1.0, 6.0), 7))
    made: Float32 = (10 ** (decibels / 20)).astype(np.float32)
    return made


def band(bins: int, low_hz: float, high_hz: float) -> Float32:
    """Return a band's frequency response with edges half an octave wide."""
    hz = np.maximum(np.arange(bins) / bins * SAMPLE_RATE_HZ / 2, 1.0)
    rising = np.clip(1 + 2 * np.log2(hz / low_hz), 0, 1)
    made: Float32 = (rising * np.clip(1 - 2 * np.log2(hz / high_hz), 0, 1)).astype(np.float32)
    return made


def noise(samples: int, random: np.random.Generator) -> Float32:
    """Return noise of power 1 whose spectrum falls or rises, and whose level may wander."""
    size = _fast_length(samples)
    bins = size // 2 + 1
    slope = random.uniform(-1.2, 0.3)  # of the amplitude, per octave of frequency in log2
    hz = np.maximum(np.arange(bins) / bins * SAMPLE_RATE_HZ / 2, 50.0)
    shape = (hz / 1000.0) ** slope * tone(bins, random)
    phases = random.standard_normal(bins) + 1j * random.standard_normal(bins)
    made = np.fft.irfft(phases * shape, size)[:samples]
    if random.random() < 0.4:
        knots = max(2, samples // 6000)
        wander = np.interp(
            np.arange(samples), np.linspace(0, samples, knots), random.normal(size=knots)
        )
        made = made * np.exp(0.6 * wander)
    scaled: Float32 = (made / max(float(np.sqrt(np.mean(made**2))), 1e-9)).astype(np.float32)
    return scaled


def companded(samples: Float32) -> Float32:
    """Return ``samples`` through eight bits of mu-law (ITU-T G.711's curve)."""
    peak = max(float(np.abs(samples).max()), 1e-6)
    curved = np.sign(samples) * np.log1p(_MU * np.abs(samples) / peak) / np.log1p(_MU)
    coarse = np.round(curved * 127) / 127
    made: Float32 = (
        np.sign(coarse) * np.expm1(np.abs(coarse) * np.log1p(_MU)) / _MU * peak
    ).astype(np.float32)
    return made


def _fast_length(samples: int) -> int:
    """Return the next even length that has only the factors 2, 3 and 5: FFTs of it are fast."""
    size = samples + samples % 2
    while True:
        rest = size
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return size
        size += 2
