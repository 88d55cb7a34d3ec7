"""Measures in rounds: each starts every stage in a fresh process, and takes a few samples of it.

So a slow spell of the machine falls on all stages alike and lies inside the spread of each, and
so does what differs from one process to the next. Owns the order and the time that is left; what
samples say is :mod:`edgevoice.profiler.spread`'s business.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from edgevoice.profiler import energy, yardstick
from edgevoice.profiler.children import CONVERSATION, STAGE, Child
from edgevoice.profiler.figures import FIGURES, STAGES, YARDSTICK
from edgevoice.profiler.running_on import RanOn
from edgevoice.profiler.workload import NotMeasurable, Times
from edgevoice.settings import Settings

CONVERSATION_STAGE = STAGES[-1]

_SAMPLES = {
    "vad": 10,
    "echo-canceller": 10,
    "first-pass": 4,
    "recogniser": 2,
    "end-of-turn": 5,
    "language-model": 2,
    "speech": 3,
}
_FEWEST_ROUNDS = 3
"""Fewer have no interval worth the name: Student's factor for two is 12.7."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured.

    Attributes:
        rounds: At most.
        limit_s: No round is begun after this, and behind the third none that would end after it.
        stages: Which, of :data:`edgevoice.profiler.figures.STAGES`.
        turns: Of the conversation in each round.
        share: Of the usual samples of each stage in each round.
    """

    rounds: int = 8
    limit_s: float = 270.0
    stages: tuple[str, ...] = STAGES
    turns: int = 2
    share: float = 1.0

    def samples(self, stage: str) -> int:
        """Return how many samples of ``stage`` a round takes."""
        return max(1, round(_SAMPLES[stage] * self.share))


QUICK = Plan(rounds=_FEWEST_ROUNDS, turns=1, share=0.5)


@dataclass(slots=True)
class Measured:
    """What the rounds found.

    Attributes:
        samples: By figure and round; a round that gave none is empty.
        free: The same, less what the stage's thread waited for a core; not of all figures.
        ran_on: By stage, what its processes ran on where onnxruntime ran them; different ones once.
        turns: Every turn of the conversations, as the child told it.
        spans: Of each turn's conversation, by the turn's position.
        not_measured: Why not, by figure or stage.
        rounds: How many there were.
        took_s: How long they took.
        parent_share: Of one core, what this process took while it waited.
        span_us: What recording one span costs.
    """

    samples: dict[str, list[list[float]]] = field(default_factory=dict)
    free: dict[str, list[list[float]]] = field(default_factory=dict)
    ran_on: dict[str, list[RanOn]] = field(default_factory=dict)
    turns: list[dict[str, Any]] = field(default_factory=list)
    spans: list[list[dict[str, Any]]] = field(default_factory=list)
    not_measured: dict[str, str] = field(default_factory=dict)
    rounds: int = 0
    took_s: float = 0.0
    parent_share: float = 0.0
    span_us: float = 0.0

    def add_ran_on(self, stage: str, ran: RanOn | None) -> None:
        """Put what a process of ``stage`` ran on, None where it did not say."""
        if ran is not None and ran not in self.ran_on.setdefault(stage, []):
            self.ran_on[stage].append(ran)

    def add(self, stage: str, sample: Mapping[str, float]) -> None:
        """Put values of one sample into the round under way."""
        for name, value in sample.items():
            self._put(self.samples, f"{stage}.{name}", value)

    def add_free(self, stage: str, sample: Mapping[str, float]) -> None:
        """Put the same sample's values, less the waiting for a core."""
        for name, value in sample.items():
            self._put(self.free, f"{stage}.{name}", value)

    def add_times(self, key: str, times: Times) -> None:
        """Put both values of a figure."""
        self._put(self.samples, key, times[0])
        self._put(self.free, key, times[1])

    def _put(self, where: dict[str, list[list[float]]], key: str, value: float) -> None:
        series = where.setdefault(key, [])
        while len(series) < self.rounds:
            series.append([])
        series[-1].append(round(float(value), 6))


class Open(Protocol):
    """Starts a process that measures; :class:`edgevoice.profiler.children.Child` in earnest."""

    def __call__(self, module: str, settings: Settings, **request: object) -> Child:
        """Return the process, loaded."""
        ...


