"""Intervals are as wide as few rounds ask for, and no wider."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevoice.profiler.spread import Ratio, estimate, paired_ratio, ratio, student_quantile


@pytest.mark.parametrize(
    ("share", "degrees", "known"),
    # Any statistics textbook's table.
    [
        (0.975, 1, 12.706),
        (0.975, 2, 4.303),
        (0.975, 7, 2.365),
        (0.995, 14, 2.977),
        (0.95, 4, 2.132),
    ],
)
def test_the_quantiles_are_students(share: float, degrees: int, known: float) -> None:
    assert student_quantile(share, degrees) == pytest.approx(known, abs=2e-3)
    assert student_quantile(1 - share, degrees) == pytest.approx(-known, abs=2e-3)


def test_many_degrees_are_the_normal_distributions() -> None:
    assert student_quantile(0.975, math.inf) == pytest.approx(1.96, abs=2e-3)


def rounds(random: np.random.Generator, count: int, centre: float = 100.0) -> list[list[float]]:
    """Samples with a mood of 10 % for each round, and 5 % within."""
    moods = centre * np.exp(random.normal(0, 0.1, count))
    return [list(mood * np.exp(random.normal(0, 0.05, 4))) for mood in moods]


@pytest.mark.parametrize("count", [3, 8])
def test_intervals_hold_the_truth_as_often_as_they_say(count: int) -> None:
    random = np.random.default_rng(1)
    hits = 0
    for _ in range(150):
        found = estimate(rounds(random, count))
        hits += found.low <= 100.0 <= found.high
    assert hits >= 0.92 * 150


@pytest.mark.parametrize("count", [3, 8])
def test_two_runs_of_the_same_thing_agree(count: int) -> None:
    random = np.random.default_rng(2)
    hits = 0
    for _ in range(150):
        low, high = ratio(rounds(random, count), rounds(random, count)).interval()
        hits += low <= 1.0 <= high
    assert hits >= 0.92 * 150


def test_samples_of_one_round_count_for_less_than_rounds() -> None:
    few = [[99.0, 101.0] * 50, [119.0, 121.0] * 50, [109.0, 111.0] * 50]
    found = estimate(few)
    assert found.low < 99.0 and found.high > 121.0


def test_one_round_has_no_interval() -> None:
    found = estimate([[1.0, 2.0, 3.0]])
    assert found.value == 2.0
    assert math.isnan(found.low) and math.isnan(found.high)


def test_what_never_differs_has_no_width() -> None:
    found = estimate([[40.0], [40.0], [40.0]])
    assert (found.low, found.value, found.high) == (40.0, 40.0, 40.0)


def test_rounds_without_samples_are_passed_over() -> None:
    assert estimate([[1.0], [], [1.1], [1.2]]).value == pytest.approx(1.1)


@given(
    st.lists(st.lists(st.floats(0.001, 1e5), min_size=1, max_size=5), min_size=2, max_size=6),
    st.sampled_from([50, 90, 95]),
)
@settings(max_examples=25, deadline=None)
def test_the_value_is_numpys_and_lies_in_its_interval(data: list[list[float]], share: int) -> None:
    found = estimate(data, share)
    whole = [x for row in data for x in row]
    assert found.value == pytest.approx(np.percentile(whole, share))
    assert found.low <= found.value <= found.high


def test_pairs_see_through_drift() -> None:
    random = np.random.default_rng(3)
    drift = 100.0 * np.exp(np.linspace(0, 1.5, 12))
    pairs = [(d * random.uniform(0.99, 1.01), 0.9 * d * random.uniform(0.99, 1.01)) for d in drift]
    low, high = paired_ratio([[pair] for pair in pairs]).interval()
    assert low < 0.9 < high < 0.93
    apart_low, apart_high = ratio([[a] for a, _ in pairs], [[b] for _, b in pairs]).interval()
    assert apart_low < 0.7 and apart_high > 1.1


def test_a_ratio_over_a_ratio_is_less_sure_than_either() -> None:
    first, second = Ratio(1.3, 0.05, 7.0), Ratio(1.3, 0.05, 7.0)
    over = first.over(second)
    assert over.value == pytest.approx(1.0)
    assert over.spread == pytest.approx(0.05 * math.sqrt(2))
    assert over.degrees == pytest.approx(14.0)


def test_pairs_of_one_process_count_for_less_than_processes() -> None:
    random = np.random.default_rng(4)
    lucky = [
        [(100.0, 100.0 * luck * random.uniform(0.999, 1.001)) for _ in range(8)]
        for luck in (0.96, 0.99, 1.03)
    ]
    low, high = paired_ratio(lucky).interval()
    assert low < 0.96 and high > 1.03
    low, high = paired_ratio([[pair] for block in lucky for pair in block]).interval()
    assert low > 0.96
