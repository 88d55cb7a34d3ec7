"""The bounds that an artifact has to meet, and the comparison of run times."""

from __future__ import annotations

import math
import time

import pytest

from edgevoice.errors import ConfigError
from edgevoice.export import gates, paired
from edgevoice.manifest import STAGES


def test_every_stage_has_bounds() -> None:
    assert set(gates.BOUNDS) == set(STAGES)


def test_a_figure_that_was_not_measured_misses() -> None:
    verdicts = gates.judge({"wer_points": 0.2}, gates.BOUNDS["recogniser"])
    assert [v.passed for v in verdicts] == [True, *[False] * (len(verdicts) - 1)]
    assert math.isnan(verdicts[1].measured)


def test_the_users_bounds_count_and_unknown_ones_are_named() -> None:
    bounds = gates.bounds_for("recogniser", {"wer_points": 3.0})
    assert bounds[0].value == 3.0
    with pytest.raises(ConfigError, match="unknown bound 'wer_point'"):
        gates.bounds_for("recogniser", {"wer_point": 3.0})


def test_a_slower_second_is_told_from_noise() -> None:
    ratio = paired.compare(lambda: time.sleep(0.002), lambda: time.sleep(0.006), pairs=5)
    assert ratio.low > 1.0
    assert ratio.low <= ratio.median <= ratio.high


def test_the_order_within_a_pair_changes() -> None:
    order: list[str] = []
    paired.compare(lambda: order.append("a"), lambda: order.append("b"), pairs=2, warm_up=0)
    assert order == ["a", "b", "b", "a"]
