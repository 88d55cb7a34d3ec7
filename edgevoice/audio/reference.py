"""The echo canceller's reference: what the speaker was playing while a frame was captured.

Owns lining up two clocks. Speakers pull blocks of uneven length, the microphone delivers frames
late and in bursts, and their clocks drift apart (100 ppm is 6 ms a minute). A canceller bears any
constant delay, and none that jumps; so the reference is read *in sequence*, one frame for each
captured frame, and is moved against the microphone only where nobody hears it: in silence.
How long the echo takes is the canceller's business.
"""

from __future__ import annotations

import time
from typing import Protocol

import numpy as np

from edgevoice.audio.playout import Playout
from edgevoice.frames import FRAME_MS, FRAME_SAMPLES, SAMPLE_RATE_HZ, Frame, Int16, ms_to_samples
from edgevoice.stages import Sink

_LEAST_SPARE, _MOST_SPARE = ms_to_samples(20), ms_to_samples(60)
"""The reader keeps so far behind the speaker, so that it need not wait in the middle of an answer:
20 ms are three minutes of drift at 100 ppm, and each wait (a busy machine pulls late) makes it
10 ms more. Not beyond the 60 ms that devices and air take: an echo must not come before its
reference."""

_WINDOW_FRAMES = 200
"""How far behind the reader really is shows over 2 s, since speakers pull in blocks."""

_HELD_SAMPLES = 2 * SAMPLE_RATE_HZ - ms_to_samples(100)
"""A reader that falls further behind than a playout remembers has lost its place."""


class Reference(Protocol):
    """Gives one frame of reference for each captured frame."""

    def read(self, frame: Frame) -> Int16:
        """Return what was played at ``frame``: int16, shape ``[FRAME_SAMPLES]``."""
        ...


def reference_of(sink: Sink) -> Reference:
    """Return the reference of a real-time ``sink``; silence for one without a playout."""
    playout = getattr(sink, "playout", None)
    return PlayedReference(playout) if isinstance(playout, Playout) else NoReference()


class NoReference:
    """Of a sink that does not tell what it plays."""

    def read(self, frame: Frame) -> Int16:
        """Return silence."""
        del frame
        return np.zeros(FRAME_SAMPLES, dtype=np.int16)


class SteppedReference:
    """Of a sink whose clock the session moves: its last frame is the microphone's frame."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def read(self, frame: Frame) -> Int16:
        """Return what was played in the last step."""
        del frame
        played = getattr(self._sink, "last_played", None)
        if played is None:
            return np.zeros(FRAME_SAMPLES, dtype=np.int16)
        reference: Int16 = played(FRAME_SAMPLES)
        return reference


class PlayedReference:
    """Follows a playout that a device pulls from by its own clock."""

    def __init__(self, playout: Playout) -> None:
        self._playout = playout
        self._position: int | None = None
        self._next_seq = 0
        self._least_behind: int | None = None
        self._frames = 0
        self._silent_frames = 0
        self._spare = _LEAST_SPARE

    def read(self, frame: Frame) -> Int16:
        """Return what was played at ``frame``."""
        given_out = self._playout.given_out()
        if self._position is None:
            self._position = given_out - self._late(frame) - FRAME_SAMPLES
        elif frame.seq > self._next_seq:
            self._position += (frame.seq - self._next_seq) * FRAME_SAMPLES  # frames were lost
        self._next_seq = frame.seq + 1
        behind = given_out - self._position
        if not 0 <= behind <= _HELD_SAMPLES:
            # Audio that the speaker was told to drop, or a session that stood still for seconds.
            self._position = min(given_out, given_out - self._late(frame) - FRAME_SAMPLES)
            behind = given_out - self._position
            self._forget()
        if behind < FRAME_SAMPLES:
            # The speaker has not pulled that far: to wait for it keeps the order of the frames.
            self._spare = min(self._spare + FRAME_SAMPLES, _MOST_SPARE)
            self._forget()
            return np.zeros(FRAME_SAMPLES, dtype=np.int16)
        played = self._playout.excerpt(self._position, FRAME_SAMPLES)
        self._position += FRAME_SAMPLES
        self._watch(behind - self._late(frame) - FRAME_SAMPLES, bool(played.any()))
        return played

    def _watch(self, behind: int, sounding: bool) -> None:
        least = self._least_behind
        self._least_behind = behind if least is None else min(least, behind)
        self._frames += 1
        self._silent_frames = 0 if sounding else self._silent_frames + 1
        if self._frames < _WINDOW_FRAMES:
            return
        excess = self._least_behind - self._spare
        # All that is left to read must be silent too, or a move would cut into a word.
        if self._silent_frames * FRAME_MS >= 500 and self._position is not None:
            ahead = self._playout.excerpt(self._position, max(0, behind))
            if abs(excess) > _LEAST_SPARE // 2 and not ahead.any():
                self._position += excess
        self._forget()

    def _forget(self) -> None:
        self._least_behind = None
        self._frames = 0

    def _late(self, frame: Frame) -> int:
        """Samples that the speaker may have pulled since the frame's capture."""
        return max(0, (time.monotonic_ns() - frame.captured_ns) * SAMPLE_RATE_HZ // 1_000_000_000)
