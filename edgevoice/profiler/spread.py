"""What samples say: percentiles and ratios, each with an interval that few rounds can bear.

A run measures in rounds: each round starts every stage in a fresh process and takes some samples
of it. Samples of one round have their process and the machine's mood in common, so it is rounds
that are drawn again (a cluster bootstrap; Davison & Hinkley 1997, 3.8; for benchmarks, Kalibera &
Jones 2013) and never single samples. With few rounds a bootstrap is too narrow twice, by
sqrt((R-1)/R) and by taking the normal for Student's distribution (Hesterberg 2015, 3.2): both are
put right here. Intervals are of logarithms, since times spread by factors.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgevoice.latency import percentile

Rounds = Sequence[Sequence[float]]
"""Samples of one figure, by round."""

_DRAWS = 1000
_EQUAL = 1e-9
_LEAST = 1e-12
"""Stands for zero, which has no logarithm."""

_CONFIDENCE = 0.95
_GRID = 40_001


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its 95 % interval; NaN bounds where fewer than two rounds have samples."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Ratio:
    """One median over another.

    Attributes:
        value: The ratio.
        spread: Standard error of its logarithm, NaN where a side has fewer than two rounds.
        degrees: Degrees of freedom of that error (Welch-Satterthwaite), which may be infinite.
    """

    value: float
    spread: float
    degrees: float

    def interval(self, confidence: float = _CONFIDENCE) -> tuple[float, float]:
        """Return the bounds of the two-sided interval."""
        if math.isnan(self.spread):
            return math.nan, math.nan
        # Without any spread (a memory figure, say) the distribution does not matter.
        if not self.spread:
            return self.value, self.value
        reach = student_quantile(1 - (1 - confidence) / 2, _coarse(self.degrees)) * self.spread
        return self.value * math.exp(-reach), self.value * math.exp(reach)

    def widened(self, spread: float) -> Ratio:
        """Return this ratio with another independent error of its logarithm, which is known.

        What never differs stays so.
        """
        if math.isnan(self.spread) or not self.spread or not spread:
            return self
        total, degrees = _combined((self.spread, self.degrees), (spread, math.inf))
        return Ratio(self.value, total, degrees)

    def over(self, other: Ratio) -> Ratio:
        """Return this ratio divided by ``other``, their errors taken as independent."""
        spread, degrees = _combined((self.spread, self.degrees), (other.spread, other.degrees))
        return Ratio(self.value / other.value, spread, degrees)


def estimates(rounds: Rounds, shares: Sequence[float], between: float = 0.0) -> list[Estimate]:
    """Return those percentiles of all samples, each with its interval.

    ``between`` is the standard error of a logarithm that one run cannot show.
    """
    found = []
    for about in _percentiles(rounds, shares):
        low, high = about.widened(between).interval()
        found.append(Estimate(about.value, low, high))
    return found


def estimate(rounds: Rounds, share: float = 50.0) -> Estimate:
    """Return the ``share`` percentile of all samples, and its interval."""
    return estimates(rounds, [share])[0]


def ratio(first: Rounds, second: Rounds, share: float = 50.0) -> Ratio:
    """Return a percentile of ``second`` over that of ``first``, from two independent runs."""
    (before,) = _percentiles(first, [share])
    (after,) = _percentiles(second, [share])
    return after.over(before)


def paired_ratio(blocks: Sequence[Sequence[tuple[float, float]]]) -> Ratio:
    """Return the second over the first where both were measured one after the other.

    Drift that is slower than a pair is in neither the value nor its error. What the pairs of one
    block have in common (their processes) is in the error.
    """
    logs = [[math.log(b / a) for a, b in pairs] for pairs in blocks]
    value = percentile([x for row in logs for x in row], 50.0)
    (spread,), degrees = _bootstrap(logs, [50.0])
    return Ratio(math.exp(value), spread, degrees)


@functools.lru_cache(maxsize=256)
def student_quantile(share: float, degrees: float) -> float:
    """Return the quantile of Student's t distribution, ``degrees`` > 0.

    Its density over x = sqrt(degrees) tan(a) is cos(a)^(degrees - 1), which is summed here.

    >>> round(student_quantile(0.975, 4), 3)
    2.776
    """
    degrees = min(degrees, 1e4)
    angles = np.linspace(0.0, np.pi / 2, _GRID)
    density = np.cos((angles[:-1] + angles[1:]) / 2) ** (degrees - 1)
    mass = np.concatenate([[0.0], np.cumsum(density)])
    wanted = abs(2 * share - 1) * mass[-1]
    angle = float(np.interp(wanted, mass, angles))
    return math.copysign(math.sqrt(degrees) * math.tan(angle), share - 0.5)


def _coarse(degrees: float) -> float:
    """Return ``degrees`` or a little less, of few values: each new one costs 20 ms."""
    if degrees >= 512.0:
        return 512.0
    step = 0.25 if degrees < 8 else 1.0 if degrees < 32 else 16.0
    return max(1.0, degrees // step * step)


def _percentiles(rounds: Rounds, shares: Sequence[float]) -> list[Ratio]:
    """Return percentiles, as ratios to one unit of the figure."""
    whole = [x for row in rounds for x in row]
    values = [percentile(whole, share) for share in shares]
    logs = [[math.log(max(x, _LEAST)) for x in row] for row in rounds]
    spreads, degrees = _bootstrap(logs, shares)
    return [
        Ratio(max(value, _LEAST), spread, degrees)
        for value, spread in zip(values, spreads, strict=True)
    ]


def _bootstrap(rounds: Rounds, shares: Sequence[float]) -> tuple[list[float], float]:
    """Return percentiles' standard errors, by drawing rounds again, and degrees of freedom."""
    filled = [row for row in rounds if row]
    count = len(filled)
    if count < 2:
        return [math.nan] * len(shares), math.nan
    drawn = np.random.default_rng(0).integers(0, count, size=(_DRAWS, count))
    longest = max(map(len, filled))
    table = np.full((count, longest), np.nan)
    for number, row in enumerate(filled):
        table[number, : len(row)] = row
    # Samples that a round lacks are NaN, which sort to the end.
    draws = np.sort(table[drawn].reshape(_DRAWS, -1), axis=1)
    last = np.count_nonzero(~np.isnan(draws), axis=1) - 1
    lines = np.arange(_DRAWS)
    spreads = []
    for share in shares:
        position = last * share / 100.0
        below = np.floor(position).astype(np.intp)
        low, high = draws[lines, below], draws[lines, np.minimum(below + 1, last)]
        found = float(np.std(low + (high - low) * (position - below)))
        # Equal samples are not quite equal once they have been weighed.
        spreads.append(found * math.sqrt(count / (count - 1)) if found > _EQUAL else 0.0)
    return spreads, count - 1.0


def _combined(first: tuple[float, float], second: tuple[float, float]) -> tuple[float, float]:
    """Add two independent errors (Welch 1947 for the degrees of freedom)."""
    parts = [(spread**2, degrees) for spread, degrees in (first, second)]
    total = parts[0][0] + parts[1][0]
    if math.isnan(total) or not total:
        return total, math.inf
    return math.sqrt(total), total**2 / sum(s**2 / d for s, d in parts if s)
