"""Whether a message's words are its last, by a language model's next-token distribution.

Owns the question: the messages to read, the tokens that would end the last of them, and the share
of those in what may follow. Reading is :mod:`edgevoice.engines.kept_prefix`'s business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from edgevoice.engines.token_prefix import common_prefix
from edgevoice.frames import Float32
from edgevoice.stages import Message

MARKS = ".?!"
_LEFT_OUT = MARKS + ",;:"
"""Moonshine ends one whole turn in five with a comma."""

Prompt = Callable[[Sequence[Message]], list[int]]
"""Templates messages into tokens, generation prompt included."""


def unmarked(messages: Sequence[Message]) -> list[Message]:
    """Return ``messages``, the last without its marks: whether one follows is the question."""
    *before, last = messages
    return [*before, Message(last.role, last.content.rstrip().rstrip(_LEFT_OUT))]


def tail(prompt: Prompt) -> list[int]:
    """Return the tokens that the template puts behind the last word of a user's message."""
    one, other = (prompt([Message("user", text)]) for text in ("0", "A"))
    return one[len(one) - common_prefix(one[::-1], other[::-1]) :]


def probability(
    logits: Float32, tail: Sequence[int], tokenise: Callable[[str], Sequence[int]]
) -> float:
    """Return the share of the message's end, or a mark, in what may follow.

    Args:
        logits: float32, ``[vocabulary]``, behind the last word.
        tail: What :func:`tail` returned; not empty.
        tokenise: Splits text that is a mark.
    """
    ends = {tail[0]} | {found[0] for mark in MARKS if len(found := tokenise(mark)) == 1}
    shares = np.exp(logits - logits.max())
    return float(shares[list(ends)].sum() / shares.sum())
