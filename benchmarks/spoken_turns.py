"""One spoken turn through the daemon: when it was answered, whether too early, what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from call import Call

from edgevoice.frames import Float32
from edgevoice.latency import percentile

_LEAD_MS = 400.0
_LONGEST_WAIT_S = 6.0


@dataclass
class Turn:
    """What became of one utterance.

    Attributes:
        name: Of the utterance.
        latency_ms: From its last sound to the answer's first; None where there was none.
        answered_early: The agent's voice was heard before the user had finished.
        ended_early: The agent took the turn for finished before it was.
        text: What was understood.
        spans_ms: The daemon's own spans of the turn; empty for the cascade.
        tokens: Read and written by the language model.
        wasted_tokens: Of those, for nothing.
        begun: Answers that were begun.
        dropped: Of those, never heard.
    """

    name: str
    latency_ms: float | None = None
    answered_early: bool = False
    ended_early: bool = False
    text: str = ""
    spans_ms: dict[str, float] = field(default_factory=dict)
    tokens: int = 0
    wasted_tokens: int = 0
    begun: int = 0
    dropped: int = 0


def ask(url: str, name: str, samples: Float32, listen_s: float = 0.3) -> Turn:
    """Say ``samples`` in a conversation of its own, and listen to the answer for so long."""
    turn = Turn(name)
    loud = np.flatnonzero(np.abs(samples) > 0.01)
    with Call(url) as call:
        call.wait(_LEAD_MS)
        begin_ms, _ = call.say(samples[: loud[-1] + 1])
        end_ms = begin_ms + (loud[-1] + 1) / 16.0
        call.wait(end_ms)
        call.wait_until(lambda: call.first_sound_ms(end_ms) is not None, _LONGEST_WAIT_S)
        first_ms = call.first_sound_ms(0.0)
        turn.answered_early = first_ms is not None and bool(first_ms < end_ms)
        after_ms = call.first_sound_ms(end_ms)
        turn.latency_ms = None if after_ms is None else round(float(after_ms - end_ms), 1)
        told = call.all("transcript", role="user", final=True)
        turn.ended_early = any(note.at_ms < end_ms for note in told)
        turn.text = " ".join(note.body["text"] for note in told)
        call.wait_for("metrics", timeout_s=listen_s, since_ms=end_ms)
        call.hang_up()
        for note in call.all("metrics"):
            turn.spans_ms = note.body["spans_ms"]
            counts = note.body["speculation"]
            turn.tokens = int(counts["tokens_read"] + counts["tokens_written"])
            turn.wasted_tokens = int(counts["tokens_wasted"])
            turn.begun = int(counts["answers_prepared"])
            turn.dropped = int(counts["answers_dropped"])
    return turn


def figures(turns: Sequence[Turn]) -> dict[str, Any]:
    """Return latency percentiles and the median of each span."""
    latencies = [t.latency_ms for t in turns if t.latency_ms is not None and not t.answered_early]
    spans: dict[str, list[float]] = {}
    for turn in turns:
        for name, value in turn.spans_ms.items():
            spans.setdefault(name, []).append(value)
    return {
        "turns": len(turns),
        "missed": sum(t.latency_ms is None for t in turns),
        "latency p50, ms": round(percentile(latencies, 50)) if latencies else None,
        "latency p90, ms": round(percentile(latencies, 90)) if latencies else None,
        "spans p50, ms": "; ".join(
            f"{name} {percentile(values, 50):.0f}" for name, values in spans.items()
        ),
    }
