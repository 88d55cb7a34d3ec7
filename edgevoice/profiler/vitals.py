"""How the device is doing while it works: temperature, clock, throttling, memory of a process.

What a device does not tell is None. How it is told is :mod:`edgevoice.devices.condition`'s
business.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from edgevoice.devices import condition
from edgevoice.devices.root import Root


@dataclass(frozen=True, slots=True)
class Vitals:
    """One look.

    Attributes:
        at_s: When, in seconds since the watch began.
        temperature_c: Of the hottest processor zone.
        clock_mhz: Mean of all cores.
        throttled: Whether something held the clock down, now or since the last look.
        memory_mb: Resident memory of the process that is watched.
    """

    at_s: float
    temperature_c: float | None
    clock_mhz: float | None
    throttled: bool | None
    memory_mb: float | None


class VitalsWatch:
    """Looks at the device and at one process.

    Args:
        pid: The process.
        root: The machine.
    """

    def __init__(self, pid: int, root: Root | None = None) -> None:
        self._pid = pid
        self._root = root or Root()
        self._began_s = time.monotonic()
        self._before = condition.throttling(self._root)

    def look(self) -> Vitals:
        """Look once."""
        return Vitals(
            round(time.monotonic() - self._began_s, 2),
            condition.temperature_c(self._root),
            self._clock_mhz(),
            self._throttled(),
            self._memory_mb(),
        )

    def _throttled(self) -> bool | None:
        told, before = condition.throttling(self._root), self._before
        self._before = told
        if told is None:
            return None
        return bool(told.now) or (before is not None and told.before != before.before)

    def _clock_mhz(self) -> float | None:
        cores = self._root.folders("sys/devices/system/cpu/cpu[0-9]*/cpufreq")
        clocks = [self._root.number(f"{path}/scaling_cur_freq") for path in cores]
        known = [clock for clock in clocks if clock is not None]
        return sum(known) / len(known) / 1000.0 if known else None

    def _memory_mb(self) -> float | None:
        for line in self._root.text(f"proc/{self._pid}/status").splitlines():
            if line.startswith("VmRSS:"):
                return round(int(line.split()[1]) / 1024.0, 1)
        return None
