"""Keeps both voices and the notices of one conversation, for a report or a WAV file.

:class:`RecordedSource` and :class:`RecordedSink` stand between a session and its ports and change
nothing that passes. Memory is bounded: what comes after the limit is left out, and the record
says so. What a record looks like as a page is :mod:`edgevoice.report`'s business.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edgevoice.events import Notice
from edgevoice.frames import (
    FRAME_MS,
    Frame,
    Int16,
    ms_to_samples,
    samples_to_ms,
)
from edgevoice.stages import Sink, Source

DEFAULT_LIMIT_S = 15 * 60.0
"""Both voices take 58 MB then."""

_NOTICE_LIMIT = 20_000
_REAL_TIME_SLACK_MS = 120.0
_LOCK_STEP_SLACK_MS = FRAME_MS - 0.1
"""Less than a frame: the end of what was queued fills only the first part of one."""


class SteppedSink(Sink, Protocol):
    """A sink whose clock the session moves."""

    def advance(self, samples: int) -> None:
        """Let ``samples`` of time pass at the speaker."""
        ...


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """What happened in one conversation.

    Attributes:
        user: The microphone, int16, mono, 16 kHz, shape ``[n]``; sample 0 is the session's time 0.
        agent: What the speaker played, on the same time axis, shape ``[m]``.
        notices: Everything that the session told its watcher, in order.
        truncated: The conversation went on after the limit.
        lock_step: It was not held in real time, and the models' own time is in no span.
    """

    user: Int16
    agent: Int16
    notices: tuple[Notice, ...]
    truncated: bool
    lock_step: bool = False

    @property
    def duration_ms(self) -> float:
        """Length of the longer voice."""
        return samples_to_ms(max(self.user.size, self.agent.size))


class Track:
    """Samples on the session's time axis, with silence where nothing was placed.

    Args:
        limit_ms: Where the track ends at the latest.
        slack_ms: A chunk that comes closer than this to the end of the last one continues it.
            Ports hand over and report whole blocks, unevenly, with no silence in between.
    """

    def __init__(self, limit_ms: float, slack_ms: float) -> None:
        self._limit = ms_to_samples(limit_ms)
        self._slack = ms_to_samples(slack_ms)
        self._chunks: list[Int16] = []
        self._end = 0
        self.truncated = False

    def place(self, samples: Int16, end_ms: float) -> None:
        """Put ``samples`` (int16, shape ``[n]``; copied) where they end at ``end_ms``."""
        gap = ms_to_samples(end_ms) - samples.size - self._end
        if gap > self._slack:
            self._append(np.zeros(min(gap, self._limit), dtype=np.int16))
        self._append(samples.copy())

    def samples(self) -> Int16:
        """Return the track from time 0 on: int16, shape ``[n]``."""
        return np.concatenate([np.zeros(0, dtype=np.int16), *self._chunks])

    def _append(self, samples: Int16) -> None:
        room = self._limit - self._end
        self.truncated = self.truncated or samples.size > room
        kept = samples[:room]
        self._chunks.append(kept)
        self._end += kept.size


class RecordedSource:
    """A source whose frames are kept. See :class:`edgevoice.stages.Source`.

    It also is the clock by which the sink is asked what it has played, ``each_frame``.
    """

    def __init__(self, source: Source, track: Track, each_frame: Callable[[], object]) -> None:
        self._source = source
        self._track = track
        self._each_frame = each_frame
        self._started_ns = 0

    @property
    def dropped_frames(self) -> int:
        """Frames lost since the start."""
        return self._source.dropped_frames

    def start(self) -> None:
        """Begin to capture."""
        self._source.start()
        self._started_ns = time.monotonic_ns()

    def read(self, timeout_s: float) -> Frame | None:
        """Return the next frame; it was kept."""
        frame = self._source.read(timeout_s)
        if frame is not None:
            self._track.place(frame.samples, self._end_ms(frame))
            self._each_frame()
        return frame

    def stop(self) -> None:
        """Release the device."""
        self._source.stop()

    def _end_ms(self, frame: Frame) -> float:
        return (frame.captured_ns - self._started_ns) / 1e6


class _SteppedSource(RecordedSource):
    """In lock step the clock is the count of frames."""

    def _end_ms(self, frame: Frame) -> float:
        return (frame.seq + 1) * float(FRAME_MS)


class RecordedSink:
    """A sink of which is kept what was *played*. See :class:`edgevoice.stages.Sink`.

    What was written waits here until the sink's count of played samples covers it.
    """

    def __init__(self, sink: Sink, track: Track) -> None:
        self._sink = sink
        self._track = track
        self._written: deque[Int16] = deque()
        self._kept = 0
        self._lock = threading.Lock()
        self._started_ns = 0

    def start(self) -> None:
        """Open the device."""
        self._sink.start()
        self._started_ns = time.monotonic_ns()

    def write(self, samples: Int16) -> None:
        """Queue samples for playing."""
        with self._lock:
            self._written.append(samples)
        self._sink.write(samples)

    def played_samples(self) -> int:
        """Samples that have left the speaker; they are kept as soon as that is known."""
        with self._lock:
            played = self._sink.played_samples()
            self._keep(played)
            return played

    def pending_samples(self) -> int:
        """Samples queued and not yet played."""
        return self._sink.pending_samples()

    def last_played(self, count: int) -> Int16:
        """Return the echo canceller's reference; silence where the sink knows none."""
        played = getattr(self._sink, "last_played", None)
        if played is None:
            return np.zeros(count, dtype=np.int16)
        reference: Int16 = played(count)
        return reference

    @property
    def playout(self) -> object:
        """The wrapped sink's buffer, None where it has none."""
        return getattr(self._sink, "playout", None)

    def clear(self) -> int:
        """Drop what is queued, fall silent at once; return how many samples were dropped."""
        with self._lock:
            dropped = self._sink.clear()
            remaining = dropped
            while remaining and self._written:
                chunk = self._written.pop()
                if chunk.size > remaining:
                    self._written.append(chunk[: chunk.size - remaining])
                    break
                remaining -= chunk.size
            return dropped

    def stop(self) -> None:
        """Keep what was played to the last, and release the device."""
        self.played_samples()
        self._sink.stop()

    def _keep(self, played: int) -> None:
        new = played - self._kept
        parts: list[Int16] = []
        while new > 0 and self._written:
            chunk = self._written.popleft()
            part = chunk[:new]
            if part.size < chunk.size:
                self._written.appendleft(chunk[part.size :])
            parts.append(part)
            new -= part.size
        self._kept = played
        if parts:
            self._track.place(np.concatenate(parts), self._now_ms())

    def _now_ms(self) -> float:
        return (time.monotonic_ns() - self._started_ns) / 1e6


