"""What every engine asks of the samples that it is given."""

from __future__ import annotations

import numpy as np

from edgevoice.errors import EngineError
from edgevoice.frames import Float32


def finite(samples: Float32) -> Float32:
    """Return ``samples`` as contiguous float32 of shape ``[n]`` without NaN or infinity.

    A float WAV may hold NaN, and one NaN would spoil a recurrent state for good: it becomes 0.

    Raises:
        EngineError: ``samples`` has another shape (stereo, a batch).
    """
    if samples.ndim != 1:
        raise EngineError(f"mono samples of shape [n] are needed, got {samples.shape}")
    flat = np.ascontiguousarray(samples, dtype=np.float32)
    if np.isfinite(flat).all():
        return flat
    return np.nan_to_num(flat, nan=0.0, posinf=0.0, neginf=0.0)
