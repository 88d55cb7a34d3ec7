"""A back-off n-gram model of words: counted, smoothed, pruned.

Witten-Bell's interpolation (Chen and Goodman 1999, section 2.3): the probability of a word after
a history is its share there, mixed with that after the shorter history by how many different words
follow. Pruning is by relative entropy (Stolcke 1998), back-off weights left out of the sum. Owns
the model; what it is counted from is :mod:`edgevoice.export.distil.graph_text`'s business, the
graph made of it :mod:`edgevoice.export.distil.lexicon_graph`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

START, UNKNOWN = 0, 1
"""Numbers of the sentence's start, which is never said, and of words outside the vocabulary."""

_Keys = NDArray[np.int64]
_Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Counts:
    """How often n-grams of one order occur.

    Attributes:
        keys: Sorted; the words' numbers as digits of base :attr:`Ngrams.size`, last word last.
        values: Weighted occurrences.
    """

    keys: _Keys
    values: _Values


@dataclass(frozen=True, slots=True)
class Order:
    """N-grams of one order: keys as in :class:`Counts`, natural logarithms of probabilities."""

    keys: _Keys
    log_probs: _Values

    def find(self, keys: _Keys) -> tuple[_Keys, NDArray[np.bool_]]:
        """Return where ``keys`` stand, and which are there."""
        at = np.searchsorted(self.keys, keys)
        at[at == len(self.keys)] = 0
        return at, self.keys[at] == keys


@dataclass(frozen=True, slots=True)
class Ngrams:
    """The model.

    Attributes:
        words: The vocabulary; numbers 0 and 1 are :data:`START` and :data:`UNKNOWN`.
        orders: From unigrams (every word of the vocabulary) up.
        back_off: For each order but the highest, by history: log weight of the shorter one.
    """

    words: Sequence[str]
    orders: Sequence[Order]
    back_off: Sequence[Mapping[int, float]]

    @property
    def size(self) -> int:
        """Different words, the two special ones included."""
        return len(self.words)


def count(
    sentences: Sequence[tuple[float, NDArray[np.int64]]], size: int, most: int
) -> list[Counts]:
    """Count n-grams up to order ``most`` in weighted rows of word numbers, starts not included."""
    longest = [np.concatenate([[START], row]) for _, row in sentences]
    weights = np.concatenate([np.full(len(row), weight) for weight, row in sentences])
    said = np.concatenate([row[1:] for row in longest])
    counts = [_summed(said, weights)]
    before = said
    for order in range(2, most + 1):
        # What would begin before the sentence's start is not there.
        histories = [_shifted(row, order - 1) for row in longest]
        keys = np.concatenate(histories) * size ** (order - 1) + before
        there = np.concatenate([np.arange(1, len(row)) >= order - 1 for row in longest])
        counts.append(_summed(keys[there], weights[there]))
        before = keys
    return counts


def smooth(counts: Sequence[Counts], words: Sequence[str], floor: float) -> list[Order]:
    """Return interpolated probabilities of all n-grams in ``counts``.

    Args:
        floor: Occurrences that every word is given beside those it has.
    """
    size = len(words)
    values = np.full(size, floor)
    values[START] = 0.0
    values[counts[0].keys] += counts[0].values
    # As many unknown words are to come as were seen once (Good 1953).
    values[UNKNOWN] += np.count_nonzero(counts[0].values <= 1.0)
    with np.errstate(divide="ignore"):
        orders = [Order(np.arange(size), np.log(values / values.sum()))]
    for number, found in enumerate(counts[1:], start=1):
        histories, first = np.unique(found.keys // size, return_index=True)
        which = np.searchsorted(histories, found.keys // size)
        total = np.add.reduceat(found.values, first)
        types = np.diff(np.append(first, len(found.keys)))
        lower = orders[-1]
        at, _ = lower.find(found.keys % size**number)
        below = np.exp(lower.log_probs[at])
        probability = (found.values + types[which] * below) / (total + types)[which]
        orders.append(Order(found.keys, np.log(probability)))
    return orders


def prune(
    orders: Sequence[Order],
    counts: Sequence[Counts],
    words: Sequence[str],
    thresholds: Sequence[float],
) -> Ngrams:
    """Keep the n-grams that gain at least a threshold, and the histories of longer ones.

    Args:
        thresholds: For each order from bigrams: nats, summed over all occurrences, that the n-gram
            must be worth.
    """
    size = len(words)
    kept = list(orders)
    for number in range(len(orders) - 1, 0, -1):
        order, lower = kept[number], kept[number - 1]
        weight = _weights(order, lower, size, number)
        shorter = lower.log_probs[lower.find(order.keys % size**number)[0]]
        shorter += np.array([weight[int(history)] for history in order.keys // size])
        keep = counts[number].values * (order.log_probs - shorter) >= thresholds[number - 1]
        if number + 1 < len(orders):
            keep |= np.isin(order.keys, kept[number + 1].keys // size)
        kept[number] = Order(order.keys[keep], order.log_probs[keep])
    weights = [_weights(kept[n], kept[n - 1], size, n) for n in range(1, len(kept))]
    return Ngrams(words, kept, weights)


def log_prob(model: Ngrams, history: Sequence[int], word: int) -> float:
    """Return the natural logarithm of the probability of ``word`` after ``history``."""
    longest = min(len(history), len(model.orders) - 1)
    penalty = 0.0
    for length in range(longest, -1, -1):
        key = 0
        for number in history[len(history) - length :]:
            key = key * model.size + number
        order = model.orders[length]
        full = key * model.size + word
        at = int(np.searchsorted(order.keys, full))
        if at < len(order.keys) and order.keys[at] == full:
            return penalty + float(order.log_probs[at])
        if length:
            penalty += model.back_off[length - 1].get(key, 0.0)
    raise KeyError(word)


def _summed(keys: _Keys, weights: _Values) -> Counts:
    unique, inverse = np.unique(keys, return_inverse=True)
    return Counts(unique, np.bincount(inverse, weights, len(unique)).astype(np.float64))


def _shifted(row: NDArray[np.int64], back: int) -> NDArray[np.int64]:
    """Return for each word of a row that begins with START the word ``back`` places earlier."""
    said = len(row) - 1
    missing = min(back - 1, said)
    return np.concatenate([np.zeros(missing, np.int64), row[: said - missing]])


def _weights(order: Order, lower: Order, size: int, number: int) -> dict[int, float]:
    """Return what is left for the shorter history after each history of ``order``."""
    if not len(order.keys):
        return {}
    histories, first = np.unique(order.keys // size, return_index=True)
    taken = np.add.reduceat(np.exp(order.log_probs), first)
    below = np.exp(lower.log_probs[lower.find(order.keys % size**number)[0]])
    free = np.add.reduceat(below, first)
    left = np.maximum(1.0 - taken, 1e-4) / np.maximum(1.0 - free, 1e-4)
    return dict(zip(histories.tolist(), np.log(left).tolist(), strict=True))
