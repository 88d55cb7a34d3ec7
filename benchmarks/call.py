"""A caller of the daemon in real time: speaks when told, plays what comes, and notes when.

The microphone never pauses (silence and a little noise between utterances). What comes is played
as a client plays it: in order, at once, and no more of it after a `clear`. All times are
milliseconds since the call began; the user's are those of the sound, not of its sending.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from edgevoice.frames import FRAME_MS, FRAME_SAMPLES, SAMPLE_RATE_HZ, Float32, Int16, to_int16

NOISE_RMS = 0.0003
_FRAME_S = FRAME_MS / 1000.0


@dataclass(frozen=True, slots=True)
class Note:
    """A JSON message of the daemon."""

    at_ms: float
    type: str
    body: dict[str, Any]


@dataclass(slots=True)
class Chunk:
    """Agent's audio: when it came, and when it sounds."""

    came_ms: float
    begin_ms: float
    samples: Int16

    @property
    def end_ms(self) -> float:
        return self.begin_ms + 1000.0 * self.samples.size / SAMPLE_RATE_HZ


class Call:
    """One conversation; a context manager."""

    def __init__(self, url: str) -> None:
        self._connection = connect(url, compression=None, max_size=None, close_timeout=1.0)
        self._random = np.random.default_rng(1)
        self._lock = threading.Condition()
        self._to_say: list[Int16] = []
        self._said_frames = 0
        self._began = time.monotonic()
        self._ended = threading.Event()
        self.notes: list[Note] = []
        self.chunks: list[Chunk] = []
        self._threads = [
            threading.Thread(target=work, daemon=True) for work in (self._send, self._receive)
        ]

    def __enter__(self) -> Call:
        for thread in self._threads:
            thread.start()
        self.wait_for("ready", timeout_s=30.0)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._connection.close()
        for thread in self._threads:
            thread.join(5.0)

    @property
    def now_ms(self) -> float:
        return (time.monotonic() - self._began) * 1000.0

    def say(self, samples: Float32) -> tuple[float, float]:
        """Begin to say ``samples`` (16 kHz); return when the first and the last of them sound."""
        pcm = to_int16(samples)
        whole = np.pad(pcm, (0, -pcm.size % FRAME_SAMPLES))
        with self._lock:
            begin_ms = (self._said_frames + len(self._to_say)) * FRAME_MS
            self._to_say += np.split(whole, whole.size // FRAME_SAMPLES)
        return begin_ms, begin_ms + 1000.0 * pcm.size / SAMPLE_RATE_HZ

    def wait(self, until_ms: float) -> None:
        """Let time pass."""
        self._ended.wait(max(0.0, (until_ms - self.now_ms) / 1000.0))

    def wait_until(self, met: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until ``met``, which is asked whenever something came, and every 20 ms."""
        end = time.monotonic() + timeout_s
        with self._lock:
            while not met():
                if time.monotonic() > end or self._ended.is_set():
                    return False
                self._lock.wait(0.02)
        return True

    def wait_for(self, kind: str, *, timeout_s: float, since_ms: float = -1.0, **body: Any) -> bool:
        return self.wait_until(
            lambda: self.first(kind, since_ms=since_ms, **body) is not None, timeout_s
        )

    def first(self, kind: str, *, since_ms: float = -1.0, **body: Any) -> Note | None:
        """Return the first message of a kind, and with these fields, that came after a time."""
        return next(iter(self.all(kind, since_ms=since_ms, **body)), None)

    def all(self, kind: str, *, since_ms: float = -1.0, **body: Any) -> list[Note]:
        return [
            note
            for note in list(self.notes)
            if note.type == kind
            and note.at_ms >= since_ms
            and all(note.body.get(key) == value for key, value in body.items())
        ]

    def hang_up(self) -> None:
        """End the conversation; what the daemon has to say of it still comes."""
        if not self.all("state"):
            return  # The cascade says nothing.
        with contextlib.suppress(ConnectionClosed):
            self._connection.send(json.dumps({"type": "stop"}))
        self._threads[1].join(3.0)

    @property
    def sounding(self) -> bool:
        """Whether the agent's voice is being played."""
        return bool(self.chunks) and self.chunks[-1].end_ms > self.now_ms

    def first_sound_ms(self, since_ms: float) -> float | None:
        """When the agent's voice is first heard after a time."""
        for chunk in list(self.chunks):
            if chunk.end_ms <= since_ms:
                continue
            loud = np.flatnonzero(np.abs(chunk.samples) > 150)
            at = [chunk.begin_ms + 1000.0 * i / SAMPLE_RATE_HZ for i in loud]
            if heard := [ms for ms in at if ms >= since_ms]:
                return heard[0]
        return None

    def played(self) -> Int16:
        """Return what was played since the call began."""
        end_ms = max((chunk.end_ms for chunk in self.chunks), default=0.0)
        track = np.zeros(round(end_ms * SAMPLE_RATE_HZ / 1000.0) + FRAME_SAMPLES, np.int16)
        for chunk in self.chunks:
            at = round(chunk.begin_ms * SAMPLE_RATE_HZ / 1000.0)
            track[at : at + chunk.samples.size] = chunk.samples
        return track

    def _send(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            while not self._ended.is_set():
                due = self._began + (self._said_frames + 1) * _FRAME_S
                if (left := due - time.monotonic()) > 0:
                    time.sleep(left)
                noise = self._random.normal(0.0, NOISE_RMS, FRAME_SAMPLES).astype(np.float32)
                frame = to_int16(noise)
                with self._lock:
                    if self._to_say:
                        frame = frame + self._to_say.pop(0)
                    self._said_frames += 1
                self._connection.send(frame.astype("<i2").tobytes())

    def _receive(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            for message in self._connection:
                now_ms = self.now_ms
                with self._lock:
                    if isinstance(message, bytes):
                        before_ms = self.chunks[-1].end_ms if self.chunks else 0.0
                        samples = np.frombuffer(message, "<i2")
                        self.chunks.append(Chunk(now_ms, max(now_ms, before_ms), samples))
                    else:
                        body = json.loads(message)
                        if body["type"] == "clear":
                            self._clear(now_ms)
                        self.notes.append(Note(now_ms, body["type"], body))
                    self._lock.notify_all()

    def _clear(self, now_ms: float) -> None:
        for chunk in self.chunks:
            kept = round(max(0.0, now_ms - chunk.begin_ms) * SAMPLE_RATE_HZ / 1000.0)
            chunk.samples = chunk.samples[:kept]
