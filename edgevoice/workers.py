"""A thread with an inbox: the one place where a session's slow work runs.

A worker runs one job at a time, in order. A job that raises reports its error and the worker
lives on. Where a session's clock is the audio's, jobs run on the session's own thread instead: what
a job sees of the session must not depend on when a thread came to it.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
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

    def step(self) -> bool:
        """Do nothing: the thread does the jobs. Return False."""
        return False

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


class SteppedWorker:
    """Runs jobs on the thread that calls :meth:`step`.

    Args:
        name: For the same place as a :class:`Worker`'s.
        on_error: Called with what a job raised.
    """

    def __init__(self, name: str, on_error: Callable[[Exception], None]) -> None:
        self.name = name
        self._on_error = on_error
        self._jobs: deque[Job] = deque()

    def submit(self, job: Job) -> None:
        """Put a job at the end of the inbox."""
        self._jobs.append(job)

    @property
    def idle(self) -> bool:
        """True when nothing waits."""
        return not self._jobs

    def step(self) -> bool:
        """Run the job that has waited longest; return False where none waits."""
        if not self._jobs:
            return False
        job = self._jobs.popleft()
        try:
            job()
        except Exception as error:
            self._on_error(error)
        return True

    def close(self, timeout_s: float = 10.0) -> None:
        """Finish what waits, however long it takes."""
        del timeout_s
        while self.step():
            pass
