"""A fixed piece of work that no stage has a part in: how fast is the machine itself just now?

Two runs of one bundle differ by what the bundle does and by the processor's clock, which the
yardstick sees as well. It is taken beside every stage of every round. It is short, lies in the
caches and is repeated, and its best time counts: a long one over much memory told more of other
work on the machine, from which stages suffer in other ways, than of its clock (between runs on a
busy machine it moved by 10 %, what stages did in their best moments by 3 %).
"""

from __future__ import annotations

import hashlib

import numpy as np

from edgevoice.profiler.workload import Stopwatch, Times

_HASHED = bytes(256 << 10)
_MOVED = np.ones(32 << 10, dtype=np.float32)
_COUNTED = 15_000
_REPEATS = 5


def work_ms() -> Times:
    """Hash, add and interpret for some 2 ms on one thread, a few times; return the best time."""
    best: Times = np.min([_once() for _ in range(_REPEATS)], axis=0)
    return best


def _once() -> Times:
    watch = Stopwatch()
    hashlib.sha256(_HASHED).digest()
    moved = _MOVED
    for _ in range(40):
        moved = moved + _MOVED
    sum(i & 7 for i in range(_COUNTED))
    return watch.ms
