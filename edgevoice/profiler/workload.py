"""What a stage is given to do while it is measured, and how its samples are named.

A workload is built in a process of its own (:mod:`edgevoice.profiler.stage_child`); building it
loads the stage, and its first sample is part of the cold start and of no figure.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from edgevoice.errors import MissingDependencyError
from edgevoice.frames import Float32, Int16, to_float32
from edgevoice.settings import Settings
from edgevoice.store import Store

Times: TypeAlias = npt.NDArray[np.float64]
"""A value twice, shape [2]: by the wall's clock, and by one that stands while no core is free."""

Sample = Mapping[str, Times]
"""Values by a figure's name without its stage."""


class Workload(Protocol):
    """One loaded stage.

    Attributes:
        engine: What was loaded, None where it is no model.
    """

    engine: object

    def sample(self) -> Sample:
        """Do the stage's work once and return what was measured."""
        ...


class NotMeasurable(MissingDependencyError):
    """This stage has nothing to measure here; the message says why."""


def build(stage: str, settings: Settings, speech: Path) -> Workload:
    """Load ``stage`` and return its workload.

    Args:
        stage: One of :data:`edgevoice.profiler.figures.STAGES`, but the conversation.
        settings: Name the artifact and its threads.
        speech: WAV file that hearing is measured with: somebody's question, 16 kHz.

    Raises:
        ArtifactError: The artifact is missing or broken.
        NotMeasurable: The settings leave this stage out, or what it needs is not installed.
    """
    from edgevoice.profiler import answering_work, hearing_work

    store = Store.default()
    match stage:
        case "vad":
            return hearing_work.VadWork(store, settings, heard(speech))
        case "echo-canceller":
            return hearing_work.EchoWork(settings, recorded(speech))
        case "first-pass":
            return hearing_work.FirstPassWork(store, settings, heard(speech))
        case "recogniser":
            return hearing_work.RecogniserWork(store, settings, heard(speech))
        case "end-of-turn":
            return hearing_work.EndOfTurnWork(store, settings, heard(speech))
        case "language-model":
            return answering_work.LanguageModelWork(store, settings)
        case "speech":
            return answering_work.SpeechWork(store, settings)
    raise ValueError(f"no stage {stage!r} to measure alone")


def recorded(path: Path) -> Int16:
    """Return the recording at ``path``: int16, 16 kHz, shape ``[n]``."""
    from edgevoice.questions import from_file

    return from_file(path).samples


def heard(path: Path) -> Float32:
    """Return the recording at ``path`` as the engines take it: float32, 16 kHz."""
    return to_float32(recorded(path))


class Stopwatch:
    """Time since it was made, on the wall and less what this thread waited for a core.

    The second is what a machine with nothing else to do would have taken: the kernel counts how
    long a thread could have run and was not let (``/proc/thread-self/schedstat``, second number,
    ns; Documentation/scheduler/sched-stats.rst). Sleeping is not waiting, and work that is handed
    to other threads is not looked into. Where the kernel does not count, both are the wall's.
    """

    def __init__(self) -> None:
        # Whoever has to wait between the two readings, here or at the end, must not have that wait
        # taken off a time that it is no part of: it made 0.4 ms of 8 ms of work.
        self._began_ns = time.perf_counter_ns()
        self._waited_ns = waited_ns()

    @property
    def ms(self) -> Times:
        """Milliseconds that have passed: float64, shape [2], the wall's first."""
        waited = waited_ns() - self._waited_ns
        wall_ns = time.perf_counter_ns() - self._began_ns
        free_ns = max(0, wall_ns - waited)
        return np.array([wall_ns / 1e6, free_ns / 1e6])


def waited_ns() -> int:
    """Return how long this thread has waited for a core since it began, 0 where nobody counts."""
    try:
        descriptor = _counters.descriptor
    except AttributeError:
        try:
            descriptor = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            descriptor = -1
        _counters.descriptor = descriptor
    if descriptor < 0:
        return 0
    return int(os.pread(descriptor, 80, 0).split()[1])


_counters = threading.local()
