"""How work that takes a while shows itself: bars on a terminal, else one line per artifact.

Everything goes to stderr, so that stdout stays what a script asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from tqdm import tqdm

Advance = Callable[[int], object]


class Meter(Protocol):
    """Opens a measure of one piece of work; what it gives is called with the bytes just done."""

    def __call__(
        self, label: str, total_bytes: int | None, done_bytes: int = 0
    ) -> AbstractContextManager[Advance]:
        """Measure ``label``; ``done_bytes`` of ``total_bytes`` (None: unknown) came earlier."""


@contextmanager
def bar(label: str, total_bytes: int | None, done_bytes: int = 0) -> Iterator[Advance]:
    """Draw a progress bar on stderr that disappears when it is done."""
    with tqdm(
        desc=label,
        total=total_bytes,
        initial=done_bytes,
        unit="B",
        unit_scale=True,
        leave=False,
        file=sys.stderr,
    ) as drawn:
        yield drawn.update


@contextmanager
def silent(label: str, total_bytes: int | None, done_bytes: int = 0) -> Iterator[Advance]:
    """Draw nothing."""
    del label, total_bytes, done_bytes
    yield int


def meter_for_stderr() -> Meter:
    """Return :func:`bar` when stderr is a terminal, else :func:`silent`."""
    return bar if sys.stderr.isatty() else silent


def say(line: str) -> None:
    """Print ``line`` on stderr, above any bar."""
    tqdm.write(line, file=sys.stderr)
