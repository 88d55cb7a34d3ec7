"""Whether a message sounds finished, by a language model's own distribution behind its last word.

Owns which tokens end a message. Leaves reading the message to the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from edgevoice.engines.token_prefix import common_prefix
from edgevoice.frames import Float32
from edgevoice.stages import Message

_MARKS = ".?!"


def unmarked(messages: Sequence[Message]) -> list[Message]:
    """Return ``messages`` without the mark at the end: recognisers set one behind everything."""
    *before, last = messages
    return [*before, Message(last.role, last.content.rstrip().rstrip(_MARKS))]


def template_tail(prompt: Callable[[Sequence[Message]], list[int]]) -> list[int]:
    """Return what the template behind ``prompt`` puts after the last message's content."""
    one, other = (prompt([Message("user", text)]) for text in ("0", "A"))
    return one[len(one) - common_prefix(one[::-1], other[::-1]) :]


def share_of_endings(
    logits: Float32, tail: Sequence[int], tokenise: Callable[[str], list[int]]
) -> float:
    """Return the probability that a mark or the message's end comes next.

    Args:
        logits: float32, ``[vocabulary]``, behind the last word.
        tail: Not empty; its first token ends the message.
        tokenise: Of the same vocabulary.
    """
    ends = {tail[0]} | {t[0] for mark in _MARKS if len(t := tokenise(mark)) == 1}
    shares = np.exp(logits - logits.max())
    return float(shares[list(ends)].sum() / shares.sum())
