"""The file by which a running daemon is found: one a port, locked for as long as the daemon lives.

Owns which daemons of this user run, and on which ports. The lock is the truth and not the file:
the system releases it however the daemon dies, so a file that nobody locks is stale and a process
number that was used again deceives nobody.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import platformdirs

from edgevoice.errors import DaemonError

_CLAIM_TRIES = 10
_CLAIM_PAUSE_S = 0.02


@dataclass(frozen=True, slots=True)
class Running:
    """A daemon that runs: its process, address, and when it started (seconds since 1970)."""

    pid: int
    host: str
    port: int
    started: float


def folder() -> Path:
    """Return where the files lie: ``$EDGEVOICE_HOME/run``, or the user's runtime folder."""
    home = os.environ.get("EDGEVOICE_HOME")
    return Path(home) / "run" if home else Path(platformdirs.user_runtime_dir("edgevoice"))


class RunFile:
    """This process's claim on a port. Also a context manager."""

    def __init__(self, path: Path, file: IO[str]) -> None:
        self._path = path
        self._file = file

    @classmethod
    def claim(cls, running: Running) -> RunFile:
        """Write the file and lock it.

        Raises:
            DaemonError: Another daemon holds this port, or the folder cannot be written.
        """
        path = _path(running.port)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            for _ in range(_CLAIM_TRIES):
                file = path.open("a+", encoding="utf-8")
                if _lock(file) and _is_at(file, path):
                    file.truncate(0)
                    file.write(json.dumps(asdict(running)))
                    file.flush()
                    return cls(path, file)
                # Somebody who looks for daemons holds the lock for an instant, too.
                file.close()
                time.sleep(_CLAIM_PAUSE_S)
        except OSError as error:
            raise DaemonError(f"cannot write {path}: {error.strerror or error}") from error
        raise DaemonError(in_use(running.port))

    def release(self) -> None:
        """Remove the file and give up the lock."""
        self._path.unlink(missing_ok=True)
        self._file.close()

    def __enter__(self) -> RunFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def running() -> list[Running]:
    """Return the daemons that run, by port; stale files are removed on the way."""
    found = [_read(path) for path in sorted(folder().glob("daemon-*.json"))]
    return sorted((r for r in found if r is not None), key=lambda r: r.port)


def find(port: int | None, preferred_port: int) -> Running | None:
    """Return the daemon on ``port``, or, where no port is named, the one that must be meant.

    Raises:
        DaemonError: Several run, none of them on ``preferred_port``, and no port was named.
    """
    daemons = running()
    wanted = preferred_port if port is None else port
    for daemon in daemons:
        if daemon.port == wanted:
            return daemon
    if port is not None or not daemons:
        return None
    if len(daemons) > 1:
        ports = ", ".join(str(d.port) for d in daemons)
        raise DaemonError(f"several daemons run, on ports {ports}; name one with --port")
    return daemons[0]


def in_use(port: int) -> str:
    """Word who uses ``port``."""
    daemon = next((d for d in running() if d.port == port), None)
    if daemon is None:
        return f"port {port} is in use by another program; choose another with --port"
    return (
        f"port {port} is in use by edgevoice daemon pid {daemon.pid}; "
        f"`edgevoice daemon stop --port {port}` ends it, --port chooses another"
    )


def _path(port: int) -> Path:
    return folder() / f"daemon-{port}.json"


def _read(path: Path) -> Running | None:
    try:
        with path.open("r+", encoding="utf-8") as file:
            if _lock(file):
                if _is_at(file, path):
                    path.unlink(missing_ok=True)
                return None
            return Running(**json.load(file))
    except (OSError, ValueError, TypeError):
        return None  # Gone, or being written at this moment.


def _lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(file: IO[str], path: Path) -> bool:
    """Whether ``file`` still is what lies at ``path``: it may have been removed since opening."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
