"""A fixed piece of work that no stage has a part in: how fast is the machine itself just now?

Two runs of one bundle differ by what the bundle does and by what else the machine does, which the
yardstick sees as well. It is taken beside every stage of every round.
"""

from __future__ import annotations

import hashlib

import numpy as np

from edgevoice.profiler.workload import Stopwatch, Times

_HASHED = bytes(4 << 20)
_MOVED = np.ones(1 << 20, dtype=np.float32)
_COUNTED = 60_000


def work_ms() -> Times:
    """Hash, move memory and interpret for some 10 ms on one thread; return how long it took."""
    watch = Stopwatch()
    hashlib.sha256(_HASHED).digest()
    moved = _MOVED
    for _ in range(4):
        moved = moved + _MOVED
    sum(i & 7 for i in range(_COUNTED))
    return watch.ms
