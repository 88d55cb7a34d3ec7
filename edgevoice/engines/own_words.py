"""The user's own words in a lexicon: names of rooms and people, made likely.

Each word or phrase becomes a path from the root where nothing is known of the words before, at a
cost that only the most frequent words have; every other root falls back there. Owns
the path; the settings name the words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevoice.engines.ctc_tokens import NO_SPACE, Speller
from edgevoice.engines.lexicon import ANYWHERE, COSTS_PER_NAT, Lexicon
from edgevoice.errors import ConfigError

NATS = 2.0
"""Cost of an own word before the lexicon's scale."""


def add(lexicon: Lexicon, phrases: Sequence[str], tokens: Sequence[str]) -> Lexicon:
    """Return ``lexicon`` with ``phrases``.

    Args:
        phrases: Words or several words with spaces between; case counts for nothing.
        tokens: The pack's, in the order of their numbers.

    Raises:
        ConfigError: A phrase has no letters, or some that the pack cannot write.
    """
    speller = Speller(tokens)
    spelled = [_spelled(phrase, speller) for phrase in dict.fromkeys(phrases)]
    if not spelled:
        return lexicon
    begin: list[tuple[int, int, int]] = []
    chains: list[tuple[int, int, int]] = []
    node = lexicon.nodes
    for numbers in spelled:
        begin.append((numbers[0], round(NATS * COSTS_PER_NAT), node))
        for number in numbers[1:]:
            chains.append((number, 0, node + 1))
            node += 1
        chains.append((lexicon.space, 0, ANYWHERE))
        node += 1
    at = lexicon.first[ANYWHERE + 1]
    first = lexicon.first.copy()
    first[ANYWHERE + 1 :] += len(begin)
    added = np.array([*begin, *chains])

    def joined(old: NDArray[Any], column: int) -> NDArray[Any]:
        new = added[:, column].astype(old.dtype)
        return np.concatenate([old[:at], new[: len(begin)], old[at:], new[len(begin) :]])

    return replace(
        lexicon,
        first=np.concatenate([first, first[-1] + 1 + np.arange(len(chains))]),
        label=joined(lexicon.label, 0),
        cost=joined(lexicon.cost, 1),
        target=joined(lexicon.target, 2),
    )


def _spelled(phrase: str, speller: Speller) -> list[int]:
    words = phrase.lower().replace("’", "'").split()
    unknown = sorted({letter for word in words for letter in word} - set(speller.letters))
    if not words or unknown:
        raise ConfigError(
            f"recogniser.words: {phrase!r} has {', '.join(map(repr, unknown)) or 'no letters'}; "
            f"this recogniser writes {speller.letters}: spell it with those"
        )
    between = [] if speller.space == NO_SPACE else [speller.space]
    spelled = [speller.spell(word) for word in words]
    return [n for i, word in enumerate(spelled) for n in (between if i else []) + word]
