"""A word graph over letters or pieces: n-grams, their spellings, a way out for unknown words.

Each history of the n-gram model is a root, from which its words go out as a tree of tokens; behind
a word's last letter the space leads to the root of the history that follows, behind its last piece
nothing does. A root falls back to that of the shorter history. Costs stand as early in a tree as
they can, so that the search knows them early, and what is left of a spelling is shared by all
trees. Owns the building; the format is :mod:`edgevoice.engines.lexicon`'s, which makes of it what
sherpa-onnx reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from edgevoice.engines.ctc_tokens import Speller
from edgevoice.engines.lexicon import COSTS_PER_NAT, EPSILON, Lexicon
from edgevoice.export.distil.spelling import END, START, Spelling
from edgevoice.export.distil.word_ngrams import START as SENTENCE_START
from edgevoice.export.distil.word_ngrams import UNKNOWN, Ngrams

Arc = tuple[int, int, int]
"""Label, cost, target."""
Entry = tuple[tuple[int, ...], int, int]
"""A spelling in token numbers, its cost, and the root behind it."""


def build(model: Ngrams, spelling: Spelling | None, tokens: Sequence[str]) -> Lexicon:
    """Return the graph of ``model``.

    Args:
        model: Words are spelled with ``tokens``.
        spelling: Of unknown words with the same tokens; None for none.
        tokens: The alphabet, its blank first.
    """
    speller = Speller(tokens)
    spelled = [tuple(speller.spell(word)) for word in model.words[2:]]
    histories = _Histories(model)
    builder = _Builder(len(histories.roots), speller.space)
    unknown = builder.spelling(spelling, histories.after((UNKNOWN,))) if spelling else -1
    roots = []
    for history in histories.roots:
        entries: list[Entry] = []
        arcs: list[Arc] = []
        for word, log_prob in histories.following(history):
            cost = _cost(log_prob)
            if word == UNKNOWN:
                if spelling:
                    arcs.append((EPSILON, cost, unknown))
                continue
            entries.append((spelled[word - 2], cost, histories.after((*history, word))))
        if history:
            lower, weight = histories.shorter(history)
            arcs.append((EPSILON, _cost(weight), lower))
        roots.append((*arcs, *builder.tree(sorted(entries))))
    return builder.finish(roots)


@dataclass(slots=True)
class _Histories:
    """The histories that have roots: the sentence's start, none, and those with words of their own.

    The first two have numbers 0 and 1.
    """

    model: Ngrams
    roots: list[tuple[int, ...]] = field(init=False)
    _number: dict[tuple[int, ...], int] = field(init=False)
    _spans: list[dict[int, tuple[int, int]]] = field(init=False)

    def __post_init__(self) -> None:
        size = self.model.size
        self._spans = []
        self.roots = [(SENTENCE_START,), ()]
        for length, order in enumerate(self.model.orders[1:], start=1):
            keys, first = np.unique(order.keys // size, return_index=True)
            last = np.append(first, len(order.keys))[1:]
            self._spans.append(
                dict(
                    zip(keys.tolist(), zip(first.tolist(), last.tolist(), strict=True), strict=True)
                )
            )
            found = [_digits(key, size, length) for key in keys.tolist()]
            self.roots += [history for history in found if history != (SENTENCE_START,)]
        self._number = {history: number for number, history in enumerate(self.roots)}

    def following(self, history: tuple[int, ...]) -> list[tuple[int, float]]:
        """Return the words with n-grams after ``history`` and the logs of their probabilities."""
        order = self.model.orders[len(history)]
        if not history:
            return [(w, float(p)) for w, p in enumerate(order.log_probs) if w != SENTENCE_START]
        span = self._spans[len(history) - 1].get(self._key(history), (0, 0))
        words = order.keys[slice(*span)] % self.model.size
        return list(zip(words.tolist(), order.log_probs[slice(*span)].tolist(), strict=True))

    def after(self, words: tuple[int, ...]) -> int:
        """Return the root of the longest history that ``words`` end with."""
        words = words[max(0, len(words) - len(self.model.orders) + 1) :]
        while words and words not in self._number:
            words = words[1:]
        return self._number[words]

    def shorter(self, history: tuple[int, ...]) -> tuple[int, float]:
        """Return the root to fall back to, and the log of the weight."""
        weight = self._weight(history)
        lower = history[1:]
        while lower and lower not in self._number:
            weight += self._weight(lower)
            lower = lower[1:]
        return self._number[lower], weight

    def _weight(self, history: tuple[int, ...]) -> float:
        return self.model.back_off[len(history) - 1].get(self._key(history), 0.0)

    def _key(self, history: tuple[int, ...]) -> int:
        key = 0
        for word in history:
            key = key * self.model.size + word
        return key


class _Builder:
    """Makes nodes; equal ones once. Roots have the first numbers."""

    def __init__(self, roots: int, space: int) -> None:
        self._roots, self._space = roots, space
        self._nodes: list[tuple[Arc, ...]] = []
        self._number: dict[tuple[Arc, ...], int] = {}
        self._tails: dict[tuple[tuple[int, ...], int], int] = {}

    def tree(self, entries: Sequence[Entry]) -> tuple[Arc, ...]:
        """Return the arcs of a root, of whose words ``entries`` are, sorted."""
        return self._grown(entries, 0, len(entries), 0)[0] if entries else ()

    def spelling(self, model: Spelling, root: int) -> int:
        """Add the spelling of unknown words; return the node that they begin at."""
        first = self._roots + len(self._nodes)
        at = {context: first + number for number, context in enumerate(model.contexts)}
        for context in model.contexts:
            arcs = []
            for token, log_prob in model.log_probs[context].items():
                if token == END:
                    arcs.append((self._space, _cost(log_prob), root))
                else:
                    arcs.append((token, _cost(log_prob), at[model.after(context, token)]))
            if context in model.back_off:
                shorter, log_weight = model.back_off[context]
                arcs.append((EPSILON, _cost(log_weight), at[shorter]))
            self._nodes.append(tuple(arcs))
        return at[START,]

    def finish(self, roots: Sequence[tuple[Arc, ...]]) -> Lexicon:
        """Return the graph."""
        nodes = [*roots, *self._nodes]
        arcs = np.array([arc for node in nodes for arc in node], np.int64).reshape(-1, 3)
        first = np.cumsum([0, *(len(node) for node in nodes)])
        return Lexicon(
            roots=len(roots),
            space=self._space,
            first=first.astype(np.int64),
            label=arcs[:, 0].astype(np.int32),
            cost=arcs[:, 1].astype(np.int32),
            target=arcs[:, 2].astype(np.int64),
        )

    def _grown(
        self, entries: Sequence[Entry], begin: int, end: int, depth: int
    ) -> tuple[tuple[Arc, ...], int]:
        """Return the arcs of the node that ``entries[begin:end]`` share, less their least cost."""
        found: list[Arc] = []
        at = begin
        while at < end:
            spelled, cost, root = entries[at]
            if len(spelled) == depth:
                found.append((self._space, cost, root))
                at += 1
                continue
            letter = spelled[depth]
            last = at + 1
            while last < end and entries[last][0][depth] == letter:
                last += 1
            if last == at + 1:
                found.append((letter, cost, self._tail(spelled[depth + 1 :], root)))
            else:
                arcs, least = self._grown(entries, at, last, depth + 1)
                found.append((letter, least, self._node(arcs)))
            at = last
        # A root keeps its costs: nothing leads to it that could take them.
        least = min(cost for _, cost, _ in found) if depth else 0
        return tuple((label, cost - least, target) for label, cost, target in found), least

    def _tail(self, spelled: tuple[int, ...], root: int) -> int:
        key = (spelled, root)
        node = self._tails.get(key)
        if node is None:
            arc = (
                (spelled[0], 0, self._tail(spelled[1:], root))
                if spelled
                else (self._space, 0, root)
            )
            node = self._tails[key] = self._node((arc,))
        return node

    def _node(self, arcs: tuple[Arc, ...]) -> int:
        number = self._number.get(arcs)
        if number is None:
            number = self._number[arcs] = self._roots + len(self._nodes)
            self._nodes.append(arcs)
        return number


def _cost(log_prob: float) -> int:
    return round(-log_prob * COSTS_PER_NAT)


def _digits(key: int, size: int, length: int) -> tuple[int, ...]:
    digits = []
    for _ in range(length):
        key, digit = divmod(key, size)
        digits.append(digit)
    return tuple(reversed(digits))
