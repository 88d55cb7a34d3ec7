"""Is the process that holds real conversations, in real time, on recorded questions.

First line in: ``{"config", "speech": [path], "began_ns"}``; out: ``{"cold_start_ms", "ran_on"}``
when it listens. Then, for each ``{"turns": n, "pace": "real-time" | "lock-step"}``, one
conversation of n questions and one line with its turns, its spans, and what it took. Ends when its
input ends.

The echo canceller is what a microphone would have, so that its work is in the figures; answers are
kept short, since what is measured is over when they begin.
"""

from __future__ import annotations

import gc
import itertools
import sys
import time
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgevoice import config, host, native_memory, talk
from edgevoice.errors import EdgevoiceError, EngineError
from edgevoice.events import Notice, StateNotice
from edgevoice.exchanges import Exchange
from edgevoice.frames import Int16, ms_to_samples, samples_to_ms
from edgevoice.loading import load_engines
from edgevoice.profiler.running_on import plain
from edgevoice.profiler.stage_child import Answer, Request, Serve, resident_mb, since_ms, speak
from edgevoice.profiler.tracing import Trace, span_cost_us, traced
from edgevoice.questions import SpokenQuestion, from_file
from edgevoice.recording import SessionRecord
from edgevoice.session import Pace
from edgevoice.settings import Settings
from edgevoice.stages import EchoCanceller

ANSWER_TOKENS = 24

_LOUD = 0.01 * 32768


class _Clock:
    """Learns from notices when the session's time 0 was on the monotonic clock."""

    def __init__(self) -> None:
        self.began_ns: int | None = None
        self.listening_ns = 0

    def watch(self, notice: Notice) -> None:
        now_ns = time.monotonic_ns()
        began_ns = now_ns - round(notice.at_ms * 1e6)
        # A notice comes a little after its time, never before it.
        self.began_ns = began_ns if self.began_ns is None else min(self.began_ns, began_ns)
        if isinstance(notice, StateNotice) and not self.listening_ns:
            self.listening_ns = now_ns


def sounded(record: SessionRecord, exchange: Exchange) -> dict[str, float | None]:
    """Return what a listener hears of a turn: its beginning, and the silence before the answer.

    ``voice_to_voice_ms`` is from the last loud sample of the user before the answer to the first of
    the agent's voice, None without an answer; ``speech_began_ms`` is when the user began.
    """
    agent = _loud(record.agent)
    answer = agent[agent > ms_to_samples(exchange.speech_end_ms - _BEFORE_MS)]
    user = _loud(record.user)
    asked = user[user < (answer[0] if answer.size else ms_to_samples(exchange.closed_ms))]
    if not asked.size:
        return {"speech_began_ms": None, "voice_to_voice_ms": None}
    pauses = np.flatnonzero(np.diff(asked) > ms_to_samples(_PAUSE_MS))
    began = asked[pauses[-1] + 1] if pauses.size else asked[0]
    silence = samples_to_ms(int(answer[0]) - int(asked[-1]) - 1) if answer.size else None
    return {"speech_began_ms": samples_to_ms(int(began)), "voice_to_voice_ms": silence}


_BEFORE_MS = 300.0
"""The VAD's end of speech may lie this much behind the last loud sample."""

_PAUSE_MS = 1000.0
"""Longer than any within a question, shorter than an answer and the rests around it."""


def _loud(samples: Int16) -> npt.NDArray[np.intp]:
    return np.flatnonzero(np.abs(samples.astype(np.int32)) > _LOUD)


def _begin(request: Request) -> tuple[Serve, Answer]:
    native_memory.bound()
    settings = config.parse(tomllib.loads(request["config"]))
    short = min(ANSWER_TOKENS, settings.language_model.max_answer_tokens)
    settings = replace(
        settings, language_model=replace(settings.language_model, max_answer_tokens=short)
    )
    engines = load_engines(settings)
    recorded = itertools.cycle([from_file(Path(path)) for path in request["speech"]])
    before_mb = resident_mb()

    def hold(questions: Iterable[SpokenQuestion], pace: Pace) -> Mapping[str, Any]:
        trace, clock = Trace(), _Clock()
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        held = talk.with_questions(
            traced(engines, trace),
            settings,
            _canceller(settings),
            list(questions),
            clock.watch,
            pace=pace,
        )
        cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
        gc.collect()  # as the daemon does behind each session, or memory would seem to grow
        if held.failure is not None:
            raise EngineError(f"the conversation ended early: {held.failure}")
        return {
            "turns": [
                {**asdict(exchange), **sounded(held.record, exchange)}
                for exchange in held.exchanges
            ],
            "unanswered": sum(not answered for answered in held.answered),
            "spans": [_span(s, clock) for s in map(asdict, trace.spans)],
            "wall_s": wall_s,
            "cpu_share": 100.0 * cpu_s / wall_s / host.cores(),
            "memory_mb": resident_mb(),
            "peak_memory_mb": host.peak_memory_mb(),
            "listening_ns": clock.listening_ns,
        }

    first = hold((), Pace.REAL_TIME)
    cold_ms = since_ms(request["began_ns"]) - (time.monotonic_ns() - first["listening_ns"]) / 1e6

    def serve(wanted: Request) -> Answer:
        pace = Pace.REAL_TIME if wanted["pace"] == "real-time" else Pace.LOCK_STEP
        return hold(itertools.islice(recorded, wanted["turns"]), pace)

    return serve, {
        "cold_start_ms": cold_ms,
        "idle_memory_mb": before_mb,
        "span_us": span_cost_us(),
        "ran_on": {stage: plain(ran) for stage, ran in engines.providers().items()},
    }


def _span(span: dict[str, Any], clock: _Clock) -> dict[str, Any]:
    """Return a span in milliseconds of the session's time."""
    assert clock.began_ns is not None
    begin_ms, end_ms = ((span.pop(k) - clock.began_ns) / 1e6 for k in ("begin_ns", "end_ns"))
    return {**span, "begin_ms": round(begin_ms, 3), "end_ms": round(end_ms, 3)}


def _canceller(settings: Settings) -> EchoCanceller | None:
    from edgevoice.audio.cleaning import clean_caller
    from edgevoice.audio.echo import Aec3Canceller

    if settings.audio.canceller in ("none", "system"):
        return clean_caller(replace(settings.audio, canceller="none"))
    try:
        return Aec3Canceller(
            noise_suppression=settings.audio.noise_suppression,
            gain_control=settings.audio.gain_control,
        )
    except EdgevoiceError:
        return None  # As `edgevoice talk` goes on without one; its own figure says that it lacks.


def main() -> int:
    """Be the child."""
    return speak(_begin)


if __name__ == "__main__":
    sys.exit(main())
