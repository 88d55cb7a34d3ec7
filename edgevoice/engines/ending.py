"""Whether a message's words are its last, by a language model's next-token distribution.

Owns what the engines share: the prompt that ends behind the last word, the tokens that would end
the message there, and their share. Reading the prompt is each engine's business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from edgevoice.engines.token_prefix import common_prefix
from edgevoice.frames import Float32
from edgevoice.stages import Message

MARKS = ".?!"
Prompt = Callable[[Sequence[Message]], list[int]]
"""Templates messages into tokens, generation prompt included."""


def split(messages: Sequence[Message], prompt: Prompt) -> tuple[list[int], list[int]]:
    """Return the tokens up to the last word of ``messages``, and those the template puts behind.

    Marks at the end of the last message are left out: whether one follows is the question.
    """
    *before, last = messages
    unmarked = Message(last.role, last.content.rstrip().rstrip(MARKS))
    tokens = prompt([*before, unmarked])
    one, other = (prompt([Message("user", text)]) for text in ("0", "A"))
    tail = common_prefix(one[::-1], other[::-1])
    return tokens[: len(tokens) - tail], one[len(one) - tail :]


def probability(
    logits: Float32, tail: Sequence[int], tokenise: Callable[[str], Sequence[int]]
) -> float:
    """Return the share of the message's end, or a mark, in what may follow.

    Args:
        logits: float32, ``[vocabulary]``, behind the last word.
        tail: What :func:`split` returned; not empty.
        tokenise: Splits text that is a mark.
    """
    ends = {tail[0]} | {found[0] for mark in MARKS if len(found := tokenise(mark)) == 1}
    shares = np.exp(logits - logits.max())
    return float(shares[list(ends)].sum() / shares.sum())
