"""Removes the agent's voice from the microphone with WebRTC's AEC3 (`pywebrtc-audio`).

Owns the native processor, when it may rest, and the evidence that turn-taking gets. Which
reference belongs to a frame is :mod:`edgevoice.audio.reference`'s business, and whether a
conversation has a canceller at all :mod:`edgevoice.audio.cleaning`'s.

AEC3 costs 95 us a frame on x86-64; a conversation in which nothing was played for two seconds
costs next to nothing. It is never deaf: measured in a simulated room, what is left of the first
words that the agent ever says is no speech for the VAD.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numpy as np

from edgevoice.audio.echo_delay import DelayEstimator
from edgevoice.errors import MissingDependencyError
from edgevoice.frames import FRAME_MS, FRAME_SAMPLES, SAMPLE_RATE_HZ, Int16
from edgevoice.stages import EchoEvidence

LATENCY_SAMPLES = 128
"""What AEC3's framing (10 ms into blocks of 4 ms, and back) adds: measured with an impulse."""

_REST_FRAMES = 200
"""Longer than any echo takes to come back (500 ms in AEC3, 1200 ms where we hold it back), and
than it takes to die away."""

_QUIET = 4
"""Peak of a frame of the reference, of 32768, that nobody hears."""

_EVIDENCE_FRAMES = 10
_LEAK_DB = -13.0
"""What AEC3 leaves of an echo against what it takes away: 90 % of the time less than this, at 0 dB
return loss."""

_ECHO_LASTS_FRAMES = 50
_ECHO_HIDES_FRAMES = 20
"""Behind the end of an echo AEC3 turns a voice down for so long: 200 ms in a room in which it dies
away in as much."""

_REACH_MS = 400.0
"""AEC3 finds delays of up to 500 ms (seen: 500 works, 600 removes nothing)."""

_KEPT_MS = 100.0
"""Delay that is left for AEC3 where the reference is held back: the estimate is coarse."""

_LONGEST_FRAMES = 120
_EMPHASIS = 0.95
_FLOOR = 1.0
"""Mean square of a pre-emphasised frame: the noise of 16-bit samples."""


def load_processor(*, echo: bool, noise_suppression: bool, gain_control: bool) -> Any:
    """Return a native processor of 16 kHz mono.

    Raises:
        MissingDependencyError: `pywebrtc-audio` is not installed.
    """
    try:
        from pywebrtc_audio import AudioProcessor
    except ImportError:
        raise MissingDependencyError(
            "no echo canceller: pywebrtc-audio is not installed (it has wheels for x86-64 and "
            'aarch64); `pip install pywebrtc-audio==0.2.0`, or set audio.canceller = "none" and '
            "use a headset"
        ) from None
    return AudioProcessor(
        sample_rate=SAMPLE_RATE_HZ,
        echo_cancellation=echo,
        noise_suppression=noise_suppression,
        auto_gain_control=gain_control,
    )


class Aec3Canceller:
    """One conversation's canceller; see :class:`edgevoice.stages.EchoCanceller`.

    Args:
        noise_suppression: Also take away steady noise (12 dB).
        gain_control: Also bring the voice to a common level.

    Raises:
        MissingDependencyError: `pywebrtc-audio` is not installed.
    """

    def __init__(self, *, noise_suppression: bool = False, gain_control: bool = False) -> None:
        self._native = load_processor(
            echo=True, noise_suppression=noise_suppression, gain_control=gain_control
        )
        # Noise and gain are followed at all times; the echo only while there may be one.
        self._may_rest = not (noise_suppression or gain_control)
        self._delay = DelayEstimator()
        self._recent: deque[Int16] = deque(maxlen=_LONGEST_FRAMES + 1)
        self._back = 0
        self._silence: Int16 = np.zeros(FRAME_SAMPLES, dtype=np.int16)
        self._last: Int16 = self._silence
        self._quiet_frames = _REST_FRAMES
        self._levels: deque[tuple[float, float]] = deque(maxlen=_EVIDENCE_FRAMES)

    @property
    def resting(self) -> bool:
        """Whether frames pass unprocessed, since nothing was played for a while."""
        return self._may_rest and self._quiet_frames >= _REST_FRAMES

    def process(self, captured: Int16, played: Int16) -> Int16:
        """Return ``captured`` less the echo of ``played``, 8 ms late."""
        rested = self.resting
        sounds = int(np.abs(played).max()) > _QUIET
        self._quiet_frames = 0 if sounds else self._quiet_frames + 1
        late = np.concatenate((self._last[-LATENCY_SAMPLES:], captured[:-LATENCY_SAMPLES]))
        before, self._last = self._last, captured
        if self.resting:
            return late
        if rested:
            # What the native pipeline still holds is from before the rest.
            self._native.process(before, self._silence)
        self._delay.feed(captured, played)
        cleaned: Int16 = self._native.process(captured, self._hold_back(played))
        self._levels.append((_level(late), _level(cleaned)))
        return cleaned

    def evidence(self) -> EchoEvidence | None:
        """Return the margin over the last 100 ms, None when nothing that was played can sound."""
        delay_ms = self._delay.delay_ms
        quiet_frames = self._quiet_frames - round((delay_ms or 0.0) / FRAME_MS)
        if quiet_frames > _ECHO_LASTS_FRAMES or len(self._levels) < _EVIDENCE_FRAMES:
            return None
        captured, left = np.sum(self._levels, axis=0) / _EVIDENCE_FRAMES
        removed = max(captured - left, _FLOOR)
        margin_db = 10.0 * math.log10(max(left, _FLOOR) / removed) - _LEAK_DB
        hides = quiet_frames <= _ECHO_HIDES_FRAMES
        return EchoEvidence(round(margin_db, 1), delay_ms, hides)

    def _hold_back(self, played: Int16) -> Int16:
        """Delay the reference where the echo comes later than AEC3 looks for it."""
        self._recent.appendleft(played)
        delay_ms = self._delay.delay_ms
        if delay_ms is not None:
            left_ms = delay_ms - self._back * FRAME_MS
            if not _KEPT_MS / 2 <= left_ms <= _REACH_MS:
                late = delay_ms > _REACH_MS
                self._back = round((delay_ms - _KEPT_MS) / FRAME_MS) if late else 0
        return self._recent[min(self._back, len(self._recent) - 1)]


class Cleaner:
    """Noise suppression and gain control without a canceller.

    Raises:
        MissingDependencyError: `pywebrtc-audio` is not installed.
    """

    def __init__(self, *, noise_suppression: bool, gain_control: bool) -> None:
        self._native = load_processor(
            echo=False, noise_suppression=noise_suppression, gain_control=gain_control
        )

    def process(self, captured: Int16, played: Int16) -> Int16:
        """Return ``captured`` cleaned; what was played does not matter."""
        del played
        cleaned: Int16 = self._native.process(captured)
        return cleaned

    def evidence(self) -> EchoEvidence | None:
        """Return None: nothing is known of an echo."""
        return None


def _level(samples: Int16) -> float:
    """Mean square after a pre-emphasis: hum, which AEC3 filters out, is no echo."""
    x = samples.astype(np.float32)
    emphasised = x[1:] - _EMPHASIS * x[:-1]
    return float(np.dot(emphasised, emphasised)) / emphasised.size
