"""How long the echo takes: a coarse, pure estimate by cross-correlation.

AEC3 finds delays up to 500 ms by itself and does not tell them. Beyond that (Bluetooth speakers)
it removes nothing, and needs a reference that is held back; for that, and to report it, the delay
is estimated here. Method: generalised cross-correlation with phase transform (Knapp and Carter,
IEEE Trans. ASSP 24, 1976) of the last 2 s, at 4 kHz.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from edgevoice.frames import FRAME_SAMPLES, SAMPLE_RATE_HZ, Int16

_DECIMATION = 4
_RATE_HZ = SAMPLE_RATE_HZ // _DECIMATION
_FRAME = FRAME_SAMPLES // _DECIMATION
_CAPTURED_FRAMES = 200
_LONGEST_FRAMES = 120
_FFT = 16384
_SEARCH_FRAMES = 50
_TRACK_FRAMES = 200
"""An estimate takes 3 ms on x86-64: often while the delay is unknown, and seldom after."""
_LEAST_ACTIVE_FRAMES = 80
_LOUD = 64
"""Peak from which a frame of the reference counts as sound, of 32768."""

_CLEAR = 1.6
"""A peak counts if it is so many times higher than any that is not its neighbour."""

_NEIGHBOUR = _RATE_HZ * 15 // 1000


class DelayEstimator:
    """Tracks the delay of the echo of one speaker in one microphone, 0 to 1200 ms."""

    def __init__(self) -> None:
        self._captured: deque[np.ndarray] = deque(maxlen=_CAPTURED_FRAMES)
        self._played: deque[np.ndarray] = deque(maxlen=_CAPTURED_FRAMES + _LONGEST_FRAMES)
        self._active: deque[bool] = deque(maxlen=_CAPTURED_FRAMES + _LONGEST_FRAMES)
        self._frames = 0
        self._candidate: float | None = None
        self._delay_ms: float | None = None

    @property
    def delay_ms(self) -> float | None:
        """The delay, None before there was a clear one."""
        return self._delay_ms

    def feed(self, captured: Int16, played: Int16) -> None:
        """Take a frame of each, int16, shape ``[FRAME_SAMPLES]``."""
        self._captured.append(_decimate(captured))
        self._played.append(_decimate(played))
        self._active.append(int(np.abs(played).max()) >= _LOUD)
        self._frames += 1
        known = self._delay_ms is not None and self._candidate is not None
        every = _TRACK_FRAMES if known else _SEARCH_FRAMES
        if self._frames < every or len(self._captured) < _CAPTURED_FRAMES:
            return
        self._frames = 0
        if sum(self._active) < _LEAST_ACTIVE_FRAMES:
            return
        found = self._estimate()
        # One window may be wrong; two in a row that agree are not.
        if (
            found is not None
            and self._candidate is not None
            and abs(found - self._candidate) < 15.0
        ):
            self._delay_ms = found
        self._candidate = found

    def _estimate(self) -> float | None:
        captured = np.concatenate(self._captured)
        played = np.concatenate(self._played)
        lead = played.size - captured.size  # the reference reaches further back
        cross = np.fft.rfft(captured, _FFT) * np.conj(np.fft.rfft(played, _FFT))
        cross[: _FFT * 200 // _RATE_HZ] = 0.0  # hum and handling noise
        cross /= np.abs(cross) + 1e-3 * np.abs(cross).max() + 1e-9
        correlation = np.abs(np.fft.irfft(cross))
        # Lag l of captured against played is a delay of l + lead samples.
        lags = np.concatenate((correlation[_FFT - lead :], correlation[:1]))
        peak = int(lags.argmax())
        others = lags.copy()
        others[max(0, peak - _NEIGHBOUR) : peak + 4 * _NEIGHBOUR] = 0.0  # its own reverberation
        if lags[peak] < _CLEAR * others.max():
            return None
        return peak * 1000.0 / _RATE_HZ


def _decimate(samples: Int16) -> np.ndarray:
    return np.asarray(samples.reshape(_FRAME, _DECIMATION).mean(axis=1))
