"""Byte-pair encoding (Sennrich, Haddow and Birch 2016): spelling with pieces that were learned.

Owns the joining alone, of letters as of bytes. How a text is taken apart before, and which pieces
there are, differs from one vocabulary to the next.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TypeVar

Part = TypeVar("Part", str, bytes)


def join(parts: Sequence[Part], numbers: Mapping[Part, int]) -> list[int]:
    """Return the numbers of the pieces that ``parts`` make, each of them a piece itself.

    Of all neighbours that make a piece, those whose piece was learned first (has the lowest
    number) are joined, until none make one.

    >>> join("toot", {"o": 0, "t": 1, "oo": 2, "to": 3})
    [1, 2, 1]
    """
    found = list(parts)
    while len(found) > 1:
        joined = [before + after for before, after in pairwise(found)]
        ranks = [numbers.get(piece, math.inf) for piece in joined]
        first = min(ranks)
        if first == math.inf:
            break
        at = ranks.index(first)
        found[at : at + 2] = [joined[at]]
    return [numbers[part] for part in found]
