"""How far two sounds of the same words are from each other: spectrum, length, level, clipping."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgevoice.audio.resample import resample
from edgevoice.engines.log_mel import HOP_SAMPLES, log_mel_of_tail
from edgevoice.frames import SAMPLE_RATE_HZ, Float32

_DB_PER_STEP = 40.0  # Whisper's log-mel is (log10 of power + 4) / 4
_FLOOR_DB = 50.0
"""Below the loudest: the difference between two kinds of silence is nobody's business."""
_BAND_SHARE = 0.1
_CLIPPED = 0.999

Float64 = NDArray[np.float64]


def log_mel_db(samples: Float32, rate_hz: int) -> Float64:
    """Return the log-mel of ``samples`` in dB, [frames of 10 ms, 80], floored.

    The sound is brought to one level first; the level is a figure of its own.
    """
    heard = resample(samples, rate_hz, SAMPLE_RATE_HZ)
    frames = max(1, -(-len(heard) // HOP_SAMPLES))
    mel = log_mel_of_tail(heard, frames * HOP_SAMPLES).T.astype(np.float64) * _DB_PER_STEP
    floored: Float64 = np.maximum(mel, mel.max() - _FLOOR_DB)
    return floored


def distance_db(first: Float64, second: Float64) -> float:
    """Return the mean distance of two log-mels along the best alignment in time.

    Dynamic time warping (Sakoe & Chiba 1978) within a band of a tenth of the length: a duration
    that was rounded to another frame moves everything behind it, which nobody hears. The distance
    of two frames is the root of the mean square over the bands.
    """
    n, m = len(first), len(second)
    band = max(abs(n - m), int(_BAND_SHARE * max(n, m))) + 2
    cost = np.full((n + 1, m + 1), np.inf)
    steps = np.zeros((n + 1, m + 1))
    cost[0, 0] = 0.0
    for i in range(1, n + 1):
        low, high = max(1, i * m // n - band), min(m, i * m // n + band)
        apart = np.sqrt(np.mean((second[low - 1 : high] - first[i - 1]) ** 2, axis=1))
        for j in range(low, high + 1):
            before = ((i - 1, j - 1), (i - 1, j), (i, j - 1))
            best = min(before, key=cost.__getitem__)
            cost[i, j] = cost[best] + apart[j - low]
            steps[i, j] = steps[best] + 1
    return float(cost[n, m] / steps[n, m])


def level_db(samples: Float32) -> float:
    """Return the root mean square of ``samples``, dB of full scale."""
    power = float(np.mean(np.square(samples, dtype=np.float64))) if len(samples) else 0.0
    return 10.0 * float(np.log10(power + 1e-12))


def clipped_share(samples: Float32) -> float:
    """Return the share of samples at full scale."""
    return float((np.abs(samples) >= _CLIPPED).mean()) if len(samples) else 0.0
