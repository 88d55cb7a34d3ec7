"""Works the device hard for minutes and watches what becomes of it.

One process holds conversations as fast as the models go, which is more than a user can ask for;
temperature, clock, throttling and memory are looked at every second. What the stages are like on
the warm device is measured behind it, in rounds as ever.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any

from edgevoice.profiler.children import CONVERSATION, Child
from edgevoice.profiler.rounds import Open
from edgevoice.profiler.vitals import Vitals, VitalsWatch
from edgevoice.settings import Settings

LOOK_EVERY_S = 1.0
_QUESTIONS = 2
_SETTLED = 0.2
"""Share of the soak before memory is expected to stand still: caches fill."""

_SLOPE_POINTS = 200


def soak(
    settings: Settings,
    speech: Sequence[Path],
    duration_s: float,
    advance: Callable[[float], object],
    open_child: Open = Child,
) -> dict[str, Any]:
    """Work for ``duration_s`` and return what was seen, as plain values.

    ``advance`` is called with the seconds that have passed since its last call.
    """
    looks: list[Vitals] = []
    turns: list[dict[str, float]] = []
    done = threading.Event()
    questions = [str(path) for path in speech]
    with open_child(CONVERSATION, settings, speech=questions) as child:
        watch = VitalsWatch(child.pid)

        def keep_looking() -> None:
            while not done.wait(LOOK_EVERY_S):
                looks.append(watch.look())

        watcher = threading.Thread(target=keep_looking, name="edgevoice-vitals", daemon=True)
        began_s = last_s = time.monotonic()
        watcher.start()
        try:
            while last_s - began_s < duration_s:
                answer = child.ask(turns=_QUESTIONS, pace="lock-step")
                now_s = time.monotonic()
                turns.append({"at_s": round(now_s - began_s, 2), "wall_s": answer["wall_s"]})
                advance(now_s - last_s)
                last_s = now_s
        finally:
            done.set()
            watcher.join()
    return {
        "duration_s": round(last_s - began_s, 1),
        "questions_a_conversation": _QUESTIONS,
        "conversations": turns,
        "vitals": [asdict(look) for look in looks],
        "memory_growth_mb_per_min": memory_growth(looks),
        "hottest_c": _most(look.temperature_c for look in looks),
        "throttled_share": _share([look.throttled for look in looks]),
        "slowdown": slowdown([turn["wall_s"] for turn in turns]),
    }


def memory_growth(looks: Sequence[Vitals]) -> float | None:
    """Return MiB a minute once the process has settled (Theil-Sen: the median of all slopes)."""
    known = [(look.at_s, look.memory_mb) for look in looks if look.memory_mb is not None]
    settled = known[round(len(known) * _SETTLED) :]
    settled = settled[:: max(1, len(settled) // _SLOPE_POINTS)]
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(settled, 2) if b[0] > a[0]]
    return round(statistics.median(slopes) * 60.0, 3) if slopes else None


def slowdown(times: Sequence[float]) -> float | None:
    """Return the median of the last quarter over that of the first, None of too few."""
    quarter = len(times) // 4
    if quarter < 2:
        return None
    return round(statistics.median(times[-quarter:]) / statistics.median(times[:quarter]), 3)


def _most(values: Any) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _share(told: Sequence[bool | None]) -> float | None:
    known = [each for each in told if each is not None]
    return round(sum(known) / len(known), 3) if known else None
