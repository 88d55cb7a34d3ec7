"""The bounds that an artifact has to meet, and the comparison of run times."""

from __future__ import annotations

import math
import time

import pytest

from edgevoice.errors import ConfigError
from edgevoice.export import candidates, gates, paired
from edgevoice.manifest import STAGES
from edgevoice.quant.scheme import SCHEMES


def test_every_stage_has_bounds() -> None:
    assert set(gates.BOUNDS) == set(STAGES) == set(gates.QUALITY)
    for stage, (figure, _) in gates.QUALITY.items():
        assert figure in {bound.figure for bound in gates.BOUNDS[stage]}


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


def test_a_schemes_own_bounds_are_bounds_of_its_stage() -> None:
    for scheme in SCHEMES.values():
        if scheme.bounds:
            chosen = {b.figure: b.value for b in gates.bounds_for("language-model", scheme.bounds)}
            assert scheme.bounds.items() <= chosen.items()
    assert any(scheme.bounds for scheme in SCHEMES.values())


def test_the_users_bound_comes_over_the_schemes_over_the_stages() -> None:
    scheme = SCHEMES["q4_k_m"]
    own = scheme.bounds["kl_divergence"]

    def allowed(**asked: float) -> float:
        bounds = candidates.bounds_of(scheme, gates.all_bounds("language-model", asked))
        return next(b.value for b in bounds if b.figure == "kl_divergence")

    (stages,) = (b.value for b in gates.BOUNDS["language-model"] if b.figure == "kl_divergence")
    assert allowed() == own != stages
    assert allowed(kl_divergence=stages) == stages