def measure(
    settings: Settings,
    speech: Iterable[Path],
    plan: Plan,
    advance: Callable[[str], object],
    open_child: Open = Child,
) -> Measured:
    """Run the rounds.

    Args:
        settings: What is measured.
        speech: The recorded questions.
        plan: How much of it.
        advance: Called with the stage that comes next, before each.
        open_child: Starts the processes.

    Raises:
        EdgevoiceError: A stage cannot be loaded, failed, or took its process with it.
    """
    questions = [str(path) for path in speech]
    found = Measured()
    meter = energy.find()
    if isinstance(meter, str) and CONVERSATION_STAGE in plan.stages:
        found.not_measured[f"{CONVERSATION_STAGE}.energy_j"] = meter
    began_s, own_s = time.monotonic(), time.process_time()
    longest_s = yard_s = 0.0
    for number in range(plan.rounds):
        left_s = plan.limit_s - (time.monotonic() - began_s)
        # The first few may run over, by less than one of them.
        if number and left_s < (longest_s * 1.05 if number >= _FEWEST_ROUNDS else 0.0):
            break
        round_began_s = time.monotonic()
        found.rounds = number + 1
        # Another first each time: whoever follows the language model finds a warmer processor.
        turned = number % len(plan.stages)
        for stage in (*plan.stages[turned:], *plan.stages[:turned]):
            advance(stage)
            if stage in found.not_measured:
                continue
            yard_began_s = time.process_time()
            found.add_times(YARDSTICK, yardstick.work_ms())
            yard_s += time.process_time() - yard_began_s
            try:
                if stage == CONVERSATION_STAGE:
                    _converse(settings, questions, plan, found, meter=meter, open_child=open_child)
                else:
                    _sample(settings, questions[0], stage, plan, found, open_child=open_child)
            except NotMeasurable as reason:
                found.not_measured[stage] = str(reason)
        longest_s = max(longest_s, time.monotonic() - round_began_s)
    found.took_s = time.monotonic() - began_s
    found.parent_share = (time.process_time() - own_s - yard_s) / max(found.took_s, 1e-9)
    _explain(found, plan.stages)
    return found


def _sample(
    settings: Settings, speech: str, stage: str, plan: Plan, found: Measured, *, open_child: Open
) -> None:
    with open_child(STAGE, settings, stage=stage, speech=speech) as child:
        answer = child.ask(samples=plan.samples(stage))
        found.add_ran_on(stage, child.first["ran_on"])
        found.add(stage, {"cold_start_ms": child.first["cold_start_ms"]})
        found.add_free(stage, {"cold_start_ms": child.first["free_ms"]})
        for sample, free in zip(answer["samples"], answer["free"], strict=True):
            found.add(stage, sample)
            found.add_free(stage, free)
        found.add(stage, {name: answer[name] for name in ("busy_cores", "memory_mb")})


def _converse(
    settings: Settings,
    questions: list[str],
    plan: Plan,
    found: Measured,
    *,
    meter: energy.Meter | str,
    open_child: Open,
) -> None:
    stage = CONVERSATION_STAGE
    with open_child(CONVERSATION, settings, speech=questions) as child:
        found.span_us = child.first["span_us"]
        for each, ran in child.first["ran_on"].items():
            found.add_ran_on(each, ran)
        request = {"turns": plan.turns, "pace": "real-time"}
        if isinstance(meter, energy.Meter):
            with energy.taken(meter) as reading:
                answer = child.ask(**request)
            if reading.joules is not None:
                found.add(stage, {"energy_j": reading.joules / plan.turns})
        else:
            answer = child.ask(**request)
        found.add(stage, {"cold_start_ms": child.first["cold_start_ms"]})
        found.add(stage, {k: answer[k] for k in ("memory_mb", "peak_memory_mb", "cpu_share")})
        for turn in answer["turns"]:
            add_turn(found, turn)
            found.turns.append(turn)
            found.spans.append(answer["spans"])


def add_turn(found: Measured, turn: Mapping[str, Any]) -> None:
    """Put one turn's figures into the round under way; what it lacks is left out."""
    if turn["voice_to_voice_ms"] is not None:
        found.add(CONVERSATION_STAGE, {"voice_to_voice_ms": turn["voice_to_voice_ms"]})
    for span, value in turn["spans_ms"].items():
        if f"{CONVERSATION_STAGE}.{span}_ms" in FIGURES:
            found.add(CONVERSATION_STAGE, {f"{span}_ms": value})


def _explain(found: Measured, stages: tuple[str, ...]) -> None:
    """Say of every figure that has no sample why it has none."""
    for key, figure in FIGURES.items():
        if key in found.samples or key in found.not_measured or figure.stage not in stages:
            continue
        if figure.stage not in found.not_measured:
            found.not_measured[key] = _WHY_NOT.get(key, "no sample of it came")


_SHORT = (
    "the question is shorter than recogniser.partial_interval_ms (recogniser.rewrite_interval_ms "
    "where two passes listen)"
)
_WHY_NOT = {
    "recogniser.first_partial_ms": _SHORT,
    "recogniser.partial_ms": _SHORT,
}
