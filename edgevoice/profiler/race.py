"""Lets the candidates of one choice race against what is chosen so far: successive halving.

All are loaded side by side and take turns, so that the machine's drift falls on each alike; every
round gives each a pair with the present choice. The slower half leaves the race at fixed rounds
(Jamieson & Talwalkar 2016), so that time goes to those that may win. Only the fastest can win, and
only if it is surely faster than the present choice.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from edgevoice import config
from edgevoice.errors import EdgevoiceError
from edgevoice.latency import percentile
from edgevoice.profiler.candidates import Candidate, Choice, Kind
from edgevoice.profiler.children import STAGE, Child
from edgevoice.profiler.rounds import Open
from edgevoice.profiler.spread import Ratio, paired_ratio
from edgevoice.settings import Settings

FEWEST_PAIRS = 5
_MOST_PAIRS = 15
_HALVED_AFTER = (3, 6)
_CORE_FREE: tuple[Kind, ...] = ("scheme", "chunk")
"""Kinds that are measured less the waiting for a core, so that other work counts for little; for
the others that waiting is part of what they change."""

_AT_ONCE = 3
"""Candidates that are loaded beside the present choice: memory is short where it matters most."""

_CLAUSE_TOKENS = 8

Pairs = list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Trial:
    """A candidate against what was chosen before it.

    Attributes:
        candidate: What was tried.
        ratio: Its time over the other's.
        pairs: How many there were.
        adopted: Whether it was the fastest and surely faster.
        failure: Why it could not be measured, "" if it could.
    """

    candidate: Candidate
    ratio: Ratio
    pairs: int
    adopted: bool
    failure: str = ""


def wait_ms(stage: str, sample: Mapping[str, float]) -> float:
    """Return what a turn waits for a stage, of one sample: less is better."""
    match stage:
        case "recogniser":
            return sample["final_ms"]
        case "end-of-turn":
            return sample["judge_ms"]
        case "language-model":
            clause_ms = _CLAUSE_TOKENS * 1000.0 / sample["decode_kept_tokens_per_s"]
            return sample["first_token_kept_ms"] + clause_ms
        case "speech":
            # A first sound that comes early and stops again is no gain.
            return sample["unbroken_ms"]
    raise ValueError(f"no turn waits for {stage!r} alone")


def race(
    settings: Settings,
    choice: Choice,
    speech: str,
    limit_s: float,
    *,
    level: float,
    open_child: Open,
) -> Iterator[Trial]:
    """Yield a trial of every candidate; at most one of them is adopted.

    Args:
        settings: What is chosen so far.
        choice: What is tried.
        speech: A recorded question.
        limit_s: No round is begun after this, but for the fewest.
        level: Confidence with which the winner must be faster.
        open_child: Starts the processes that measure.
    """
    ends_s = time.monotonic() + limit_s
    found: list[Trial] = []
    heats = [
        choice.candidates[i : i + _AT_ONCE] for i in range(0, len(choice.candidates), _AT_ONCE)
    ]
    for number, heat in enumerate(heats):
        share_s = (ends_s - time.monotonic()) / (len(heats) - number)
        trials = _heat(settings, heat, speech, share_s, level=level, open_child=open_child)
        # Who wins a heat is who the next has to beat; an earlier winner is then no more.
        for won in (trial for trial in trials if trial.adopted):
            settings = config.override(settings, [won.candidate.assignment])
            found = [_lost(trial) for trial in found]
        found += trials
    yield from found


def _heat(
    settings: Settings,
    heat: Sequence[Candidate],
    speech: str,
    limit_s: float,
    *,
    level: float,
    open_child: Open,
) -> list[Trial]:
    ends_s = time.monotonic() + limit_s
    failures: dict[Candidate, str] = {}
    pairs: dict[Candidate, Pairs] = {}
    with ExitStack() as stack:
        stage = heat[0].stage
        own = stack.enter_context(open_child(STAGE, settings, stage=stage, speech=speech))
        running: dict[Candidate, Child] = {}
        for candidate in heat:
            changed = config.override(settings, [candidate.assignment])
            try:
                child = open_child(STAGE, changed, stage=stage, speech=speech)
            except EdgevoiceError as error:
                failures[candidate] = str(error)
                continue
            stack.enter_context(child)
            if reason := _elsewhere(candidate, child.first["ran_on"]):
                failures[candidate] = reason
                continue
            running[candidate], pairs[candidate] = child, []
        for number in range(_MOST_PAIRS):
            late = time.monotonic() > ends_s
            if not running or (
                number >= FEWEST_PAIRS and (late or _settled(running, pairs, level))
            ):
                break
            try:
                _round(own, running, pairs, heat[0], number)
            except EdgevoiceError as error:
                failures.update(dict.fromkeys(running, str(error)))
                break
            if number + 1 in _HALVED_AFTER:
                _halve(running, pairs)
    tried = [candidate for candidate in heat if candidate not in failures]
    ratios = {each: paired_ratio([[pair] for pair in pairs[each]]) for each in tried}
    fastest = min(
        (each for each in tried if each in running), key=lambda c: ratios[c].value, default=None
    )
    return [
        Trial(each, Ratio(1.0, 0.0, 1.0), 0, False, failures[each])
        if each in failures
        else Trial(
            each,
            ratios[each],
            len(pairs[each]),
            each is fastest and ratios[each].interval(level)[1] < 1.0,
        )
        for each in heat
    ]


def _round(
    own: Child,
    running: Mapping[Candidate, Child],
    pairs: Mapping[Candidate, Pairs],
    first: Candidate,
    number: int,
) -> None:
    """Measure all, another first each time."""
    children = [own, *running.values()]
    turned = number % len(children)
    clock = "free" if first.kind in _CORE_FREE else "samples"
    took: dict[Child, float] = {}
    for child in (*children[turned:], *children[:turned]):
        (sample,) = child.ask(samples=1)[clock]
        took[child] = wait_ms(first.stage, sample)
    for candidate, child in running.items():
        pairs[candidate].append((took[own], took[child]))


def _halve(running: dict[Candidate, Child], pairs: Mapping[Candidate, Pairs]) -> None:
    """Take the slower half out."""

    def middle(candidate: Candidate) -> float:
        return percentile([math.log(b / a) for a, b in pairs[candidate]], 50.0)

    for candidate in sorted(running, key=middle)[(len(running) + 1) // 2 :]:
        del running[candidate]


def _settled(
    running: Mapping[Candidate, Child], pairs: Mapping[Candidate, Pairs], level: float
) -> bool:
    bounds = [paired_ratio([[p] for p in pairs[each]]).interval(level) for each in running]
    return len(running) == 1 and all(low > 1.0 or high < 1.0 for low, high in bounds)


def _elsewhere(candidate: Candidate, ran_on: Mapping[str, Any] | None) -> str:
    """Return why a provider did not run, "" if it did or none was asked for."""
    if candidate.kind != "provider":
        return ""
    if ran_on is None:
        return "its engine does not say what it ran on"
    if ran_on["name"] == candidate.value:
        return ""
    return f"ran on {ran_on['name']}; {'; '.join(ran_on['passed_over'])}"


def _lost(trial: Trial) -> Trial:
    return Trial(trial.candidate, trial.ratio, trial.pairs, False, trial.failure)
