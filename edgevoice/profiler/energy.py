"""Energy that the device took, where the kernel can tell: RAPL, hwmon, or the battery.

Counters are read at both ends. Sensors that know power alone are sampled on a thread in between,
and their samples are added up.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

SYS = Path("/sys/class")
_SAMPLE_S = 0.2


@dataclass(frozen=True, slots=True)
class Meter:
    """Something that tells energy.

    Attributes:
        name: The kernel's.
        joules: Reads a counter, None for a sensor that has none.
        watts: Reads the power of this moment, None for a counter.
    """

    name: str
    joules: Callable[[], float] | None = None
    watts: Callable[[], float] | None = None


class Reading:
    """What :func:`taken` found; ``joules`` is None when the meter failed meanwhile."""

    def __init__(self) -> None:
        self.joules: float | None = None


def find(root: Path = SYS) -> Meter | str:
    """Return the best meter there is, or one line that says why there is none."""
    denied = []
    for meter in _candidates(root):
        read = meter.joules or meter.watts
        assert read is not None
        try:
            read()
        except PermissionError:
            denied.append(meter.name)
        except (OSError, ValueError):
            continue
        else:
            return meter
    if denied:
        return f"{denied[0]} is not readable by this user; run as root, or chmod a+r it"
    return "no RAPL, hwmon power sensor or discharging battery"


@contextmanager
def taken(meter: Meter) -> Iterator[Reading]:
    """Measure the energy that the device takes inside."""
    reading = Reading()
    if meter.joules is not None:
        before = meter.joules()
        yield reading
        with suppress(OSError, ValueError):
            after = meter.joules()
            # The counter runs over; one lost reading is better than a wrong one.
            reading.joules = after - before if after >= before else None
        return
    assert meter.watts is not None
    done = threading.Event()
    added = [0.0]
    sampler = threading.Thread(target=_add_up, args=(meter.watts, done, added), daemon=True)
    sampler.start()
    try:
        yield reading
    finally:
        done.set()
        sampler.join()
    reading.joules = added[0] or None


def _add_up(watts: Callable[[], float], done: threading.Event, added: list[float]) -> None:
    last_s = time.monotonic()
    while not done.wait(_SAMPLE_S):
        now_s = time.monotonic()
        with suppress(OSError, ValueError):
            added[0] += watts() * (now_s - last_s)
        last_s = now_s


def _candidates(root: Path) -> Iterator[Meter]:
    # intel-rapl:0 is the whole package; :0:0 and the like are parts of it. AMD has the same name.
    packages = sorted(root.glob("powercap/intel-rapl:[0-9]*"))
    packages = [p for p in packages if p.name.count(":") == 1]
    if packages:
        files = [p / "energy_uj" for p in packages]
        yield Meter("RAPL", joules=lambda: sum(map(_millionth, files)))
    for file in sorted(root.glob("hwmon/hwmon*/energy1_input")):
        yield Meter(f"hwmon {_name(file)}", joules=partial(_millionth, file))
    for file in sorted(root.glob("hwmon/hwmon*/power1_input")):
        yield Meter(f"hwmon {_name(file)}", watts=partial(_millionth, file))
    for folder in sorted(root.glob("power_supply/*")):
        with suppress(OSError):
            if (folder / "status").read_text(encoding="utf-8").strip() == "Discharging":
                yield Meter(f"battery {folder.name}", watts=partial(_battery_watts, folder))


def _battery_watts(folder: Path) -> float:
    with suppress(FileNotFoundError):
        return abs(_number(folder / "power_now")) / 1e6
    return abs(_number(folder / "current_now")) / 1e6 * _number(folder / "voltage_now") / 1e6


def _name(file: Path) -> str:
    with suppress(OSError):
        return (file.parent / "name").read_text(encoding="utf-8").strip()
    return file.parent.name


def _millionth(file: Path) -> float:
    return _number(file) / 1e6


def _number(file: Path) -> float:
    return float(file.read_text(encoding="utf-8"))
