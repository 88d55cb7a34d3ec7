"""Log mel energies as sherpa-onnx computes them for its streaming recognisers, in numpy.

Follows kaldi-native-fbank with the options that sherpa-onnx's wenet_ctc models get: 25 ms every
10 ms, centred with reflection (``snip_edges`` off), no dither, mean removed, pre-emphasis 0.97,
Povey's window, 512 points, 80 triangles in mel between 20 and 7600 Hz, natural logarithm of the
power. Samples count in units of 16-bit integers. Owns nothing but that.
"""

from __future__ import annotations

import functools

import numpy as np

from edgevoice.frames import SAMPLE_RATE_HZ, Float32

BANDS = 80
HOP = 160
FLOOR = 5.0
"""What the recogniser raises all energies to: sound of 16 bits has noise of about that, digital
silence (-15.9) is something that no microphone sends."""
_WINDOW, _POINTS, _PRE_EMPHASIS = 400, 512, 0.97
_LOW_HZ, _HIGH_HZ = 20.0, SAMPLE_RATE_HZ / 2 - 400.0
_MEL_LOW = 1127.0 * np.log1p(_LOW_HZ / 700.0)
_MEL_HIGH = 1127.0 * np.log1p(_HIGH_HZ / 700.0)


def fbank(samples: Float32) -> Float32:
    """Return the energies of ``samples`` (float32 in [-1, 1], 16 kHz), shape [frames, 80]."""
    frames = (len(samples) + HOP // 2) // HOP
    if not frames:
        return np.zeros((0, BANDS), np.float32)
    # Frame t is centred at 160 t + 80; kaldi reflects with the first sample repeated.
    before = _WINDOW // 2 - HOP // 2
    after = max(0, (frames - 1) * HOP - before + _WINDOW - len(samples))
    padded = np.pad(samples.astype(np.float32) * np.float32(32768.0), (before, after), "symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::HOP][:frames]
    windows = windows - windows.mean(axis=1, keepdims=True)
    shifted = np.concatenate([windows[:, :1], windows[:, :-1]], axis=1)
    windows = (windows - np.float32(_PRE_EMPHASIS) * shifted) * _window()
    spectrum = np.fft.rfft(windows, _POINTS, axis=1)
    power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
    energies = power[:, :-1] @ _triangles()
    logs: Float32 = np.log(np.maximum(energies, np.finfo(np.float32).eps)).astype(np.float32)
    return logs


def warp(features: Float32, factor: float) -> Float32:
    """Return ``features`` of a vocal tract that is ``factor`` times as long (about 0.85 to 1.15).

    What was at a frequency f is now at f / ``factor`` (VTLP), linear between the bands.
    """
    at = _mel_of(np.clip(_centres_hz() * factor, _LOW_HZ, _HIGH_HZ))
    position = np.clip((at - _MEL_LOW) * (BANDS + 1) / (_MEL_HIGH - _MEL_LOW) - 1.0, 0, BANDS - 1)
    lower = np.minimum(position.astype(int), BANDS - 2)
    share = (position - lower).astype(np.float32)
    warped: Float32 = features[:, lower] * (1 - share) + features[:, lower + 1] * share
    return warped


@functools.cache
def _window() -> Float32:
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_WINDOW) / (_WINDOW - 1))
    povey: Float32 = (hann**0.85).astype(np.float32)
    return povey


@functools.cache
def _triangles() -> Float32:
    """Return the weights, [256, 80]: of each bin but Nyquist's in each band."""
    mels = _mel_of(np.arange(_POINTS // 2) * SAMPLE_RATE_HZ / _POINTS)[:, None]
    step = (_MEL_HIGH - _MEL_LOW) / (BANDS + 1)
    left = _MEL_LOW + np.arange(BANDS) * step
    rising, falling = (mels - left) / step, (left + 2 * step - mels) / step
    triangles: Float32 = np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)
    return triangles


@functools.cache
def _centres_hz() -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    mels = _MEL_LOW + (np.arange(BANDS) + 1) * (_MEL_HIGH - _MEL_LOW) / (BANDS + 1)
    centres: np.ndarray[tuple[int], np.dtype[np.float64]] = 700.0 * np.expm1(mels / 1127.0)
    return centres


def _mel_of(
    hz: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    mels: np.ndarray[tuple[int], np.dtype[np.float64]] = 1127.0 * np.log1p(hz / 700.0)
    return mels
