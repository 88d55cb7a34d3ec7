"""Spans that nest, and engines that record one for every call.

A span's parent is the one that was open on the same thread when it began.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from edgevoice.engine_calls import wrapped
from edgevoice.weights import Engines


@dataclass(slots=True)
class Span:
    """One stretch of work.

    Attributes:
        stage: One of :data:`edgevoice.profiler.figures.STAGES`.
        name: What was done.
        parent: Position of the enclosing span in its trace, -1 for none.
        begin_ns: On the monotonic clock.
        end_ns: 0 while it is open.
    """

    stage: str
    name: str
    parent: int
    begin_ns: int
    end_ns: int = 0


class Trace:
    """Collects spans from any thread."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self._open = threading.local()
        self._lock = threading.Lock()

    @contextmanager
    def span(self, stage: str, name: str) -> Iterator[None]:
        """Record what happens inside."""
        stack: list[int] = self._open.__dict__.setdefault("stack", [])
        span = Span(stage, name, stack[-1] if stack else -1, time.monotonic_ns())
        with self._lock:
            number = len(self.spans)
            self.spans.append(span)
        stack.append(number)
        try:
            yield
        finally:
            span.end_ns = time.monotonic_ns()
            stack.remove(number)


def span_cost_us(count: int = 2000) -> float:
    """Measure what recording one span costs, in microseconds."""
    trace = Trace()
    began_ns = time.perf_counter_ns()
    for _ in range(count):
        with trace.span("", ""):
            pass
    return (time.perf_counter_ns() - began_ns) / 1e3 / count


def traced(engines: Engines, trace: Trace) -> Engines:
    """Return ``engines`` with a span for every call that takes time."""
    return wrapped(engines, trace.span, trace.span)
