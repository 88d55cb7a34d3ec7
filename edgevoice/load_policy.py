"""When to do less, and when to do all of it again. Pure: no clock, no threads, no I/O.

:func:`step` takes the state and what was measured of one turn, or of the device, and returns the
next state and the step that follows, if any. Time comes in with them. Applying a step is
:mod:`edgevoice.load_follower`'s business, measuring and loading :mod:`edgevoice.load_governor`'s.

Two thresholds and a dead band between them, as in the kernel's ``step_wise`` thermal governor: a
step down for every few turns over a budget (or every while of heat), none while it is in between,
and a step up only after several turns with room. A step up that fails at once makes the next one
wait twice as long, as WebRTC's overuse detector does, or it would be tried for ever.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal, NamedTuple, TypeAlias

from edgevoice.settings import Settings

COOLED_C = 5.0
"""So far below ``hot_c`` a device must be to count as calm: the usual hysteresis of trip points."""

_MOST_PATIENCE = 8


class Step(StrEnum):
    """What can be left out, in the order in which it is."""

    SPECULATION = "speculation"
    ANSWERS = "answers"
    RECOGNITION = "recognition"
    LANGUAGE_MODEL = "language-model"


MEANINGS = {
    Step.SPECULATION: "answers are not begun before the turn is over",
    Step.ANSWERS: "answers are shorter",
    Step.RECOGNITION: "a cheaper recogniser listens",
    Step.LANGUAGE_MODEL: "a smaller language model answers",
}


@dataclass(frozen=True, slots=True)
class LoadRules:
    """The figures that decide; the fields but the first are those of ``[load]``.

    Attributes:
        steps: Those that the settings make possible, in order.
    """

    steps: tuple[Step, ...]
    response_budget_ms: float = 1500.0
    recognition_budget_rtf: float = 1.0
    gap_budget_ms: float = 500.0
    missed_turns: int = 3
    met_turns: int = 4
    room: float = 0.7
    calm_ms: float = 60_000.0
    throttled_ms: float = 30_000.0
    hot_c: float = 0.0


@dataclass(frozen=True, slots=True)
class TurnFigures:
    """One turn as it was measured; None is not known, as for an answer that was never heard.

    Attributes:
        response_ms: From the end of the user's speech to the first sound, less what was waited
            beyond the short wait because the turn did not sound over.
        recognition_rtf: Time that recognition took over the length of what it heard.
        gap_ms: Silence within the answer because its speech was not made in time.
    """

    response_ms: float | None = None
    recognition_rtf: float | None = None
    gap_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """The device at one moment: what holds its clock down, and its temperature where it tells."""

    throttled: tuple[str, ...] = ()
    temperature_c: float | None = None


Measured: TypeAlias = TurnFigures | Reading


@dataclass(frozen=True, slots=True)
class LoadState:
    """Everything the policy remembers.

    Attributes:
        taken: How many of the steps are in force, from the first.
        missed: Turns in a row over a budget, since the last change.
        met: Turns in a row with room, since the last change.
        changed_ms: When a step was last taken, down or up.
        hot_ms: When the device was last hot, or not yet cooled.
        heat_step_ms: When heat last called for a step.
        on_trial: The last change was a step up, which has not held for long enough yet.
        patience: A step up waits so many times longer; grows when one fails on trial.
    """

    taken: int = 0
    missed: int = 0
    met: int = 0
    changed_ms: float = -math.inf
    hot_ms: float = -math.inf
    heat_step_ms: float = -math.inf
    on_trial: bool = False
    patience: int = 1


@dataclass(frozen=True, slots=True)
class Change:
    """One step, and the figure that called for it; see :class:`edgevoice.events.LoadNotice`."""

    direction: Literal["down", "up"]
    step: Step
    figure: str
    value: float
    bound: float
    detail: str


class _Cause(NamedTuple):
    """The last fields of a :class:`Change`."""

    figure: str
    value: float
    bound: float
    detail: str


Stepped: TypeAlias = tuple[LoadState, Change | None]


def rules(settings: Settings) -> LoadRules:
    """Return the rules of ``settings``, with the steps that these make possible."""
    load = settings.load
    cheaper = settings.cheaper()
    possible = {
        Step.SPECULATION: settings.turns.speculation_budget > 0,
        Step.ANSWERS: 0 < load.answer_tokens < settings.language_model.max_answer_tokens,
        Step.RECOGNITION: "recogniser" in cheaper,
        Step.LANGUAGE_MODEL: "language-model" in cheaper,
    }
    return LoadRules(
        steps=tuple(each for each in Step if load.enabled and possible[each]),
        response_budget_ms=load.response_budget_ms,
        recognition_budget_rtf=load.recognition_budget_rtf,
        gap_budget_ms=load.gap_budget_ms,
        missed_turns=load.missed_turns,
        met_turns=load.met_turns,
        room=load.room,
        calm_ms=load.calm_s * 1000.0,
        throttled_ms=load.throttled_s * 1000.0,
        hot_c=load.hot_c,
    )


def step(state: LoadState, at_ms: float, measured: Measured, rules: LoadRules) -> Stepped:
    """Return the state after ``measured`` came at ``at_ms``, and what is to change."""
    match measured:
        case TurnFigures():
            return _turn(state, at_ms, measured, rules)
        case Reading():
            return _reading(state, at_ms, measured, rules)


def without(state: LoadState, rules: LoadRules, lost: Step) -> tuple[LoadState, LoadRules]:
    """Return state and rules without the step ``lost``, which turned out not to be possible."""
    if lost not in rules.steps:
        return state, rules
    gone = rules.steps.index(lost) < state.taken
    left = tuple(each for each in rules.steps if each is not lost)
    return replace(state, taken=state.taken - gone), replace(rules, steps=left)


def _turn(state: LoadState, at_ms: float, turn: TurnFigures, rules: LoadRules) -> Stepped:
    figures = (
        ("response_ms", turn.response_ms, rules.response_budget_ms),
        ("recognition_rtf", turn.recognition_rtf, rules.recognition_budget_rtf),
        ("gap_ms", turn.gap_ms, rules.gap_budget_ms),
    )
    known = [(name, value, bound) for name, value, bound in figures if value is not None]
    if not known:
        return state, None
    name, value, bound = max(known, key=lambda figure: figure[1] / figure[2])
    shown = f"{_worded(name, value)}, budget {bound:g}"
    if value > bound:
        state = replace(state, missed=state.missed + 1, met=0)
        if state.missed < rules.missed_turns:
            return state, None
        why = f"{shown}; turns over budget in a row: {state.missed}"
        return _down(state, at_ms, rules, _Cause(name, value, bound, why))
    with_room = value <= rules.room * bound
    state = replace(state, missed=0, met=state.met + 1 if with_room else 0)
    if state.on_trial and state.met >= rules.met_turns:
        state = replace(state, on_trial=False, patience=max(1, state.patience // 2))
    if not _may_rise(state, at_ms, rules):
        return state, None
    why = f"{shown}; turns with room in a row: {state.met}"
    return _up(state, at_ms, rules, _Cause(name, value, bound, why))


def _reading(state: LoadState, at_ms: float, reading: Reading, rules: LoadRules) -> Stepped:
    celsius = -math.inf if reading.temperature_c is None else reading.temperature_c
    too_hot = bool(rules.hot_c) and celsius >= rules.hot_c
    if not reading.throttled and not too_hot:
        if rules.hot_c and celsius >= rules.hot_c - COOLED_C:
            return replace(state, hot_ms=at_ms), None
        # Turns with room may have come while it was still too early.
        if _may_rise(state, at_ms, rules):
            why = f"no heat any more; turns with room in a row: {state.met}"
            return _up(state, at_ms, rules, _Cause("throttling", 0.0, 0.0, why))
        return state, None
    state = replace(state, hot_ms=at_ms)
    if at_ms - state.heat_step_ms < rules.throttled_ms:
        return state, None
    state = replace(state, heat_step_ms=at_ms)
    if too_hot:
        why = f"{celsius:.0f} °C, bound {rules.hot_c:g}"
        return _down(state, at_ms, rules, _Cause("temperature_c", celsius, rules.hot_c, why))
    why = f"the device throttles: {', '.join(reading.throttled)}"
    held = float(len(reading.throttled))
    return _down(state, at_ms, rules, _Cause("throttling", held, 0.0, why))


def _may_rise(state: LoadState, at_ms: float, rules: LoadRules) -> bool:
    return (
        state.taken > 0
        and state.met >= rules.met_turns * state.patience
        and at_ms - state.changed_ms >= rules.calm_ms * state.patience
        and at_ms - state.hot_ms >= rules.calm_ms
    )


def _down(state: LoadState, at_ms: float, rules: LoadRules, cause: _Cause) -> Stepped:
    patience = min(2 * state.patience, _MOST_PATIENCE) if state.on_trial else state.patience
    calmer = replace(state, missed=0, met=0, on_trial=False, patience=patience)
    if state.taken >= len(rules.steps):
        return calmer, None
    change = Change("down", rules.steps[state.taken], *cause)
    return replace(calmer, taken=state.taken + 1, changed_ms=at_ms), change


def _up(state: LoadState, at_ms: float, rules: LoadRules, cause: _Cause) -> Stepped:
    taken = state.taken - 1
    risen = replace(state, taken=taken, missed=0, met=0, changed_ms=at_ms, on_trial=True)
    return risen, Change("up", rules.steps[taken], *cause)


def _worded(figure: str, value: float) -> str:
    match figure:
        case "response_ms":
            return f"first sound after {value:.0f} ms"
        case "recognition_rtf":
            return f"recognition at {value:.2f} of the speech's length"
        case _:
            return f"{value:.0f} ms of silence within an answer"
