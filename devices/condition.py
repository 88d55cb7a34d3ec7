"""How a machine is at the moment: temperature, throttling, governor, battery, sound cards.

What a machine does not tell is None, "not known": most have no battery, many no governor, and a
container no thermal zone at all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgevoice.devices.root import Root

# `vcgencmd get_throttled`: bits 0 to 3 are now, bits 16 to 19 since the start
# (raspberrypi/documentation, os/graphics-utilities/vcgencmd.adoc).
_PI_REASONS = ("under-voltage", "clock capped", "throttled", "soft temperature limit")
_PI_SINCE_START = 16
_COOLING = re.compile(r"(?i)processor|cpufreq|cpu-?\d|thermal-cpu")
_ZONES = re.compile(r"(?i)cpu|soc|x86_pkg|package|acpitz|bcm|tz")
_THROTTLES = "sys/devices/system/cpu/cpu0/thermal_throttle"


@dataclass(frozen=True, slots=True)
class Throttling:
    """Whether the machine holds its clock down.

    Attributes:
        now: What holds it down at the moment, empty for nothing.
        before: What has since the start, empty for nothing.
        source: Where this comes from.
    """

    now: tuple[str, ...]
    before: tuple[str, ...]
    source: str


@dataclass(frozen=True, slots=True)
class Battery:
    """Charge in percent, and the kernel's word for whether it charges."""

    percent: int
    status: str


@dataclass(frozen=True, slots=True)
class SoundCard:
    """One card of ALSA: the kernel's name, and what it can do."""

    name: str
    plays: bool
    records: bool


def throttling(root: Root) -> Throttling | None:
    """Return what holds the clock down; None where the machine does not tell."""
    said = re.fullmatch(r"throttled=0x([0-9a-fA-F]+)", root.run(["vcgencmd", "get_throttled"]))
    if said:
        bits = int(said[1], 16)
        return Throttling(_reasons(bits), _reasons(bits >> _PI_SINCE_START), "vcgencmd")
    states = {
        kind: state
        for path in root.folders("sys/class/thermal/cooling_device*")
        if _COOLING.search(kind := root.text(f"{path}/type"))
        and (state := root.number(f"{path}/cur_state")) is not None
    }
    count = root.number(f"{_THROTTLES}/package_throttle_count")
    if not states and count is None:
        return None
    now = tuple(f"{kind} cools in step {state}" for kind, state in states.items() if state > 0)
    before = (f"{count} times",) if count else ()
    return Throttling(now, before, "sysfs")


def _reasons(bits: int) -> tuple[str, ...]:
    return tuple(reason for bit, reason in enumerate(_PI_REASONS) if bits >> bit & 1)


def temperature_c(root: Root) -> float | None:
    """Return the temperature of the hottest processor zone; None where the machine tells none."""
    found = [
        value / 1000.0
        for path in root.folders("sys/class/thermal/thermal_zone*")
        if _ZONES.search(root.text(f"{path}/type"))
        and (value := root.number(f"{path}/temp")) is not None
        # Zones that are switched off say 0 or -274000.
        and value > 0
    ]
    return max(found, default=None)


def governor(root: Root) -> str | None:
    """Return what chooses the clock of the first core; None where the machine does not tell."""
    return root.text("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or None


def battery(root: Root) -> Battery | None:
    """Return the battery's charge; None where there is none, or it does not tell."""
    for path in root.folders("sys/class/power_supply/*"):
        percent = root.number(f"{path}/capacity")
        if root.text(f"{path}/type") == "Battery" and percent is not None:
            return Battery(percent, root.text(f"{path}/status") or "unknown")
    return None


def sound_cards(root: Root) -> tuple[SoundCard, ...]:
    """Return ALSA's cards; empty where there is no sound hardware, or the kernel hides it.

    ``/proc/asound/cards`` has two lines a card, the first ``NUMBER [ID ]: DRIVER - NAME``;
    ``/proc/asound/pcm`` a line for each device, ``CARD-DEVICE: ... : playback 1 : capture 1``.
    """
    devices = [line for line in root.text("proc/asound/pcm").splitlines() if "-" in line]
    cards = re.findall(r"(?m)^\s*(\d+) \[.*?\]: (?:.*? - )?(.+)$", root.text("proc/asound/cards"))
    found = []
    for number, name in cards:
        own = [line for line in devices if int(line.partition("-")[0]) == int(number)]
        plays = any("playback" in line for line in own)
        found.append(SoundCard(name.strip(), plays, any("capture" in line for line in own)))
    return tuple(found)
