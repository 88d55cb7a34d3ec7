"""What tests of `edgevoice export` look at; they run it on :mod:`tiny_family`.

The fixtures ``store`` and ``export`` are conftest.py's.
"""

from __future__ import annotations

from collections.abc import Callable

from edgevoice.store import Store

Run = Callable[..., tuple[int, str, str]]
"""Runs `edgevoice export` with these words; returns the exit code, what it printed, and stderr."""


def left(store: Store) -> set[str]:
    """What lies in the store besides its locks."""
    if not store.root.is_dir():
        return set()
    return {f.name for f in store.root.iterdir()} - {".locks"}


def one_line(err: str) -> str:
    (line,) = [line for line in err.splitlines() if line.startswith("edgevoice: ")]
    assert "Traceback" not in err
    return line
