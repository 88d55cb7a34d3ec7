"""Recordings as ports: a WAV file that speaks as the user, and one that keeps the agent's answer.

Owns the pace. In "realtime" both follow the monotonic clock, as a sound card would, without
drift. In "fast" nothing sleeps: the session drives both in lock-step, one
:meth:`WavSource.read`, then :meth:`WavSink.advance` by one frame; time is then the count of
samples.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Literal

import numpy as np

from edgevoice.audio.playout import Playout, PlayoutSink
from edgevoice.audio.resample import resample
from edgevoice.audio.wav import read_wav, write_wav
from edgevoice.errors import AudioError
from edgevoice.frames import FRAME_MS, FRAME_SAMPLES, SAMPLE_RATE_HZ, Frame, Int16, to_int16

Pace = Literal["realtime", "fast"]
_FRAME_NS = FRAME_MS * 1_000_000
_FAST_CAPACITY_S = 600.0  # nothing pulls while the one thread of a lock-step session writes


class WavSource:
    """Plays a recording into the session as if it came from a microphone.

    Frames carry the time at which a microphone would have delivered them: start plus 10 ms a
    frame, in both paces. A reader that comes late gets every frame, late; none is dropped.

    Args:
        samples: Mono 16 kHz int16, shape ``[n]``.
        pace: "realtime", or "fast" (:meth:`read` never sleeps).
        tail_s: Silence after the recording, then :class:`EOFError`; None is endless silence,
            until :meth:`stop`.
    """

    def __init__(
        self, samples: Int16, pace: Pace = "realtime", tail_s: float | None = None
    ) -> None:
        self._samples: Int16 = np.asarray(samples, dtype=np.int16)
        self._pace = pace
        self._tail = None if tail_s is None else round(tail_s * SAMPLE_RATE_HZ)
        self._at = 0
        self._start_ns = 0
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    @classmethod
    def open(cls, path: Path, pace: Pace = "realtime", tail_s: float | None = None) -> WavSource:
        """Read a WAV file of any rate. Raises :class:`AudioError` with one line."""
        samples, rate_hz = read_wav(path)
        return cls(to_int16(resample(samples, rate_hz, SAMPLE_RATE_HZ)), pace, tail_s)

    @property
    def dropped_frames(self) -> int:
        """Always 0: a file can wait."""
        return 0

    @property
    def delivered_samples(self) -> int:
        """Position on the recording's time axis, silence included."""
        return self._at

    def remaining_samples(self) -> int:
        """Samples of the recording that were not read yet (the tail is not counted)."""
        with self._lock:
            return max(0, len(self._samples) - self._at)

    def append(self, samples: Int16) -> None:
        """Say more: after the recording, or from the next frame where that is over already."""
        with self._lock:
            gap = max(0, self._at - len(self._samples))
            self._samples = np.concatenate(
                (self._samples, np.zeros(gap, dtype=np.int16), samples), dtype=np.int16
            )

    def start(self) -> None:
        """Start the recording's clock."""
        self._start_ns = time.monotonic_ns()

    def read(self, timeout_s: float) -> Frame | None:
        """Return the next frame when it is due; see :meth:`edgevoice.stages.Source.read`."""
        due_ns = self._start_ns + (self._at // FRAME_SAMPLES + 1) * _FRAME_NS
        if self._pace == "realtime":
            wait_s = (due_ns - time.monotonic_ns()) / 1e9
            if wait_s > 0:
                self._stopped.wait(min(wait_s, timeout_s))
                if wait_s > timeout_s and not self._stopped.is_set():
                    return None
        with self._lock:
            end = None if self._tail is None else len(self._samples) + self._tail
            if self._stopped.is_set() or (end is not None and self._at >= end):
                raise EOFError("the recording has ended")
            part = self._samples[self._at : self._at + FRAME_SAMPLES]
            frame = np.zeros(FRAME_SAMPLES, dtype=np.int16)
            frame[: len(part)] = part
            self._at += FRAME_SAMPLES
        return Frame(self._at // FRAME_SAMPLES - 1, due_ns, frame)

    def stop(self) -> None:
        """End the stream; a waiting reader wakes with :class:`EOFError`."""
        self._stopped.set()


class WavSink(PlayoutSink):
    """Records what was played, with silence where nothing was, from :meth:`start` on.

    Started together with its :class:`WavSource`, the recording has the question's time axis.

    Args:
        path: Where :meth:`stop` writes the recording; None keeps it in memory alone.
        pace: "realtime" plays by a thread of its own, "fast" only by :meth:`advance`.
    """

    def __init__(self, path: Path | None, pace: Pace = "realtime") -> None:
        super().__init__(Playout(_FAST_CAPACITY_S) if pace == "fast" else Playout())
        self._path = path
        self._pace = pace
        self._recorded = bytearray()
        self._recording = threading.Lock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin the recording. Raises :class:`AudioError` where its folder does not exist."""
        if self._path is not None and not self._path.absolute().parent.is_dir():
            raise AudioError(f"cannot write {self._path}: no folder {self._path.parent}")
        if self._pace == "realtime":
            self._thread = threading.Thread(target=self._play, name="wav-sink", daemon=True)
            self._thread.start()

    def _play(self) -> None:
        began_ns = time.monotonic_ns()
        frames = 0
        while True:
            due_ns = began_ns + (frames + 1) * _FRAME_NS
            if self._stopped.wait(max(0, due_ns - time.monotonic_ns()) / 1e9):
                return
            self._record(FRAME_SAMPLES)
            frames += 1

    def advance(self, samples: int) -> None:
        """Play for ``samples`` of time. For the fast pace."""
        if self._pace != "fast":
            raise ValueError("advance() belongs to pace='fast'; this sink plays by its own clock")
        self._record(samples)

    def _record(self, count: int) -> None:
        with self._recording:
            self._recorded += self.playout.pull(count).tobytes()

    def recording(self) -> Int16:
        """Return what was played so far: int16, 16 kHz, shape ``[n]``."""
        with self._recording:
            return np.frombuffer(bytes(self._recorded), dtype=np.int16)

    def stop(self) -> None:
        """End the recording and write it. Raises :class:`AudioError` if it cannot be written."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        self.playout.close()
        if self._thread is not None:
            self._thread.join()
        if self._path is not None:
            write_wav(self._path, self.recording(), SAMPLE_RATE_HZ)
