"""The unit of audio that travels through the runtime, and conversions of sample type.

Everything between the ports and the engines is mono, 16 kHz, int16, in frames of 10 ms.
Engines that want float32 convert with :func:`to_float32`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Int16: TypeAlias = npt.NDArray[np.int16]
Float32: TypeAlias = npt.NDArray[np.float32]

SAMPLE_RATE_HZ = 16_000
FRAME_MS = 10
FRAME_SAMPLES = SAMPLE_RATE_HZ * FRAME_MS // 1000


@dataclass(frozen=True, slots=True)
class Frame:
    """10 ms of microphone audio.

    Attributes:
        seq: Counts up by one for every frame that was captured; a gap means frames were dropped.
        captured_ns: ``time.monotonic_ns()`` at the end of the frame's capture.
        samples: int16, shape ``[FRAME_SAMPLES]``, mono, 16 kHz.
    """

    seq: int
    captured_ns: int
    samples: Int16


def to_float32(samples: Int16) -> Float32:
    """Scale int16 to float32 in [-1, 1)."""
    return samples.astype(np.float32) / np.float32(32768.0)


def to_int16(samples: Float32) -> Int16:
    """Scale float32 in [-1, 1] to int16; what lies outside is clipped."""
    scaled: Float32 = np.rint(samples * np.float32(32767.0))
    return np.clip(scaled, -32768, 32767).astype(np.int16)


def samples_to_ms(count: int, rate_hz: int = SAMPLE_RATE_HZ) -> float:
    """Duration of ``count`` samples in milliseconds."""
    return count * 1000.0 / rate_hz


def ms_to_samples(duration_ms: float, rate_hz: int = SAMPLE_RATE_HZ) -> int:
    """Whole samples in ``duration_ms``."""
    return round(duration_ms * rate_hz / 1000.0)
