"""Conversations with other settings against conversations with the default: pairs in blocks.

Both are held in turn, on the same question, so that the machine's drift falls on both. Each block
has processes of its own, since one process may be luckier than the next, and blocks are what the
interval is drawn from.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from edgevoice.profiler.children import CONVERSATION, Child
from edgevoice.profiler.rounds import Open
from edgevoice.settings import Settings

FEWEST_BLOCKS = 3
_MOST_BLOCKS = 12
_BLOCK_PAIRS = 2

Block = list[tuple[float, float]]
"""Voice-to-voice times in ms: with the default, and with the challenger."""


def hold_block(
    default: Settings, challenger: Settings, speech: Sequence[Path], number: int, open_child: Open
) -> Block:
    """Hold one block of pairs; a pair of which one gave no answer is left out."""
    questions = [str(path) for path in speech]
    with (
        open_child(CONVERSATION, default, speech=questions) as own,
        open_child(CONVERSATION, challenger, speech=questions) as other,
    ):
        held = [_in_turn(own, other, number + each) for each in range(_BLOCK_PAIRS)]
    return [pair for pair in held if pair is not None]


def hold(
    default: Settings,
    challenger: Settings,
    speech: Sequence[Path],
    ends_s: float,
    open_child: Open,
) -> list[Block]:
    """Hold blocks until ``ends_s`` of the monotonic clock, but no fewer than an interval needs."""
    blocks: list[Block] = []
    longest_s = 0.0
    for number in range(_MOST_BLOCKS):
        began_s = time.monotonic()
        if number >= FEWEST_BLOCKS and began_s + longest_s > ends_s:
            break
        blocks.append(hold_block(default, challenger, speech, number, open_child))
        longest_s = max(longest_s, time.monotonic() - began_s)
    return blocks


def _in_turn(own: Child, other: Child, number: int) -> tuple[float, float] | None:
    """Hold a conversation of one turn with both; None when either gave no answer."""
    took: dict[Child, float | None] = {}
    for child in (own, other) if number % 2 else (other, own):
        turns = child.ask(turns=1, pace="real-time")["turns"]
        took[child] = turns[0]["voice_to_voice_ms"] if turns else None
    before, after = took[own], took[other]
    return None if before is None or after is None else (before, after)
