"""Sample-rate conversion with libsoxr, whole or as a stream. No sample is ever just dropped.

Owns nothing but the conversion; what rate a device or a model has is known to its owner.

A stream holds some audio back inside its filter. Measured with blocks of 10 ms, 48 to 16 kHz: 6
to 20 ms with "LQ", 21 to 37 ms with "HQ". Live ports therefore use "LQ" (its filter only starts
to fall off earlier, above the band of speech); files and synthesised speech use "HQ".
"""

from __future__ import annotations

from typing import Generic, Literal, TypeVar

import numpy as np
import soxr

from edgevoice.frames import Float32, Int16

Samples = TypeVar("Samples", Int16, Float32)
Quality = Literal["LQ", "MQ", "HQ", "VHQ"]


class StreamResampler(Generic[Samples]):
    """Converts a mono stream block by block; the parts joined equal the whole converted at once.

    Args:
        in_rate_hz: Rate of the blocks given to :meth:`convert`.
        out_rate_hz: Rate of what it returns.
        dtype: Sample type of both, "int16" or "float32".
        quality: soxr's recipe.
    """

    def __init__(
        self,
        in_rate_hz: int,
        out_rate_hz: int,
        dtype: Literal["int16", "float32"] = "int16",
        quality: Quality = "HQ",
    ) -> None:
        self._dtype = np.dtype(dtype)
        self._out_rate_hz = out_rate_hz
        self._stream: soxr.ResampleStream | None = None
        if in_rate_hz != out_rate_hz:
            self._stream = soxr.ResampleStream(
                in_rate_hz, out_rate_hz, 1, dtype=dtype, quality=quality
            )

    @property
    def delay_s(self) -> float:
        """Audio that the filter holds back right now."""
        return self._stream.delay() / self._out_rate_hz if self._stream else 0.0

    def convert(self, samples: Samples) -> Samples:
        """Take a block of shape ``[n]``; return what is ready, perhaps nothing yet."""
        return self._run(samples, last=False)

    def finish(self) -> Samples:
        """Return what the filter still held; the next block begins a new stream."""
        rest = self._run(np.zeros(0, dtype=self._dtype), last=True)
        if self._stream:
            self._stream.clear()
        return rest

    def _run(self, samples: Samples, last: bool) -> Samples:
        if samples.dtype != self._dtype:
            raise TypeError(f"{samples.dtype} given to a resampler of {self._dtype}")
        if self._stream is None:
            return samples
        converted: Samples = self._stream.resample_chunk(np.ascontiguousarray(samples), last=last)
        return converted


def resample(samples: Samples, in_rate_hz: int, out_rate_hz: int) -> Samples:
    """Convert a whole mono recording of shape ``[n]``, int16 or float32, to another rate."""
    if in_rate_hz == out_rate_hz:
        return samples
    converted: Samples = soxr.resample(samples, in_rate_hz, out_rate_hz, quality="HQ")
    return converted
