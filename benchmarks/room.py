"""A room with a speaker and a microphone in it: what the microphone hears of what was played.

The far end (the agent) passes a delay, an impulse response that decays, the distance's loss and a
clock that runs a little off the microphone's; the near end (the user) is added as it is. Frame by
frame, in the time base of the audio, always the same for the same seed. Tests use it too.
"""

from __future__ import annotations

import numpy as np

from edgevoice.frames import FRAME_SAMPLES, SAMPLE_RATE_HZ, Float32, Int16, to_float32, to_int16

_BLOCK = 4096
_MARGIN = 4
"""Samples either side of a position that the interpolation reads."""


class Room:
    """One microphone near one speaker.

    Args:
        delay_ms: From the moment that samples are the reference until their first echo: the
            devices' buffers and the air (20 to 250 ms in practice).
        return_loss_db: How much quieter the echo is than what was played (RMS, white noise).
        reverberation_ms: Time in which the tail decays by 60 dB.
        drift_ppm: How much slower the speaker's clock is than the microphone's: 100 moves the
            echo by 6 ms a minute. The delay never falls below 5 ms.
        noise_dbfs: RMS of the microphone's own noise.
        seed: Of the tail and the noise.
    """

    def __init__(
        self,
        *,
        delay_ms: float = 80.0,
        return_loss_db: float = 6.0,
        reverberation_ms: float = 200.0,
        drift_ppm: float = 0.0,
        noise_dbfs: float = -72.0,
        seed: int = 1,
    ) -> None:
        self._random = np.random.default_rng(seed)
        self._delay = delay_ms * SAMPLE_RATE_HZ / 1000.0
        self._drift = drift_ppm * 1e-6
        self._noise = 10.0 ** (noise_dbfs / 20.0)
        response = self._response(reverberation_ms, return_loss_db)
        self._spectrum = np.fft.rfft(response, _BLOCK)
        self._late = np.zeros(_BLOCK)  # what reaches the microphone's side, before the room
        self._played = np.zeros(0)
        self._first = 0  # position of self._played[0] in all that was played
        self._heard = 0

    def _response(self, reverberation_ms: float, return_loss_db: float) -> np.ndarray:
        longest = _BLOCK - FRAME_SAMPLES  # more would wrap around in the convolution
        count = max(32, min(longest, round(reverberation_ms * SAMPLE_RATE_HZ / 1000.0)))
        seconds = np.arange(count) / SAMPLE_RATE_HZ
        tail = self._random.normal(0.0, 1.0, count)
        tail *= np.exp(-6.9 * seconds / (reverberation_ms / 1000.0)) * 0.25
        tail[0] = 1.0
        tail[1:24] *= 0.3  # the first reflections come a little after the direct sound
        scaled: np.ndarray = tail / np.sqrt((tail**2).sum()) * 10.0 ** (-return_loss_db / 20.0)
        return scaled

    def hear(self, played: Int16, near: Float32) -> Int16:
        """Return the microphone's next frame.

        Args:
            played: int16, shape ``[FRAME_SAMPLES]``: what the speaker was given in this frame.
            near: float32, same shape: the user's voice, and whatever else sounds in the room.
        """
        self._played = np.concatenate((self._played, to_float32(played).astype(np.float64)))
        late = self._delayed()
        self._late = np.concatenate((self._late[FRAME_SAMPLES:], late))
        echo = np.fft.irfft(np.fft.rfft(self._late) * self._spectrum)[-FRAME_SAMPLES:]
        noise = self._random.normal(0.0, self._noise, FRAME_SAMPLES)
        self._heard += FRAME_SAMPLES
        return to_int16((echo + near + noise).astype(np.float32))

    def _delayed(self) -> np.ndarray:
        """Interpolate (cubic Lagrange) what leaves the speaker's clock into the microphone's."""
        delay = max(0.005 * SAMPLE_RATE_HZ, self._delay + self._drift * self._heard)
        at = (
            np.arange(self._heard, self._heard + FRAME_SAMPLES)
            - delay
            - self._drift * np.arange(FRAME_SAMPLES)
        )
        whole = np.floor(at).astype(np.int64)
        x = at - whole
        index = whole - self._first
        keep = max(0, int(index[0]) - _MARGIN)
        taken = [self._sample(index + offset) for offset in (-1, 0, 1, 2)]
        weights = (
            -x * (x - 1) * (x - 2) / 6,
            (x + 1) * (x - 1) * (x - 2) / 2,
            -(x + 1) * x * (x - 2) / 2,
            (x + 1) * x * (x - 1) / 6,
        )
        out = sum(weight * part for weight, part in zip(weights, taken, strict=True))
        self._played = self._played[keep:]
        self._first += keep
        return np.asarray(out)

    def _sample(self, index: np.ndarray) -> np.ndarray:
        inside = (index >= 0) & (index < self._played.size)
        return np.where(inside, self._played[np.clip(index, 0, self._played.size - 1)], 0.0)
