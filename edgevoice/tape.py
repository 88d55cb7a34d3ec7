"""Keeps one conversation on disk while it goes on: both voices, events, evidence and settings.

A tape is a folder::

    settings.toml   what `config show` prints
    user.wav        the microphone as it came, before any canceller (16 kHz, 16-bit PCM)
    agent.wav       what the speaker played, sample for sample beside user.wav
    events.jsonl    one object a line, see :func:`entry`

It can be cut off anywhere (a crash, a flat battery): samples and lines are written as they come,
half a second late at most, and a WAV's header gives no length until the end, which readers take
as "until the file ends". Writing happens on a thread of its own; a disk that is too slow, or full,
ends the tape with one line and never the conversation. Where tapes lie, and how many, is
:mod:`edgevoice.tapes`' business; how they are read, :mod:`edgevoice.replay`'s.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import logging
import queue
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from edgevoice import config
from edgevoice.errors import AudioError
from edgevoice.events import Event, Notice
from edgevoice.frames import FRAME_MS, FRAME_SAMPLES, SAMPLE_RATE_HZ, Frame, Int16
from edgevoice.settings import Settings

SETTINGS, USER, AGENT, EVENTS = "settings.toml", "user.wav", "agent.wav", "events.jsonl"

_HEADER_BYTES = 44
_UNKNOWN = 0xFFFFFFFF
_FLUSH_FRAMES = 50
_BACKLOG = 3000
"""Frames and lines that may wait for the disk: 30 s, 2 MB."""

_LONGEST_GAP_FRAMES = 6000
_CLOSE_TIMEOUT_S = 5.0

log = logging.getLogger("edgevoice.tape")


def entry(what: Event | Notice, heard_ms: float) -> dict[str, Any]:
    """Return the line of an event or a notice.

    ``kind`` is the class, ``heard_ms`` the position on both tracks, the rest its fields.
    """
    return {"kind": type(what).__name__, "heard_ms": heard_ms, **dataclasses.asdict(what)}


class Tape:
    """Writes one tape. Made and used on the session's thread.

    Args:
        folder: Empty; the tape's own.
        settings: Of the conversation.
        has_room: Asked now and then with the bytes that were written; False ends the tape.

    Raises:
        AudioError: The folder cannot be written.
    """

    def __init__(
        self, folder: Path, settings: Settings, has_room: Callable[[int], bool] = lambda _: True
    ) -> None:
        self.folder = folder
        self._has_room = has_room
        try:
            self._user = _open(folder / USER)
            self._agent = _open(folder / AGENT)
            self._events = (folder / EVENTS).open("wb", buffering=0)
            # Whoever makes room must not take this tape; the lock ends with the process.
            fcntl.flock(self._user, fcntl.LOCK_EX)
            (folder / SETTINGS).write_text(config.to_toml(settings), encoding="utf-8")
        except OSError as error:
            raise AudioError(f"cannot record into {folder}: {error.strerror}") from error
        self._frames = 0
        self._next_seq: int | None = None
        self._waiting: queue.Queue[tuple[Int16, Int16] | bytes | None] = queue.Queue(_BACKLOG)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._write_all, name="edgevoice-tape", daemon=True)
        self._thread.start()

    def hear(self, frame: Frame, played: Int16) -> None:
        """Keep a captured frame and what was played at it. Lost frames are kept as silence."""
        lost = 0 if self._next_seq is None else frame.seq - self._next_seq
        self._next_seq = frame.seq + 1
        silence = np.zeros(FRAME_SAMPLES, dtype=np.int16)
        for _ in range(min(max(0, lost), _LONGEST_GAP_FRAMES)):
            self._put((silence, silence))
        self._put((frame.samples, played))
        self._frames += 1 + max(0, lost)

    def note(self, what: Event | Notice) -> None:
        """Keep an event that the machine saw, or a notice that watchers got."""
        line = json.dumps(entry(what, self._frames * float(FRAME_MS)), ensure_ascii=False)
        self._put(f"{line}\n".encode())

    def close(self) -> None:
        """Write what waits and complete the headers."""
        if not self._over.is_set():
            self._waiting.put(None)
        self._thread.join(_CLOSE_TIMEOUT_S)

    def _put(self, item: tuple[Int16, Int16] | bytes) -> None:
        if self._over.is_set():
            return
        try:
            self._waiting.put_nowait(item)
        except queue.Full:
            self._end("the disk is too slow")

    def _end(self, why: str) -> None:
        if not self._over.is_set():
            log.warning("recording %s ends here: %s", self.folder, why)
            self._over.set()

    # ---------------------------------------------------------------- on the writer's thread

    def _write_all(self) -> None:
        frames: list[tuple[Int16, Int16]] = []
        written = 0
        try:
            while not self._over.is_set() and (item := self._waiting.get()) is not None:
                if isinstance(item, bytes):
                    self._events.write(item)
                    written += len(item)
                    continue
                frames.append(item)
                if len(frames) >= _FLUSH_FRAMES:
                    written += self._write_audio(frames)
                    if not self._has_room(written):
                        self._end("recording.max_mb is reached")
            self._write_audio(frames)
            _complete(self._user)
            _complete(self._agent)
        except OSError as error:
            self._end(error.strerror or str(error))
        finally:
            self._over.set()
            for file in (self._agent, self._events, self._user):
                file.close()

    def _write_audio(self, frames: list[tuple[Int16, Int16]]) -> int:
        count = 0
        for file, track in ((self._user, 0), (self._agent, 1)):
            if frames:
                count += file.write(b"".join(f[track].astype("<i2").tobytes() for f in frames))
        frames.clear()
        return count


def _open(path: Path) -> IO[bytes]:
    file = path.open("wb", buffering=0)
    file.write(_header(_UNKNOWN))
    return file


def _complete(file: IO[bytes]) -> None:
    size = file.tell() - _HEADER_BYTES
    file.seek(0)
    file.write(_header(size))


def _header(size: int) -> bytes:
    """Return the header of a mono 16-bit WAV of ``size`` bytes of audio."""
    whole = size if size == _UNKNOWN else 36 + size
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF", whole, b"WAVE",
        b"fmt ", 16, 1, 1, SAMPLE_RATE_HZ, 2 * SAMPLE_RATE_HZ, 2, 16,
        b"data", size,
    )  # fmt: skip
