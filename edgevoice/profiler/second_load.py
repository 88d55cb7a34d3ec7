"""Busy processes beside what is measured: the second load of a device that does other things."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# It looks for its parent now and then: nobody else would end it once that was killed.
_BUSY = """
import os
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(200000):
        pass
"""


@contextmanager
def busy(processes: int) -> Iterator[tuple[int, ...]]:
    """Keep so many processes counting meanwhile; gives their numbers."""
    started: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(processes):
            started.append(subprocess.Popen([sys.executable, "-c", _BUSY]))
        yield tuple(process.pid for process in started)
    finally:
        for process in started:
            process.kill()
            process.wait()
