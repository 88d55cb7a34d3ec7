"""Is the fresh process in which one stage is loaded and measured; speaks JSON lines.

First line in: ``{"stage", "config", "speech", "began_ns"}``. Out: ``{"cold_start_ms", "free_ms",
"ran_on"}`` once there is a first result, or ``{"error", "absent"}``. Then, for each
``{"samples": n}``, one line with the samples, the same ones less the waiting for a core ("free"),
the share of cores and the memory. Ends when its input ends.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

Request = Mapping[str, Any]
Answer = Mapping[str, Any]
Serve = Callable[[Request], Answer]
"""Takes each request after the first."""


def speak(begin: Callable[[Request], tuple[Serve, Answer]]) -> int:
    """Serve the parent until it hangs up.

    Args:
        begin: Takes the first request; returns what serves the others, and its own answer.
    """
    replies = _claim_stdout()
    try:
        serve, first = begin(json.loads(sys.stdin.readline()))
        _reply(replies, first)
        for line in sys.stdin:
            _reply(replies, serve(json.loads(line)))
    except Exception as error:
        from edgevoice.errors import EdgevoiceError
        from edgevoice.profiler.workload import NotMeasurable

        if not isinstance(error, EdgevoiceError):
            raise
        _reply(replies, {"error": str(error), "absent": isinstance(error, NotMeasurable)})
    return 0


def resident_mb() -> float:
    """Return this process's resident memory in MiB; 0 where the kernel does not say."""
    try:
        with open("/proc/self/status", encoding="utf-8") as status:
            sizes = [line.split()[1] for line in status if line.startswith("VmRSS:")]
    except OSError:
        return 0.0
    return int(sizes[0]) / 1024.0 if sizes else 0.0


def since_ms(began_ns: int) -> float:
    """Return milliseconds since ``began_ns`` of the monotonic clock, which processes share."""
    return (time.monotonic_ns() - began_ns) / 1e6


def _claim_stdout() -> TextIO:
    """Keep the parent's pipe from what native libraries print."""
    pipe = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(pipe, "w", encoding="utf-8")


def _reply(replies: TextIO, answer: Answer) -> None:
    replies.write(json.dumps(answer) + "\n")
    replies.flush()


def _begin(request: Request) -> tuple[Serve, Answer]:
    import tomllib
    from pathlib import Path

    from edgevoice import config, native_memory
    from edgevoice.affinity import Pin
    from edgevoice.profiler.running_on import ran_on
    from edgevoice.profiler.workload import build, waited_ns

    native_memory.bound()
    settings = config.parse(tomllib.loads(request["config"]))
    section = getattr(settings, request["stage"].replace("-", "_"), None)
    Pin(request["stage"], getattr(section, "cores", "")).stay()
    before_mb = resident_mb()
    work = build(request["stage"], settings, Path(request["speech"]))
    work.sample()
    cold_ms = since_ms(request["began_ns"])
    free_ms = cold_ms - waited_ns() / 1e6

    def serve(wanted: Request) -> Answer:
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        samples = [work.sample() for _ in range(wanted["samples"])]
        cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
        return {
            "samples": [{name: value[0] for name, value in s.items()} for s in samples],
            "free": [{name: value[1] for name, value in s.items()} for s in samples],
            "busy_cores": cpu_s / wall_s,
            "memory_mb": resident_mb() - before_mb,
        }

    return serve, {"cold_start_ms": cold_ms, "free_ms": free_ms, "ran_on": ran_on(work.engine)}


def main() -> int:
    """Be the child."""
    return speak(_begin)


if __name__ == "__main__":
    sys.exit(main())
