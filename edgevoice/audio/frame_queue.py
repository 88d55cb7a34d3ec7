"""The bounded queue between a port's callback and the session that reads frames.

Owns cutting blocks of any length into 10 ms frames, numbering and time-stamping them, and what
happens when nobody reads in time: the oldest frame is dropped and counted. Leaves capturing,
and conversion to mono 16 kHz int16, to the ports.
"""

from __future__ import annotations

import threading
from collections import deque

import numpy as np

from edgevoice.errors import AudioError
from edgevoice.frames import FRAME_MS, FRAME_SAMPLES, SAMPLE_RATE_HZ, Frame, Int16

_NS_PER_SAMPLE = 1_000_000_000 // SAMPLE_RATE_HZ


class FrameQueue:
    """Frames on their way from one capturing thread to one reading thread.

    Args:
        capacity_ms: Audio that may wait; beyond it the oldest frame goes.
    """

    def __init__(self, capacity_ms: float = 2000.0) -> None:
        self._capacity = max(1, int(capacity_ms // FRAME_MS))
        self._frames: deque[Frame] = deque()
        self._rest: Int16 = np.zeros(0, dtype=np.int16)
        self._rest_end_ns = 0
        self._seq = 0
        self._dropped = 0
        self._closed = False
        self._error: AudioError | None = None
        self._changed = threading.Condition()

    @property
    def dropped_frames(self) -> int:
        """Frames that were captured and never read."""
        return self._dropped

    @property
    def queued_ms(self) -> float:
        """Audio that waits to be read."""
        return len(self._frames) * float(FRAME_MS)

    def push(self, samples: Int16, captured_ns: int) -> None:
        """Append mono 16 kHz int16 of any length; never blocks.

        Args:
            samples: Shape ``[n]``; copied, so a port may reuse its buffer.
            captured_ns: ``time.monotonic_ns()`` at the end of this block's capture.
        """
        with self._changed:
            if self._closed:
                return
            block: Int16 = np.concatenate((self._rest, samples))
            whole = len(block) - len(block) % FRAME_SAMPLES
            for end in range(FRAME_SAMPLES, whole + 1, FRAME_SAMPLES):
                ended_ns = captured_ns - (len(block) - end) * _NS_PER_SAMPLE
                self._append(block[end - FRAME_SAMPLES : end], ended_ns)
            self._rest = block[whole:]
            self._rest_end_ns = captured_ns
            if whole:
                self._changed.notify()

    def _append(self, samples: Int16, ended_ns: int) -> None:
        if len(self._frames) == self._capacity:
            self._frames.popleft()
            self._dropped += 1
        self._frames.append(Frame(self._seq, ended_ns, samples))
        self._seq += 1

    def read(self, timeout_s: float) -> Frame | None:
        """Return the next frame, or None when none came within ``timeout_s``.

        Raises:
            AudioError: What :meth:`fail` was given; once, after the frames that were left.
            EOFError: The queue was closed (or has failed) and everything was read.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self._closed, timeout_s)
            if self._frames:
                return self._frames.popleft()
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            if self._closed:
                raise EOFError("the audio source has ended")
            return None

    def close(self) -> None:
        """End the stream: what is queued can still be read, a last part frame zero-filled."""
        self._end(None)

    def fail(self, error: AudioError) -> None:
        """End the stream with an error; only the first end counts."""
        self._end(error)

    def _end(self, error: AudioError | None) -> None:
        with self._changed:
            if self._closed:
                return
            if len(self._rest):
                missing = FRAME_SAMPLES - len(self._rest)
                self._append(np.pad(self._rest, (0, missing)), self._rest_end_ns)
                self._rest = self._rest[:0]
            self._closed = True
            self._error = error
            self._changed.notify_all()
