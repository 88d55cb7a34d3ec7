"""Facts about the machine and this process, as /proc tells them; no libraries of its own."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import time
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


def memory_mb() -> tuple[int, int]:
    """Return total and available memory in MiB; zeros where the kernel does not say."""
    sizes = {}
    for line in _lines("/proc/meminfo"):
        key, _, value = line.partition(":")
        sizes[key] = int(value.split()[0]) // 1024
    return sizes.get("MemTotal", 0), sizes.get("MemAvailable", 0)


def peak_memory_mb() -> int:
    """Return the most memory that this process has had resident, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


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


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
