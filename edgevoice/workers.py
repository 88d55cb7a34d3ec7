"""A thread with an inbox: the one place where a session's slow work runs.

A worker runs one job at a time, in order. A job that raises reports its error and the worker
lives on.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

Job = Callable[[], None]


class Worker:
    """Runs jobs on a thread of its own.

    Args:
        name: Of the thread, for debuggers.
        on_error: Called on the worker's thread with what a job raised.
    """

    def __init__(self, name: str, on_error: Callable[[Exception], None]) -> None:
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._on_error = on_error
        self._unfinished = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Put a job at the end of the inbox. Who submits bounds how many wait."""
        with self._lock:
            self._unfinished += 1
        self._jobs.put(job)

    @property
    def idle(self) -> bool:
        """True when nothing runs and nothing waits."""
        with self._lock:
            return self._unfinished == 0

    def close(self, timeout_s: float = 10.0) -> None:
        """Finish what waits, then end the thread."""
        self._jobs.put(None)
        self._thread.join(timeout_s)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception as error:
                self._on_error(error)
            finally:
                with self._lock:
                    self._unfinished -= 1
