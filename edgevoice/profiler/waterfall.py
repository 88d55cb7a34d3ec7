"""One turn as nested spans: what the user and the engines did when, and what enclosed it.

Puts together the marks of the turn (:mod:`edgevoice.latency`), which say when what was known, and
the engines' calls (:mod:`edgevoice.profiler.tracing`). The zero is the end of the user's speech.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any

from edgevoice.profiler.running_on import RanOn, short

_LEAST_MS = 0.05
"""Shorter calls are left out: a recogniser that is asked for a partial and has none."""

_TURN = "turn"


@dataclass(frozen=True, slots=True)
class Bar:
    """A stretch of a turn.

    Attributes:
        stage: Whose work it is; "turn" for the stretches that the marks divide it into.
        name: What was done.
        begin_ms: After the end of the user's speech; before it, negative.
        end_ms: Likewise.
        depth: How many bars enclose it.
        ran_on: Execution provider of the call, "" where onnxruntime had no part in it.
    """

    stage: str
    name: str
    begin_ms: float
    end_ms: float
    depth: int
    ran_on: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def middle(turns: Sequence[Mapping[str, Any]]) -> int | None:
    """Return the position of the answered turn with the median voice-to-voice time."""
    answered = [
        (turn["voice_to_voice_ms"], position)
        for position, turn in enumerate(turns)
        if turn["voice_to_voice_ms"] is not None
    ]
    return sorted(answered)[len(answered) // 2][1] if answered else None


def bars(
    turn: Mapping[str, Any],
    spans: Sequence[Mapping[str, Any]],
    ran_on: Mapping[str, Sequence[RanOn]] = MappingProxyType({}),
) -> tuple[Bar, ...]:
    """Return a turn's bars, each behind the one that encloses it.

    Args:
        turn: An exchange with its ``speech_began_ms``, ``speech_end_ms``, ``closed_ms`` and
            ``spans_ms``.
        spans: The calls of the conversation that it is from; parents come before children.
        ran_on: What the stages ran on.
    """
    zero_ms = turn["speech_end_ms"]
    marks = turn["spans_ms"]
    end_ms = turn["closed_ms"] - zero_ms
    began_ms = zero_ms if turn["speech_began_ms"] is None else turn["speech_began_ms"]
    calls = [
        (number, span)
        for number, span in enumerate(spans)
        if span["end_ms"] - span["begin_ms"] >= _LEAST_MS
        and span["end_ms"] > began_ms
        and span["begin_ms"] < turn["closed_ms"]
    ]
    begin_ms = min([began_ms - zero_ms, *(span["begin_ms"] - zero_ms for _, span in calls)])
    found = [Bar(_TURN, "turn", begin_ms, end_ms, 0)]
    stretches = [("user speaks", began_ms - zero_ms, 0.0)]
    if "endpoint" in marks:
        stretches.append(("is the turn over?", 0.0, marks["endpoint"]))
    if "paused" in marks:
        stretches.append(("pause noticed", 0.0, marks["paused"]))
    if "endpoint" in marks and "first_sound" in marks:
        stretches.append(("waiting for the first sound", marks["endpoint"], marks["first_sound"]))
    if "first_sound" in marks:
        stretches.append(("agent speaks", marks["first_sound"], end_ms))
    within = {"pause noticed": 2}
    found += [Bar(_TURN, name, a, b, within.get(name, 1)) for name, a, b in stretches if b > a]
    depths: dict[int, int] = {}
    for number, span in calls:
        depths[number] = depths.get(span["parent"], 0) + 1
        a, b = span["begin_ms"] - zero_ms, span["end_ms"] - zero_ms
        where = short(ran_on.get(span["stage"], ()))
        found.append(Bar(span["stage"], span["name"], a, b, depths[number], where))
    return tuple(
        replace(bar, begin_ms=round(bar.begin_ms, 2), end_ms=round(bar.end_ms, 2)) for bar in found
    )
