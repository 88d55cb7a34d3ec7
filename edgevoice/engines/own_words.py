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
    spelled = [_spelled(phrase, tokens, lexicon.space) for phrase in dict.fromkeys(phrases)]
    if not spelled:
        return lexicon
    begin: list[tuple[int, int, int]] = []
    chains: list[tuple[int, int, int]] = []
    node = lexicon.nodes
    for letters in spelled:
        begin.append((letters[0], round(NATS * COSTS_PER_NAT), node))
        for letter in letters[1:]:
            chains.append((letter, 0, node + 1))
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


def _spelled(phrase: str, tokens: Sequence[str], space: int) -> list[int]:
    numbers = {token: number for number, token in enumerate(tokens) if len(token) == 1}
    words = phrase.lower().replace("’", "'").split()
    unknown = sorted({letter for word in words for letter in word} - set(numbers))
    if not words or unknown:
        letters = "".join(token for token in numbers if numbers[token] != space)
        raise ConfigError(
            f"recogniser.words: {phrase!r} has {', '.join(map(repr, unknown)) or 'no letters'}; "
            f"this recogniser writes {letters}: spell it with those"
        )
    between = [[numbers[letter] for letter in word] for word in words]
    return [n for i, word in enumerate(between) for n in ([space] if i else []) + word]