class RecordedSteppedSink(RecordedSink):
    """A recorded sink whose clock the session moves."""

    def __init__(self, sink: SteppedSink, track: Track) -> None:
        super().__init__(sink, track)
        self._stepped = sink
        self._advanced = 0

    def advance(self, samples: int) -> None:
        """Let ``samples`` of time pass at the speaker."""
        self._stepped.advance(samples)
        self._advanced += samples
        self.played_samples()

    def _now_ms(self) -> float:
        return samples_to_ms(self._advanced)


class Recorder:
    """Collects one conversation: give its :meth:`watch` and wrapped ports to a session.

    Args:
        limit_s: Audio of each voice that is kept.
    """

    def __init__(self, limit_s: float = DEFAULT_LIMIT_S) -> None:
        self._limit_ms = limit_s * 1000.0
        self._tracks: tuple[Track, Track] | None = None
        self._notices: list[Notice] = []
        self._notices_left_out = False
        self._lock_step = False

    def watch(self, notice: Notice) -> None:
        """Keep a notice."""
        if len(self._notices) < _NOTICE_LIMIT:
            self._notices.append(notice)
        else:
            self._notices_left_out = True

    def real_time_ports(self, source: Source, sink: Sink) -> tuple[Source, Sink]:
        """Wrap ports that follow the wall's clock."""
        user, agent = self._new_tracks(_REAL_TIME_SLACK_MS)
        recorded = RecordedSink(sink, agent)
        return RecordedSource(source, user, recorded.played_samples), recorded

    def lock_step_ports(self, source: Source, sink: SteppedSink) -> tuple[Source, SteppedSink]:
        """Wrap ports whose clock the session moves."""
        self._lock_step = True
        user, agent = self._new_tracks(_LOCK_STEP_SLACK_MS)
        recorded = RecordedSteppedSink(sink, agent)
        return _SteppedSource(source, user, recorded.played_samples), recorded

    def record(self) -> SessionRecord:
        """Return what was kept so far."""
        if self._tracks is None:
            nothing = np.zeros(0, dtype=np.int16)
            return SessionRecord(nothing, nothing, tuple(self._notices), self._notices_left_out)
        user, agent = self._tracks
        return SessionRecord(
            user.samples(),
            agent.samples(),
            tuple(self._notices),
            user.truncated or agent.truncated or self._notices_left_out,
            self._lock_step,
        )

    def _new_tracks(self, slack_ms: float) -> tuple[Track, Track]:
        self._tracks = Track(self._limit_ms, slack_ms), Track(self._limit_ms, slack_ms)
        return self._tracks
