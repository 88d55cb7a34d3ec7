"""Which device this is: the facts of a machine, and the profile that suits it, with the reasons.

Reading the facts is :mod:`edgevoice.devices.cores`'s and :mod:`edgevoice.devices.condition`'s work;
this module owns how they are put together and compared with profiles.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgevoice import host
from edgevoice.devices import condition, cores, features
from edgevoice.devices.condition import Battery, SoundCard, Throttling
from edgevoice.devices.cores import CoreGroup
from edgevoice.devices.profile import DeviceProfile
from edgevoice.devices.root import Root
from edgevoice.errors import ConfigError

ANDROID_PROFILE = "android-termux"
X86_PROFILE = "x86-64"

_TERMUX = "data/data/com.termux/files/usr"
_ANDROID = "system/build.prop"
# What firmware, graphics and the kernel keep for themselves is not in MemTotal: a Raspberry Pi
# Zero 2 W has 512 MB and tells some 420 MiB.
_MEMORY_SHARE = 0.75


@dataclass(frozen=True, slots=True)
class Machine:
    """What a machine tells of itself; "" and None are "not known".

    Attributes:
        architecture: ``aarch64``, ``x86_64``, ``armv7l`` or what Python calls it.
        processor: Its name, or those of its cores.
        cpu_features: Those of :data:`edgevoice.devices.features.FEATURES` that every core has.
        groups: Its cores.
        memory_mb: MiB, or what a control group allows where that is less.
        model: Of the device tree.
        compatible: Of the device tree, the most special first.
        soc: Android's name of the chip.
        system: ``linux``, ``android``, or ``termux`` (Android, with Termux's files in sight).
        governor: What chooses the clock.
        temperature_c: Of the hottest processor zone.
        throttling: What holds the clock down.
        battery: Its charge; None where there is none.
        sound_cards: ALSA's.
    """

    architecture: str
    processor: str
    cpu_features: tuple[str, ...]
    groups: tuple[CoreGroup, ...]
    memory_mb: int
    model: str = ""
    compatible: tuple[str, ...] = ()
    soc: str = ""
    system: str = "linux"
    governor: str | None = None
    temperature_c: float | None = None
    throttling: Throttling | None = None
    battery: Battery | None = None
    sound_cards: tuple[SoundCard, ...] = ()

    @property
    def cores(self) -> int:
        """How many cores there are."""
        return sum(len(group.numbers) for group in self.groups)

    @property
    def fast_cores(self) -> tuple[int, ...]:
        """The kernel's numbers of the cores that the stages should run on."""
        return tuple(sorted(n for group in self.groups if group.fast for n in group.numbers))


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A profile, None where none suits, and why, one line each."""

    profile: DeviceProfile | None
    reasons: tuple[str, ...]


def detect(root: Root = Root()) -> Machine:  # noqa: B008 - frozen
    """Return what the machine under ``root`` tells; what it keeps to itself is left out."""
    return Machine(
        architecture=cores.architecture(root),
        processor=cores.processor(root),
        cpu_features=cores.cpu_features(root),
        groups=cores.core_groups(root),
        memory_mb=host.memory_mb(root.path)[0],
        model=root.text("proc/device-tree/model"),
        compatible=tuple(root.text("proc/device-tree/compatible").split()),
        soc=root.run(["getprop", "ro.soc.model"]),
        system=_system(root),
        governor=condition.governor(root),
        temperature_c=condition.temperature_c(root),
        throttling=condition.throttling(root),
        battery=condition.battery(root),
        sound_cards=condition.sound_cards(root),
    )


def suggest(machine: Machine, profiles: Sequence[DeviceProfile]) -> Suggestion:
    """Return the one of ``profiles`` that suits ``machine``, the first of equals.

    The profile that names the board or the chip; else the general one of the system; else, for an
    Arm board that none names, the most demanding one that asks for no more than the machine has.
    """
    if machine.architecture not in features.ARCHITECTURES:
        known = ", ".join(features.ARCHITECTURES)
        reason = f"architecture {machine.architecture}: edgevoice runs on {known}"
        if machine.architecture == "armv7l":
            reason += "; install the 64-bit system"
        return Suggestion(None, (reason,))
    same = [p for p in profiles if p.architecture == machine.architecture]
    for profile in same:
        if found := _recognised(machine, profile):
            return Suggestion(profile, (found, *_differences(machine, profile)))
    by_name = {p.name: p for p in same}
    if machine.system != "linux":
        reason = f"the system is {_SYSTEMS[machine.system]}, and no profile names its chip"
        return _general(by_name.get(ANDROID_PROFILE), machine, reason)
    if machine.architecture == "x86_64":
        return _general(by_name.get(X86_PROFILE), machine, "the processor is an x86-64 one")
    lesser = [
        p for p in same if p.clusters and p.name != ANDROID_PROFILE and not _differences(machine, p)
    ]
    if not lesser:
        reason = "no profile names this board, and every one asks for more than it has"
        return Suggestion(None, (reason,))
    nearest = max(lesser, key=lambda p: (_shared_cores(machine, p), len(p.cpu_features), p.cores))
    what = f"no profile names this board; {nearest.name} asks for no more than it has"
    return Suggestion(nearest, (what,))


def refuse_other_architecture(profile: DeviceProfile, architecture: str) -> None:
    """Make sure that what ``profile`` says can be true of a machine of ``architecture``.

    Raises:
        ConfigError: It is for another one.
    """
    if profile.architecture != architecture:
        raise ConfigError(
            f"device profile {profile.name!r} is for {profile.architecture}, this machine is "
            f"{architecture}; `edgevoice devices detect` suggests one"
        )


_SYSTEMS = {"android": "Android", "termux": "Android, in Termux"}


def _system(root: Root) -> str:
    if (root.path / _TERMUX).is_dir():
        return "termux"
    return "android" if (root.path / _ANDROID).exists() else "linux"


def _recognised(machine: Machine, profile: DeviceProfile) -> str:
    """Return what names ``machine`` as a device of ``profile``, "" for nothing."""
    told: Iterable[tuple[str, str]] = (
        ("the device tree's model", machine.model),
        *(("the device tree's compatible", name) for name in machine.compatible),
        ("Android's chip", machine.soc),
    )
    for what, value in told:
        for wanted in profile.recognised_by:
            if wanted in value:
                return f"{what} is {value!r}"
    return ""


def _general(profile: DeviceProfile | None, machine: Machine, reason: str) -> Suggestion:
    if profile is None:
        return Suggestion(None, (reason, "and there is no profile for that"))
    return Suggestion(profile, (reason, *_differences(machine, profile)))


def _differences(machine: Machine, profile: DeviceProfile) -> tuple[str, ...]:
    """Return what ``profile`` counts with and ``machine`` has not, a line each."""
    lines = []
    if missing := [name for name in profile.cpu_features if name not in machine.cpu_features]:
        lines.append(f"but cpu_features: this machine has no {', '.join(missing)}")
    if profile.cores > machine.cores:
        lines.append(f"but clusters: {profile.cores} cores, this machine has {machine.cores}")
    if 0 < machine.memory_mb < _MEMORY_SHARE * profile.memory_mb:
        lines.append(
            f"but memory_mb: {profile.memory_mb}, this machine has {machine.memory_mb} MiB"
        )
    return tuple(lines)


def _shared_cores(machine: Machine, profile: DeviceProfile) -> int:
    names = {group.name for group in machine.groups}
    return sum(cluster.name in names for cluster in profile.clusters)
