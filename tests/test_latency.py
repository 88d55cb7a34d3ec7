"""Spans and percentiles."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevoice.latency import TurnMarks, percentile


def test_spans_count_from_the_end_of_speech_and_keep_the_first_mark() -> None:
    marks = TurnMarks()
    assert marks.spans_ms() == {}
    marks.restart(1000.0, 1100.0)
    marks.mark("first_token", 1300.0)
    marks.mark("first_token", 1400.0)
    assert marks.spans_ms() == {"paused": 100.0, "first_token": 300.0}
    marks.restart(2000.0, 2096.0)
    assert marks.spans_ms() == {"paused": 96.0}


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.floats(0, 100))
def test_percentile_is_numpys(values: list[float], share: float) -> None:
    assert percentile(values, share) == pytest.approx(np.percentile(values, share), abs=1e-6)


def test_percentile_of_nothing_is_nan() -> None:
    assert math.isnan(percentile([], 50))
