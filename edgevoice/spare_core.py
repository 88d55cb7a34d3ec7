"""Whether the core is idle that :func:`edgevoice.host.threads` leaves out.

Owns the question, and that one computation at a time gets the core. Which threads those are, and
how they are changed, is each engine's business: :mod:`edgevoice.engines.gguf`.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from edgevoice import host

_WINDOW_S = 0.15
"""Between two looks. The kernel counts in hundredths of a second."""

_IDLE_CORES = 0.25
"""Others that use less of the cores than this leave one free. A busy process uses 1, and a client
that plays and records sound 0.1."""

_PAIR = 2

_WAITING = (3, 4)
"""Fields of a line of /proc/stat (proc_stat(5)) in which a core does nothing: idle and iowait. All
others count as busy, what a virtual machine's host takes for itself among them."""

_COUNTED = 8
"""Fields that add up; the time of guests, behind them, is in `user` and `nice` already."""


def read_stat() -> str:
    """Return /proc/stat, "" where it is not to be read (Android)."""
    try:
        return Path("/proc/stat").read_text(encoding="ascii")
    except OSError:
        return ""


class SpareCore:
    """The second of two cores. Its methods may be called from any thread.

    Args:
        cores: What this process may use, both of them.
        stat: Returns /proc/stat.
        own_s: The process's own processor time.
        now_s: A clock.
    """

    def __init__(
        self,
        cores: frozenset[int],
        stat: Callable[[], str] = read_stat,
        own_s: Callable[[], float] = time.process_time,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._names = frozenset(f"cpu{core}" for core in cores)
        self._stat, self._own_s, self._now_s = stat, own_s, now_s
        self._lock = threading.Lock()
        self._computing = 0
        self._idle = False
        self._seen = self._look()

    @contextmanager
    def threads(self) -> Iterator[int]:
        """Yield how many threads the computation within should have: 2, or 1.

        2 when nothing else computes in here, and other processes leave a core idle. One that begins
        to be busy is noticed a tenth of a second or two into what is computed then.
        """
        with self._lock:
            self._computing += 1
            if self._now_s() - self._seen.at_s >= _WINDOW_S:
                before, self._seen = self._seen, self._look()
                self._idle = _others(before, self._seen) < _IDLE_CORES
            count = 2 if self._idle and self._computing == 1 else 1
        try:
            yield count
        finally:
            with self._lock:
                self._computing -= 1

    def _look(self) -> _Look:
        lines = (line.split() for line in self._stat().splitlines())
        counts = [
            fields[1 : 1 + _COUNTED] for fields in lines if fields[:1] and fields[0] in self._names
        ]
        busy_s = None
        if len(counts) == len(self._names):
            busy = sum(int(n) for each in counts for i, n in enumerate(each) if i not in _WAITING)
            busy_s = busy / os.sysconf("SC_CLK_TCK")
        return _Look(self._now_s(), busy_s, self._own_s())


class _Look(NamedTuple):
    """Busy time of the cores, None where the system does not tell, and this process's own."""

    at_s: float
    busy_s: float | None
    own_s: float


def found(threads: int, cores: str) -> SpareCore | None:
    """Return the core that a stage with these settings may borrow, if there is one.

    None where the settings say how many threads there are or which cores they have, and where there
    are more than two cores: less is to be won there, and it has not been measured.

    Args:
        threads: As the settings have them, 0 for one for every core but one.
        cores: As the settings have them, "" for any.
    """
    if threads or cores or host.cores() != _PAIR or not hasattr(os, "sched_getaffinity"):
        return None
    return SpareCore(frozenset(os.sched_getaffinity(0)))


def _others(before: _Look, after: _Look) -> float:
    """Return how many cores other processes used between two looks; all where it is not known."""
    if before.busy_s is None or after.busy_s is None:
        return math.inf
    used_s = after.busy_s - before.busy_s - (after.own_s - before.own_s)
    return used_s / (after.at_s - before.at_s)
