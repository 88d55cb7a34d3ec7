"""How unknown words are spelled: probabilities of a token after those before it in the word.

Contexts are the start of a word with the tokens that follow, shortened from the front to what was
seen often enough; every token may follow every context, so that any name can be spelled. Owns the
counting; Witten-Bell's interpolation from the longest context down.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgevoice.engines.ctc_tokens import BLANK, NO_SPACE, SPACE, Speller

START, END = -1, 0
"""Stand beside the tokens' numbers: before a word, and behind it."""
Context = tuple[int, ...]
_LONGEST_CONTEXT = 3
_TOKEN_FLOOR = 0.5
"""Occurrences that each token is given in the empty context."""


@dataclass(frozen=True, slots=True)
class Spelling:
    """The model.

    Attributes:
        contexts: What the tokens before may be, :data:`START` included; the empty one is there.
        log_probs: For each context, of the tokens and :data:`END` that were seen there; for the
            empty one and the start, of all that may follow.
        back_off: For each context but these two: that for what was not seen, and the log of its
            weight.
    """

    contexts: Sequence[Context]
    log_probs: Mapping[Context, Mapping[int, float]]
    back_off: Mapping[Context, tuple[Context, float]]

    def after(self, context: Context, token: int) -> Context:
        """Return the context behind ``token``."""
        grown = (*context, token)
        while grown not in self.log_probs:
            grown = grown[1:]
        return grown


def learn(words: Iterable[str], tokens: Sequence[str], most_contexts: int) -> Spelling:
    """Return a model of ``words``, each counted once, with about ``most_contexts`` contexts.

    Args:
        words: Are spelled with ``tokens``.
        tokens: The alphabet, its blank first.
    """
    speller = Speller(tokens)
    seen: dict[Context, Counter[int]] = defaultdict(Counter)
    for word in sorted(set(words)):
        row = (START, *speller.spell(word), END)
        for at in range(1, len(row)):
            for length in range(min(at, _LONGEST_CONTEXT) + 1):
                seen[row[at - length : at]][row[at]] += 1
    first = inner = [n for n, token in enumerate(tokens) if token not in (BLANK, SPACE)]
    if speller.space == NO_SPACE:
        first = [n for n in first if tokens[n].startswith(SPACE)]
        inner = [n for n in inner if not tokens[n].startswith(SPACE)]
    probabilities = {
        (): _with_floor(seen[()], [*inner, END]),
        (START,): _with_floor(seen[START,], first),
    }
    back_off: dict[Context, tuple[Context, float]] = {}

    def probability(context: Context, token: int) -> float:
        found = probabilities[context].get(token)
        if found is not None:
            return found
        shorter, log_weight = back_off[context]
        return math.exp(log_weight) * probability(shorter, token)

    short = {context for context in seen if len(context) == 1}
    longer = sorted((c for c in seen if len(c) > 1), key=lambda c: (-seen[c].total(), c))
    chosen = short | set(longer[: max(0, most_contexts - len(short) - 1)])
    for context in sorted(chosen - {(START,)}, key=lambda c: (len(c), c)):
        shorter = context[1:]
        while shorter not in probabilities:
            shorter = shorter[1:]
        counts = seen[context]
        whole = counts.total() + len(counts)
        probabilities[context] = {
            token: (found + len(counts) * probability(shorter, token)) / whole
            for token, found in counts.items()
        }
        back_off[context] = shorter, math.log(len(counts) / whole)
    logs = {c: {x: math.log(p) for x, p in row.items()} for c, row in probabilities.items()}
    return Spelling(list(logs), logs, back_off)


def _with_floor(counts: Counter[int], tokens: Sequence[int]) -> dict[int, float]:
    whole = sum(counts[token] + _TOKEN_FLOOR for token in tokens)
    return {token: (counts[token] + _TOKEN_FLOOR) / whole for token in tokens}
