"""How unknown words are spelled: probabilities of a letter after those before it in the word.

Contexts are the start of a word with the letters that follow, shortened from the front to what was
seen often enough; every letter may follow every context, so that any name can be spelled. Owns the
counting; Witten-Bell's interpolation from the longest context down.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

START, END = "^", "$"
_LONGEST_CONTEXT = 3
_LETTER_FLOOR = 0.5
"""Occurrences that each letter is given in the empty context."""


@dataclass(frozen=True, slots=True)
class Spelling:
    """The model.

    Attributes:
        contexts: What the letters before may be, :data:`START` included; the empty one is there.
        log_probs: For each context, of each letter and :data:`END`.
    """

    contexts: Sequence[str]
    log_probs: Mapping[str, Mapping[str, float]]

    def after(self, context: str, letter: str) -> str:
        """Return the context behind ``letter``."""
        grown = context + letter
        while grown not in self.log_probs:
            grown = grown[1:]
        return grown


def learn(words: Iterable[str], letters: str, most_contexts: int) -> Spelling:
    """Return a model of ``words``, each counted once, with about ``most_contexts`` contexts."""
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for word in sorted(set(words)):
        row = START + word + END
        for at in range(1, len(row)):
            for length in range(min(at, _LONGEST_CONTEXT) + 1):
                seen[row[at - length : at]][row[at]] += 1
    short = {c for c in seen if len(c) < 2}
    short |= {START, "", *letters}
    longer = sorted((c for c in seen if len(c) >= 2), key=lambda c: (-seen[c].total(), c))
    chosen = sorted(
        short | set(longer[: max(0, most_contexts - len(short))]), key=lambda c: (len(c), c)
    )
    following = [*letters, END]
    probabilities: dict[str, dict[str, float]] = {}
    for context in chosen:
        counts = seen.get(context, Counter())
        if context:
            shorter = context[1:]
            while shorter not in probabilities:
                shorter = shorter[1:]
            below = probabilities[shorter]
            kinds = max(1, len(counts))
            whole = float(counts.total() + kinds)
            row_of = {x: (counts[x] + kinds * below[x]) / whole for x in following}
        else:
            whole = counts.total() + _LETTER_FLOOR * len(following)
            row_of = {x: (counts[x] + _LETTER_FLOOR) / whole for x in following}
        probabilities[context] = row_of
    logs = {c: {x: math.log(p) for x, p in row.items()} for c, row in probabilities.items()}
    # A word has one letter at least.
    logs[START][END] = -math.inf
    return Spelling(chosen, logs)
