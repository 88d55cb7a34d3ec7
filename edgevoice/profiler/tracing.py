"""Spans that nest, and engines that record one for every call.

A span's parent is the one that was open on the same thread when it began. The engines stay what
they are: a wrapped one passes everything on and takes the time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from edgevoice.frames import Float32
from edgevoice.stages import (
    Cancelled,
    Ending,
    EndOfTurn,
    LanguageModel,
    LanguageModelModel,
    Message,
    Recogniser,
    RecogniserModel,
    Speech,
    Transcript,
    never,
)
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
    """Return ``engines`` with a span for every call that takes time.

    The VAD is left as it is: its hundred calls a second are measured on their own.
    """
    judge = engines.end_of_turn
    return Engines(
        vad=engines.vad,
        recogniser=_RecogniserModel(engines.recogniser, trace),
        end_of_turn=_EndOfTurn(judge, trace) if judge is not None else None,
        language_model=_LanguageModelModel(engines.language_model, trace),
        speech=_Speech(engines.speech, trace),
    )


class _RecogniserModel:
    def __init__(self, model: RecogniserModel, trace: Trace) -> None:
        self._model, self._trace = model, trace

    def open(self) -> Recogniser:
        return _Recogniser(self._model.open(), self._trace)

    def close(self) -> None:
        self._model.close()


class _Recogniser:
    def __init__(self, recogniser: Recogniser, trace: Trace) -> None:
        self._recogniser, self._trace = recogniser, trace

    def accept(self, samples: Float32) -> None:
        self._recogniser.accept(samples)

    def partial(self) -> Transcript | None:
        with self._trace.span("recogniser", "partial"):
            return self._recogniser.partial()

    def conclude(self) -> Transcript:
        with self._trace.span("recogniser", "final text"):
            return self._recogniser.conclude()

    def endpoint(self) -> bool:
        return self._recogniser.endpoint()

    def reset(self) -> None:
        self._recogniser.reset()


class _EndOfTurn:
    def __init__(self, judge: EndOfTurn, trace: Trace) -> None:
        self._judge, self._trace = judge, trace

    def probability(self, samples: Float32) -> float:
        with self._trace.span("end-of-turn", "judgement"):
            return self._judge.probability(samples)


class _LanguageModelModel:
    def __init__(self, model: LanguageModelModel, trace: Trace) -> None:
        self._model, self._trace = model, trace

    def open(self) -> LanguageModel:
        return _LanguageModel(self._model.open(), self._trace)

    def close(self) -> None:
        self._model.close()


class _LanguageModel:
    def __init__(self, model: LanguageModel, trace: Trace) -> None:
        self._model, self._trace = model, trace

    @property
    def context_tokens(self) -> int:
        return self._model.context_tokens

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return self._model.count_tokens(messages)

    def prefill(self, messages: Sequence[Message], cancelled: Cancelled = never) -> int:
        with self._trace.span("language-model", "prefill"):
            return self._model.prefill(messages, cancelled)

    def ending(self, messages: Sequence[Message], cancelled: Cancelled = never) -> Ending | None:
        with self._trace.span("language-model", "is the text over"):
            return self._model.ending(messages, cancelled)

    def generate(self, messages: Sequence[Message], cancelled: Cancelled = never) -> Iterator[str]:
        pieces = self._model.generate(messages, cancelled)
        return _each(pieces, self._trace, "language-model", ("answer", "token"))

    def close(self) -> None:
        self._model.close()


class _Speech:
    def __init__(self, speech: Speech, trace: Trace) -> None:
        self._speech, self._trace = speech, trace

    @property
    def sample_rate_hz(self) -> int:
        return self._speech.sample_rate_hz

    def synthesise(self, text: str, cancelled: Cancelled = never) -> Iterator[Float32]:
        chunks = self._speech.synthesise(text, cancelled)
        return _each(chunks, self._trace, "speech", ("clause", "sound"))

    def close(self) -> None:
        self._speech.close()


def _each(pieces: Iterator, trace: Trace, stage: str, names: tuple[str, str]) -> Iterator:  # type: ignore[type-arg]
    """Yield ``pieces``: a span for all of them, and inside it one for the making of each."""
    whole, part = names
    with trace.span(stage, whole):
        while True:
            with trace.span(stage, part):
                piece = next(pieces, None)
            if piece is None:
                return
            yield piece
