"""A folder of tapes: gives each conversation a new one, and keeps the folder below its cap.

The oldest tapes make room for new ones. A tape that is being written (by any process) is never
taken, nor is anything in the folder that is not a tape.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import itertools
import logging
import re
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from edgevoice.audio.echo import Aec3Canceller
from edgevoice.errors import AudioError
from edgevoice.settings import Settings
from edgevoice.stages import EchoCanceller
from edgevoice.tape import SETTINGS, USER, Tape

_NAME = re.compile(r"\d{8}-\d{6}(-\d+)?")
_LEAST_BYTES = 4_000_000
"""A new tape begins with room for a minute."""

_CHECKED_EVERY_BYTES = 1_000_000

log = logging.getLogger("edgevoice.tape")


class Tapes:
    """The tapes in one folder.

    Args:
        folder: Made when the first tape is.
        settings: Kept with each tape; ``recording.max_mb`` is the cap.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        self._folder = folder
        self._settings = settings
        self._limit = settings.recording.max_mb * 1_000_000

    def begin(self, canceller: EchoCanceller | None) -> Tape:
        """Start a tape of a conversation that begins now.

        Its settings say which ``canceller`` there really was, where they left it to the ports.

        Raises:
            AudioError: The folder cannot be written, or tapes that are being written fill it.
        """
        if not self._make_room(min(_LEAST_BYTES, self._limit // 2)):
            raise AudioError(
                f"no room to record: {self._folder} holds recording.max_mb = "
                f"{self._settings.recording.max_mb} MB already; raise it, or wait for other calls"
            )
        used = "aec3" if isinstance(canceller, Aec3Canceller) else "none"
        audio = dataclasses.replace(self._settings.audio, canceller=used)
        settings = dataclasses.replace(self._settings, audio=audio)
        name = f"{datetime.now():%Y%m%d-%H%M%S}"
        for number in itertools.count(1):
            path = self._folder / (name if number == 1 else f"{name}-{number}")
            try:
                path.mkdir(parents=True)
                return Tape(path, settings, self._room_watch())
            except FileExistsError:
                continue  # Two calls in one second.
            except OSError as error:
                raise AudioError(f"cannot record into {path}: {error.strerror}") from error
        raise AssertionError

    def _room_watch(self) -> Callable[[int], bool]:
        checked = 0

        def has_room(written: int) -> bool:
            nonlocal checked
            if written - checked < min(_CHECKED_EVERY_BYTES, self._limit // 10):
                return True
            checked = written
            return self._make_room(0)

        return has_room

    def _make_room(self, wanted: int) -> bool:
        """Delete old tapes until ``wanted`` bytes fit below the cap; return whether they do."""
        sizes = {path: _size(path) for path in self._tapes()}
        total = sum(sizes.values())
        for path in sorted(sizes):
            if total + wanted <= self._limit:
                break
            if _delete(path):
                log.warning("deleted the recording %s: recording.max_mb is reached", path)
                total -= sizes[path]
        return total + wanted <= self._limit

    def _tapes(self) -> Iterator[Path]:
        if not self._folder.is_dir():
            return
        for path in self._folder.iterdir():
            if _NAME.fullmatch(path.name) and not path.is_symlink() and (path / SETTINGS).is_file():
                yield path


def _size(folder: Path) -> int:
    total = 0
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            total += path.stat().st_size
    return total


def _delete(folder: Path) -> bool:
    """Delete a tape; return False if it is being written."""
    try:
        with contextlib.suppress(FileNotFoundError), (folder / USER).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()
