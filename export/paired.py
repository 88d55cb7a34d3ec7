"""Compares the run times of two things on a noisy machine: in turn, and as a ratio.

Absolute times on a shared machine drift by more than the differences that matter; the ratio of
two runs made one after the other does not.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class PairedRatio:
    """Run time of the second over the first.

    Attributes:
        median: Of the pairs' ratios.
        low: Lower end of the 95 % bootstrap interval of that median (Efron & Tibshirani 1993).
        high: Upper end.
        pairs: How many were run.
        first_s: Median run time of the first, seconds.
        second_s: Of the second.
    """

    median: float
    low: float
    high: float
    pairs: int
    first_s: float
    second_s: float


def compare(
    first: Callable[[], object], second: Callable[[], object], pairs: int = 7, warm_up: int = 1
) -> PairedRatio:
    """Run both ``pairs`` times, in turn, each pair in the other order than the one before it."""
    for _ in range(warm_up):
        first()
        second()
    times: list[tuple[float, float]] = []
    for number in range(pairs):
        if number % 2:
            late = _timed(second)
            times.append((_timed(first), late))
        else:
            early = _timed(first)
            times.append((early, _timed(second)))
    return summarise(times)


def summarise(times: Sequence[tuple[float, float]]) -> PairedRatio:
    """Return the ratio of the second's times to the first's, each pair taken one after the other.

    A time that is NaN (nothing was done) makes every figure NaN, which meets no bound.
    """
    ratios = np.array([b / a for a, b in times])
    draws = np.random.default_rng(0).choice(ratios, size=(_RESAMPLES, len(ratios)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    return PairedRatio(
        median=float(np.median(ratios)),
        low=float(low),
        high=float(high),
        pairs=len(times),
        first_s=statistics.median(a for a, _ in times),
        second_s=statistics.median(b for _, b in times),
    )


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
