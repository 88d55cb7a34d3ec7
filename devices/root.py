"""The file system and the commands that facts about a machine are read from.

Everything that :mod:`edgevoice.devices` knows of a machine comes through a :class:`Root`, so that a
folder with the files of another machine can stand in for this one.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

_COMMAND_TIMEOUT_S = 5.0


def run_command(words: Sequence[str]) -> str:
    """Return what the command prints, "" where it is not there, fails or hangs."""
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, check=True, timeout=_COMMAND_TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
    return done.stdout.strip()


@dataclass(frozen=True, slots=True)
class Root:
    """A machine to read.

    Attributes:
        path: What is "/" for it.
        run: Runs a command there.
    """

    path: Path = Path("/")
    run: Callable[[Sequence[str]], str] = run_command

    def text(self, path: str) -> str:
        """Return the text of a file below the root, stripped; "" where it cannot be read.

        A device tree's strings end with a NUL, and its lists have one between their entries:
        these become line ends.
        """
        try:
            data = (self.path / path).read_bytes()
        except OSError:
            return ""
        return data.decode("utf-8", errors="replace").replace("\0", "\n").strip()

    def number(self, path: str) -> int | None:
        """Return the whole number in a file below the root, None where there is none."""
        try:
            return int(self.text(path))
        except ValueError:
            return None

    def folders(self, pattern: str) -> tuple[str, ...]:
        """Return the paths below the root that match ``pattern``, in the order of their numbers."""
        found = (p.relative_to(self.path).as_posix() for p in self.path.glob(pattern))
        return tuple(sorted(found, key=lambda path: (len(path), path)))
