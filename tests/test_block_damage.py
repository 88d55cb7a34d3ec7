"""Blocks of weights that lost their scale, told from those that rounding gave up."""

import numpy as np
import pytest

from edgevoice.quant import block_damage

QUIET = 0.1
"""Of the loudness of all other blocks."""

FIRST, SECOND = slice(0, 32), slice(32, 64)


def lost(flat: slice, together: int) -> int:
    """Count the lost blocks of 64, where those of ``flat`` are quiet and written as zeros."""
    weights = np.random.default_rng(0).standard_normal((64, 32)).astype(np.float32)
    weights[flat] *= QUIET
    written = weights.copy()
    written[flat] = 0.0
    halves = (block_damage.sums(weights[part], written[part]) for part in (FIRST, SECOND))
    return block_damage.joined(tuple(halves)).lost(together)


@pytest.mark.parametrize(
    ("flat", "together", "found"),
    [
        (slice(8, 16), 8, 8),  # all that share a scale
        (slice(8, 15), 8, 0),  # the eighth is there: its neighbours were too quiet to count
        (slice(9, 10), 8, 0),
        (slice(9, 10), 1, 1),  # a block with a scale of its own
        (slice(0, 0), 8, 0),
    ],
)
def test_quiet_blocks_that_share_a_scale(flat: slice, together: int, found: int) -> None:
    assert lost(flat, together) == found


def test_what_holds_next_to_nothing_may_be_written_as_nothing() -> None:
    weights = np.random.default_rng(0).standard_normal((64, 32)).astype(np.float32)
    weights[8:16] *= 1e-3
    written = weights.copy()
    written[8:16] = 0.0
    assert block_damage.sums(weights, written).lost(8) == 0


def test_not_a_number_is_damage() -> None:
    weights = np.random.default_rng(0).standard_normal((8, 32)).astype(np.float32)
    written = weights.copy()
    written[3, 4] = np.nan
    assert block_damage.sums(weights, written).lost() == 1
