"""What the engines that run straight on onnxruntime share: session, cancel, chunks."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from edgevoice.engines import providers
from edgevoice.engines.providers import ON_CPU, Files, Ran, Wanted
from edgevoice.errors import EngineError
from edgevoice.frames import Float32
from edgevoice.stages import Cancelled, never

CHUNK_MS = 100
_POLL_S = 0.005


def open_session(model: Path, threads: int) -> Any:
    """Open ``model`` on the CPU with ``threads`` threads.

    Raises:
        ArtifactError: It is missing, truncated, or not an ONNX model.
    """
    return open_on(model, threads, ON_CPU)[0]


def open_on(model: Path, threads: int, wanted: Wanted) -> tuple[Any, Ran]:
    """Open ``model`` where ``wanted`` says, with ``threads`` threads on the CPU; say where it runs.

    Raises:
        ArtifactError: It is missing, truncated, or not an ONNX model.
        EngineError: A provider is required and cannot run it.
    """
    return providers.open_session(Files(model), partial(session_options, threads), wanted)


def session_options(threads: int) -> Any:
    """Return fresh ``SessionOptions`` of an engine that shares the cores with others."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Other stages share the cores: a thread that spins while it waits takes them away.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Every sentence has a length of its own, and a plan of memory kept for each length adds up:
    # the process peaked at 201 MB with these plans and at 179 MB without.
    options.enable_mem_pattern = False
    # Planning which of its 3,000 values share a buffer took 2.0 of the 2.3 s that Piper's graph
    # needs to load; without the plan it peaks at the same memory and runs as fast.
    options.enable_mem_reuse = False
    options.log_severity_level = 3
    return options


def run_cancellable(
    session: Any, feed: Mapping[str, Any], cancelled: Cancelled = never
) -> list[Any] | None:
    """Run the graph and return its outputs; None when it was cancelled.

    A run ends early, at the next operator, once ``cancelled`` (asked every 5 ms from another
    thread) says so: a sentence takes a Raspberry Pi seconds, which is too long to be deaf.

    Raises:
        EngineError: The run failed.
    """
    options = ort.RunOptions()
    done = threading.Event()
    stopped = threading.Event()

    def watch() -> None:
        while not done.wait(_POLL_S):
            if cancelled():
                stopped.set()
                options.terminate = True
                return

    watcher = threading.Thread(target=watch, name="edgevoice-synthesis-watch", daemon=True)
    if cancelled is not never:
        watcher.start()
    try:
        outputs: list[Any] = session.run(None, dict(feed), options)
    except Exception as error:
        if stopped.is_set():
            return None
        raise EngineError(f"the voice failed: {str(error)[:200]}") from error
    finally:
        done.set()
        if cancelled is not never:
            watcher.join()
    return outputs


def sound(output: Any) -> Float32:
    """Return a graph's output as flat samples, clipped to [-1, 1]."""
    samples: Float32 = np.asarray(output, dtype=np.float32).reshape(-1)
    return np.clip(samples, -1.0, 1.0)


def chunks(samples: Float32, rate_hz: int, cancelled: Cancelled = never) -> Iterator[Float32]:
    """Yield ``samples`` in chunks of :data:`CHUNK_MS` until cancelled."""
    step = rate_hz * CHUNK_MS // 1000
    for start in range(0, len(samples), step):
        if cancelled():
            return
        yield samples[start : start + step]
