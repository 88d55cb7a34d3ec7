"""The silence before a voice goes, and nothing of the voice."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevoice.leading_silence import LeadingSilence

RATE_HZ = 16_000
KEPT, MOST = 160, 2400


def sound(silent: int, rest: int = 800) -> np.ndarray:
    return np.concatenate((np.full(silent, 0.002), np.full(rest, 0.3))).astype(np.float32)


@given(st.integers(0, 3000), st.lists(st.integers(1, 700), min_size=1, max_size=12))
def test_however_it_is_cut_ten_milliseconds_are_left(silent: int, cuts: list[int]) -> None:
    whole = sound(silent)
    lead = LeadingSilence(RATE_HZ)
    parts = np.split(whole, np.cumsum(cuts))
    left = np.concatenate([lead.trim(part) for part in parts])
    assert left.size == 800 + silent - min(max(0, silent - KEPT), MOST)
    assert np.array_equal(left, whole[whole.size - left.size :])


@pytest.mark.parametrize("silent", [0, 5000])
def test_silence_later_on_stays(silent: int) -> None:
    lead = LeadingSilence(RATE_HZ)
    lead.trim(sound(silent))
    assert lead.trim(np.zeros(4000, np.float32)).size == 4000


def test_silence_alone_loses_what_may_go_and_no_more() -> None:
    lead = LeadingSilence(RATE_HZ)
    assert not lead.trim(np.zeros(1600, np.float32)).size
    assert lead.trim(np.zeros(1600, np.float32)).size == 3200 - MOST
    assert lead.trim(np.zeros(1600, np.float32)).size == 1600
