"""Facts about the machine and this process, as /proc tells them; no libraries of its own."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import time
from collections.abc import Iterator
from pathlib import Path

PACKAGES = (
    "edgevoice",
    "numpy",
    "sherpa-onnx",
    "onnxruntime",
    "llama-cpp-python",
    "soxr",
    "websockets",
    "PyAudio",
    "espeakng-loader",
    "onnx",
)
"""Distributions whose versions decide how a conversation sounds and how fast it is."""

_STARTED_NS = time.monotonic_ns()


def cpu_name() -> str:
    """Return the processor's name, or its architecture where the kernel does not say."""
    for line in _lines("/proc/cpuinfo"):
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "Hardware"):
            return value.strip()
    return platform.machine()


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads(wanted: int) -> int:
    """Return ``wanted`` threads, or for 0 one for every core but one.

    The core that is left out is for the other stages and for whatever else the machine does:
    threads that wait for each other at every step are as slow as the one that has no core. With
    one busy process beside it, SmolLM2 made 18 tokens a second on two threads of two cores and
    64 on one.
    """
    return wanted or max(1, cores() - 1)


def memory_mb(root: Path = Path("/")) -> tuple[int, int]:
    """Return total and available memory in MiB; zeros where the kernel does not say.

    In a container, what its limit leaves where that is less than the machine has.

    Args:
        root: What is "/" for the machine that is asked about.
    """
    sizes = _sizes(str(root / "proc/meminfo"))
    total, available = (sizes.get(key, 0) // 1024 for key in ("MemTotal", "MemAvailable"))
    limited = [*_limits_mb(root)]
    return min([total, *(most for most, _ in limited)]), min(
        [available, *(left for _, left in limited)]
    )


def _limits_mb(root: Path) -> Iterator[tuple[int, int]]:
    """Yield what each control group (v2) around this process allows, and has left, in MiB.

    Pages of files that nobody has used for a while are given back before the limit is met.
    """
    groups, listed = root / "sys/fs/cgroup", _lines(str(root / "proc/self/cgroup"))
    own = next((line[3:] for line in listed if line.startswith("0::")), None)
    if own is None:
        return
    # In a namespace of its own, a group's parents are not to be seen: its path is "/".
    for group in (groups / own.lstrip("/"), *(groups / own.lstrip("/")).parents):
        if not group.is_relative_to(groups):
            return
        most = "".join(_lines(str(group / "memory.max")))
        used = "".join(_lines(str(group / "memory.current")))
        if most.isdigit() and used.isdigit():
            idle = _sizes(str(group / "memory.stat")).get("inactive_file", 0)
            yield int(most) >> 20, max(int(most) - int(used) + idle, 0) >> 20


def peak_memory_mb() -> int:
    """Return the most memory that this process has had resident, in MiB.

    Not ``ru_maxrss`` where there is better: at exec, Linux counts the parent's peak into it.
    """
    peak_kb = _sizes("/proc/self/status").get("VmHWM", 0)
    return (peak_kb or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) // 1024


def process_age_ms() -> float:
    """Return milliseconds since this process began (Python's own start-up counted where known)."""
    try:
        fields = Path("/proc/self/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
        began_s = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # field 22, starttime, since boot
        return (time.clock_gettime(time.CLOCK_BOOTTIME) - began_s) * 1000.0
    except (OSError, IndexError, ValueError, AttributeError):
        return (time.monotonic_ns() - _STARTED_NS) / 1e6


def version(distribution: str) -> str:
    """Return the installed version of ``distribution``, "" where it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def versions() -> dict[str, str]:
    """Return the versions of those of :data:`PACKAGES` that are installed."""
    return {name: found for name in PACKAGES if (found := version(name))}


def facts() -> dict[str, str]:
    """Return what a reader needs to know to compare this machine's figures with another's."""
    total_mb, _ = memory_mb()
    return {
        "processor": cpu_name(),
        "cores": str(cores()),
        "memory": f"{total_mb} MiB",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _sizes(path: str) -> dict[str, int]:
    """Return the numbers of a file with a name and a number a line."""
    found = {}
    for line in _lines(path):
        match line.replace(":", " ").split():
            case [key, value, *_] if value.isdigit():
                found[key] = int(value)
    return found


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
