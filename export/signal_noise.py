"""How much of a signal rounding has drowned: the ratio of signal to error, in decibels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def compare(
    wanted: Sequence[Mapping[str, Any]], got: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """Return ``snr_db`` of the worst of all outputs of all inputs, and ``snr_mean_db``."""
    ratios = [
        ratio_db(first[name], second[name])
        for first, second in zip(wanted, got, strict=True)
        for name in first
    ]
    return {"snr_db": min(ratios), "snr_mean_db": sum(ratios) / len(ratios)}


def ratio_db(wanted: Any, got: Any) -> float:
    """Return the power of ``wanted`` over that of its difference to ``got``.

    >>> round(ratio_db([1.0, -1.0], [1.1, -1.1]))
    20
    """
    signal = np.asarray(wanted, np.float64)
    error = np.asarray(got, np.float64) - signal
    if not np.isfinite(error).all():
        return -math.inf
    power = float(np.mean(error**2))
    return math.inf if power == 0 else 10.0 * math.log10(float(np.mean(signal**2)) / power)
