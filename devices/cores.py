"""What a machine's processor is: architecture, features, and which of its cores are fast.

From ``/proc/cpuinfo`` and sysfs, under a :class:`~edgevoice.devices.root.Root`.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass

from edgevoice.devices import features
from edgevoice.devices.root import Root

# "CPU part" of Arm's own cores (implementer 0x41): arch/arm64/include/asm/cputype.h of Linux.
_ARM_CORES = {
    0xD03: "Cortex-A53",
    0xD04: "Cortex-A35",
    0xD05: "Cortex-A55",
    0xD07: "Cortex-A57",
    0xD08: "Cortex-A72",
    0xD09: "Cortex-A73",
    0xD0A: "Cortex-A75",
    0xD0B: "Cortex-A76",
    0xD0C: "Neoverse-N1",
    0xD0D: "Cortex-A77",
    0xD40: "Neoverse-V1",
    0xD41: "Cortex-A78",
    0xD42: "Cortex-A78AE",
    0xD44: "Cortex-X1",
    0xD46: "Cortex-A510",
    0xD47: "Cortex-A710",
    0xD48: "Cortex-X2",
    0xD49: "Neoverse-N2",
    0xD4B: "Cortex-A78C",
    0xD4D: "Cortex-A715",
    0xD4E: "Cortex-X3",
    0xD4F: "Neoverse-V2",
    0xD80: "Cortex-A520",
    0xD81: "Cortex-A720",
    0xD82: "Cortex-X4",
    0xD85: "Cortex-X925",
    0xD87: "Cortex-A725",
}
_ARM = 0x41
# Below these shares of the fastest core's a core is slow. The little cores of an RK3588 have 0.39
# of the capacity and 0.75 of the clock, the middle ones of a Snapdragon 8 Gen 3 0.91 of the clock.
_FAST_CAPACITY = 0.6
_FAST_CLOCK = 0.8
_CPUS = "sys/devices/system/cpu"


@dataclass(frozen=True, slots=True)
class CoreGroup:
    """Cores that are alike.

    Attributes:
        name: The core's as its maker calls it, "" where the kernel does not say.
        numbers: The kernel's, as ``taskset`` takes them.
        capacity: 1024 for the strongest core of the machine; None where the kernel does not say.
        max_mhz: Highest clock; None where the kernel does not say.
        fast: Whether the stages should run on them.
    """

    name: str
    numbers: tuple[int, ...]
    capacity: int | None
    max_mhz: int | None
    fast: bool


@dataclass(frozen=True, slots=True)
class _Core:
    number: int
    name: str
    capacity: int | None
    max_mhz: int | None


def this_architecture() -> str:
    """Return the architecture that this Python runs on, under the kernel's name for it."""
    machine = platform.machine().lower()
    return {"arm64": "aarch64", "amd64": "x86_64"}.get(machine, machine)


def architecture(root: Root) -> str:
    """Return ``aarch64``, ``x86_64``, ``armv7l`` (any 32-bit Arm), or this Python's own."""
    said = _features(root)
    if "asimd" in said:
        return "aarch64"
    if "lm" in said:
        return "x86_64"
    if "thumb" in said or "neon" in said:
        return "armv7l"
    return this_architecture()


def cpu_features(root: Root) -> tuple[str, ...]:
    """Return those of :data:`edgevoice.devices.features.FEATURES` that every core has."""
    said = _features(root)
    return tuple(name for name in features.of(architecture(root)) if name in said)


def processor(root: Root) -> str:
    """Return the processor's name; where the kernel gives none, the names of its cores."""
    for block in _blocks(root):
        for key in ("model name", "Hardware"):
            if block.get(key):
                return block[key]
    return " + ".join(f"{len(g.numbers)} x {g.name or 'core'}" for g in core_groups(root))


def core_groups(root: Root) -> tuple[CoreGroup, ...]:
    """Return the cores, alike ones together, the strongest first."""
    alike: dict[tuple[str, int | None, int | None], list[int]] = {}
    for core in _cores(root):
        alike.setdefault((core.name, core.capacity, core.max_mhz), []).append(core.number)
    capacity = max((c for _, c, _ in alike if c is not None), default=0)
    clock = max((m for _, _, m in alike if m is not None), default=0)
    groups = [
        CoreGroup(name, tuple(numbers), own, mhz, _is_fast(own, capacity, mhz, clock))
        for (name, own, mhz), numbers in alike.items()
    ]
    return tuple(sorted(groups, key=lambda g: (-(g.capacity or 0), -(g.max_mhz or 0), g.numbers)))


def _is_fast(own: int | None, capacity: int, mhz: int | None, clock: int) -> bool:
    if own is not None and capacity:
        return own >= _FAST_CAPACITY * capacity
    return mhz is None or mhz >= _FAST_CLOCK * clock


def _cores(root: Root) -> list[_Core]:
    named = {int(b["processor"]): b for b in _blocks(root) if b.get("processor", "").isdigit()}
    numbers = [int(path.rpartition("cpu")[2]) for path in root.folders(f"{_CPUS}/cpu[0-9]*")]
    return [
        _Core(
            number,
            _core_name(named.get(number, {})),
            root.number(f"{_CPUS}/cpu{number}/cpu_capacity"),
            _mhz(root.number(f"{_CPUS}/cpu{number}/cpufreq/cpuinfo_max_freq")),
        )
        for number in numbers or sorted(named)
    ]


def _mhz(khz: int | None) -> int | None:
    return None if khz is None else round(khz / 1000)


def _core_name(block: Mapping[str, str]) -> str:
    try:
        implementer, part = int(block["CPU implementer"], 16), int(block["CPU part"], 16)
    except (KeyError, ValueError):
        return block.get("model name", "")
    if implementer == _ARM and part in _ARM_CORES:
        return _ARM_CORES[part]
    return f"implementer {implementer:#x} part {part:#x}"


def _features(root: Root) -> frozenset[str]:
    """Return the words of cpuinfo's features that every core has."""
    said = [
        frozenset((block.get("Features") or block.get("flags") or "").split())
        for block in _blocks(root)
        if "Features" in block or "flags" in block
    ]
    return frozenset.intersection(*said) if said else frozenset()


def _blocks(root: Root) -> list[dict[str, str]]:
    """Return cpuinfo's paragraphs: one a core, and on some boards one about the board."""
    blocks = []
    for paragraph in root.text("proc/cpuinfo").split("\n\n"):
        pairs = (line.partition(":") for line in paragraph.splitlines())
        blocks.append({key.strip(): value.strip() for key, _, value in pairs})
    return blocks
