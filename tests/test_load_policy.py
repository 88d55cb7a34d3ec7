"""When the runtime does less, and when it does all of it again: no clock, no threads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevoice.config import override
from edgevoice.load_policy import (
    Change,
    LoadRules,
    LoadState,
    Measured,
    Reading,
    Step,
    TurnFigures,
    rules,
    step,
    without,
)
from edgevoice.settings import Settings

ALL = tuple(Step)
RULES = LoadRules(
    ALL, response_budget_ms=1000.0, missed_turns=3, met_turns=2, calm_ms=20_000.0, hot_c=80.0
)
SLOW, BETWEEN, QUICK = (TurnFigures(response_ms=ms) for ms in (1500.0, 900.0, 400.0))
UNHEARD = TurnFigures()
COOL, WARM, HOT = (Reading((), celsius) for celsius in (60.0, 77.0, 85.0))
THROTTLED = Reading(("throttled",), 60.0)
TURN_MS = 10_000.0


def told(
    measured: Sequence[Measured], state: LoadState | None = None, rules: LoadRules = RULES
) -> tuple[LoadState, list[str]]:
    """One every ten seconds; changes as "number+step" or "number-step"."""
    state = state or LoadState()
    changes = []
    for number, each in enumerate(measured, 1):
        state, change = step(state, number * TURN_MS, each, rules)
        if change is not None:
            changes.append(f"{number}{'-' if change.direction == 'down' else '+'}{change.step}")
    return state, changes


@pytest.mark.parametrize(
    ("measured", "changes"),
    [
        ([SLOW] * 2, []),
        ([SLOW] * 3, ["3-speculation"]),
        # One step, then it is seen what came of it.
        ([SLOW] * 7, ["3-speculation", "6-answers"]),
        (
            [SLOW] * 30,
            ["3-speculation", "6-answers", "9-recognition", "12-language-model"],
        ),
        # A turn within the budget ends the row, and one that nobody heard says nothing.
        ([SLOW, SLOW, BETWEEN, SLOW, SLOW], []),
        ([SLOW, SLOW, UNHEARD, SLOW], ["4-speculation"]),
        # Up after two turns with room, when 20 s have passed since the last step.
        ([*[SLOW] * 3, QUICK, QUICK], ["3-speculation", "5+speculation"]),
        (
            [*[SLOW] * 6, *[QUICK] * 4],
            ["3-speculation", "6-answers", "8+answers", "10+speculation"],
        ),
        # In the dead band nothing moves.
        ([*[SLOW] * 3, *[BETWEEN] * 20], ["3-speculation"]),
        ([*[SLOW] * 3, QUICK, BETWEEN, QUICK, BETWEEN], ["3-speculation"]),
        ([QUICK] * 20, []),
        # Heat: a step at once, another after 30 s, none while it only is warm.
        ([HOT, HOT, HOT, HOT], ["1-speculation", "4-answers"]),
        ([THROTTLED, COOL, THROTTLED], ["1-speculation"]),
        ([WARM] * 20, []),
        # 20 s without heat, however quick the turns are.
        ([HOT, QUICK, WARM, QUICK, QUICK], ["1-speculation", "5+speculation"]),
        # The turns were there before it had been calm for long enough.
        ([HOT, QUICK, WARM, QUICK, COOL], ["1-speculation", "5+speculation"]),
        ([COOL] * 20, []),
    ],
)
def test_steps(measured: Sequence[Measured], changes: list[str]) -> None:
    assert told(measured)[1] == changes


def test_a_step_up_that_fails_at_once_waits_twice_as_long() -> None:
    down_up_down = [*[SLOW] * 3, *[QUICK] * 2, *[SLOW] * 3]
    state, changes = told(down_up_down)
    assert changes == ["3-speculation", "5+speculation", "8-speculation"]
    assert state.patience == 2
    # Two turns were enough before; now it takes four, and 40 s.
    assert told([*down_up_down, *[QUICK] * 4])[1][3:] == ["12+speculation"]
    # One that held for two turns is forgiven.
    held, _ = told([*down_up_down, *[QUICK] * 4, *[QUICK] * 2])
    assert (held.patience, held.on_trial) == (1, False)


def test_patience_has_an_end() -> None:
    state = LoadState()
    at_ms, tries = 0.0, 0
    for _ in range(2000):
        at_ms += TURN_MS
        trying = not state.taken
        state, change = step(state, at_ms, SLOW if trying else QUICK, RULES)
        tries += change is not None and change.direction == "up"
    assert state.patience == 8
    # Every 16 turns of waiting and 3 of failing: it goes on trying.
    assert tries == pytest.approx(2000 / 19, abs=5)


@pytest.mark.parametrize(
    ("figures", "figure", "detail"),
    [
        (
            TurnFigures(response_ms=2000.0, recognition_rtf=1.1, gap_ms=0.0),
            "response_ms",
            "first sound after 2000 ms, budget 1000; turns over budget in a row: 3",
        ),
        (
            TurnFigures(response_ms=1200.0, recognition_rtf=2.5, gap_ms=0.0),
            "recognition_rtf",
            "recognition at 2.50 of the speech's length, budget 1; turns over budget in a row: 3",
        ),
        (
            TurnFigures(response_ms=200.0, recognition_rtf=0.1, gap_ms=900.0),
            "gap_ms",
            "900 ms of silence within an answer, budget 500; turns over budget in a row: 3",
        ),
    ],
)
def test_the_worst_figure_is_named(figures: TurnFigures, figure: str, detail: str) -> None:
    state = LoadState()
    for number in range(3):
        state, change = step(state, number * TURN_MS, figures, RULES)
    assert change is not None
    assert (change.figure, change.detail) == (figure, detail)
    assert change.value == getattr(figures, figure)


def test_heat_is_named() -> None:
    _, hot = step(LoadState(), 0.0, HOT, RULES)
    _, held = step(LoadState(), 0.0, THROTTLED, RULES)
    assert hot is not None
    assert (hot.figure, hot.value, hot.bound, hot.detail) == (
        *("temperature_c", 85.0, 80.0, "85 °C, bound 80"),
    )
    assert held is not None
    assert (held.figure, held.detail) == ("throttling", "the device throttles: throttled")


def test_without_a_bound_temperature_says_nothing() -> None:
    assert told([HOT] * 9, rules=replace(RULES, hot_c=0.0))[1] == []


def test_a_step_that_is_lost_is_not_taken_again() -> None:
    state, _ = told([SLOW] * 9)
    assert state.taken == 3
    left, fewer = without(state, RULES, Step.RECOGNITION)
    assert (left.taken, fewer.steps) == (2, (*ALL[:2], ALL[3]))
    _, change = step(replace(left, missed=2), 100_000.0, SLOW, fewer)
    assert change is not None
    assert change.step is Step.LANGUAGE_MODEL
    # One that is not taken yet only goes.
    assert without(state, RULES, Step.LANGUAGE_MODEL)[0].taken == 3


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ([], ("speculation", "answers")),
        (["load.enabled=false"], ()),
        (["turns.speculation_budget=0"], ("answers",)),
        (["language_model.max_answer_tokens=24"], ("speculation",)),
        (["load.answer_tokens=0"], ("speculation",)),
        (["load.recogniser=tiny"], ("speculation", "answers", "recognition")),
        (["load.recogniser=whisper-tiny.en-int8"], ("speculation", "answers")),
        (["load.language_model=small"], ("speculation", "answers", "language-model")),
        (
            ["load.language_model=small", "language_model.endpoint=http://localhost:1/v1"],
            ("speculation", "answers"),
        ),
    ],
)
def test_only_what_the_settings_make_possible_is_a_step(
    changes: list[str], steps: tuple[str, ...]
) -> None:
    assert rules(override(Settings(), ['recogniser.first_pass=""', *changes])).steps == steps


def test_where_two_passes_listen_the_first_alone_is_the_cheaper_recogniser() -> None:
    both = override(Settings(), ["recogniser.first_pass=tones"])
    assert both.cheaper() == {"recogniser": "tones"}
    assert rules(both).steps == ("speculation", "answers", "recognition")
    named = override(both, ["load.recogniser=tiny"])
    assert named.cheaper() == {"recogniser": "tiny"}
    assert override(both, ["recogniser.passes=first"]).cheaper() == {}


# --------------------------------------------------------------------------- whatever comes

optional = st.none() | st.floats(0, 5000)
turns = st.builds(
    TurnFigures,
    response_ms=optional,
    recognition_rtf=st.none() | st.floats(0, 3),
    gap_ms=optional,
)
readings = st.builds(
    Reading,
    throttled=st.sampled_from(((), ("throttled",))),
    temperature_c=st.none() | st.floats(20, 100),
)
some_rules = st.builds(
    LoadRules,
    steps=st.sampled_from([ALL[:count] for count in range(5)]),
    response_budget_ms=st.floats(100, 3000),
    missed_turns=st.integers(1, 4),
    met_turns=st.integers(1, 4),
    room=st.floats(0.1, 1),
    calm_ms=st.floats(0, 60_000),
    throttled_ms=st.floats(1000, 60_000),
    hot_c=st.sampled_from((0.0, 80.0)),
)


def strain(turn: TurnFigures, rules: LoadRules) -> float | None:
    figures = (
        (turn.response_ms, rules.response_budget_ms),
        (turn.recognition_rtf, rules.recognition_budget_rtf),
        (turn.gap_ms, rules.gap_budget_ms),
    )
    return max((value / bound for value, bound in figures if value is not None), default=None)


def is_hot(reading: Reading, rules: LoadRules) -> bool:
    celsius = reading.temperature_c
    above = celsius is not None and 0 < rules.hot_c <= celsius
    return bool(reading.throttled) or above


@given(some_rules, st.lists(st.tuples(st.floats(0, 40_000), turns | readings), max_size=40))
def test_it_never_hurries_and_never_leaves_its_steps(
    rules: LoadRules, measured: list[tuple[float, Measured]]
) -> None:
    state = LoadState()
    at_ms = changed_ms = hot_ms = 0.0
    missed: list[bool] = []  # of the turns that told something, since the last change
    changes: list[Change] = []
    for later_ms, each in measured:
        at_ms += later_ms
        before = state
        state, change = step(state, at_ms, each, rules)
        worst = strain(each, rules) if isinstance(each, TurnFigures) else None
        if worst is not None:
            missed.append(worst > 1)
        hot = isinstance(each, Reading) and is_hot(each, rules)
        assert 0 <= state.taken <= len(rules.steps)
        assert 1 <= state.patience <= 8
        if change is None:
            assert state.taken == before.taken
        elif change.direction == "down":
            assert (state.taken, change.step) == (before.taken + 1, rules.steps[before.taken])
            # Heat, or as many missed turns in a row as it takes.
            assert hot or missed[-rules.missed_turns :] == [True] * rules.missed_turns
        else:
            assert (state.taken, change.step) == (before.taken - 1, rules.steps[state.taken])
            assert not hot
            assert at_ms - changed_ms >= rules.calm_ms
            assert at_ms - hot_ms >= rules.calm_ms or not hot_ms
            assert len(missed) >= rules.met_turns
            assert not any(missed[-rules.met_turns :])
        hot_ms = at_ms if hot else hot_ms
        if change is not None:
            changes.append(change)
            changed_ms, missed = at_ms, []
    # A down and its up are about the same step, like brackets.
    standing: list[Step] = []
    for change in changes:
        if change.direction == "down":
            standing.append(change.step)
        else:
            assert standing.pop() is change.step
    assert tuple(standing) == rules.steps[: state.taken]


@settings(max_examples=30)
@given(some_rules.filter(lambda rules: rules.steps), st.integers(0, 4))
def test_once_all_is_well_all_is_done_again(rules: LoadRules, taken: int) -> None:
    state = LoadState(taken=min(taken, len(rules.steps)), patience=8)
    at_ms = 0.0
    for _ in range(4 * 8 * rules.met_turns + 4):
        at_ms += max(rules.calm_ms, 1000.0)
        state, _ = step(state, at_ms, TurnFigures(response_ms=1.0), rules)
    assert state.taken == 0
