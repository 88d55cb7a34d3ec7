"""How far a model's next-token choices are from the float model's, on a text.

Works on whatever gives logits for a token sequence, so that a GGUF file and an ONNX graph are
judged alike. Streams: logits of two windows are held at a time, never those of the whole text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
_ROWS = 64  # rows of a 150,000-word vocabulary that are worked on at once: 38 MB each


class Scorer(Protocol):
    """A loaded language model that says what follows each token of a sequence.

    Engines offer one for :mod:`edgevoice.export.checks.language_model` (its ``SCORERS``).
    """

    @property
    def vocabulary_size(self) -> int:
        """Columns of the logits."""

    def tokenise(self, text: str) -> list[int]:
        """Return the tokens of ``text`` with those that the model wants around it."""

    def logits(self, tokens: Sequence[int]) -> Float32:
        """Return what follows each of ``tokens``, read from an empty context.

        float32, ``[len(tokens), vocabulary_size]``, not normalised.
        """

    def close(self) -> None:
        """Free the model."""


@dataclass(frozen=True, slots=True)
class Divergence:
    """A candidate beside its float reference.

    Attributes:
        kl: Mean over the tokens of KL(reference || candidate), nats.
        kl_99: Its 99th percentile over the tokens.
        same_top: Share of tokens after which both choose the same next one.
        perplexity: Of the candidate on the text.
        perplexity_ratio: Over the reference's.
        tokens: How many were judged.
    """

    kl: float
    kl_99: float
    same_top: float
    perplexity: float
    perplexity_ratio: float
    tokens: int


class Tally:
    """Sums up window by window."""

    def __init__(self) -> None:
        self._kl: list[Float32] = []
        self._same = 0
        self._loss = [0.0, 0.0]
        self._predicted = 0

    def add(self, tokens: Sequence[int], reference: Float32, candidate: Float32) -> None:
        """Count one window: both models' logits, ``[len(tokens), vocabulary]``."""
        for start in range(0, len(tokens), _ROWS):
            rows = slice(start, start + _ROWS)
            first, second = normalised(reference[rows]), normalised(candidate[rows])
            self._kl.append(np.einsum("rv,rv->r", np.exp(first), first - second))
            self._same += int((first.argmax(1) == second.argmax(1)).sum())
            said = np.array(tokens[start + 1 : start + 1 + len(first)])
            places = np.arange(len(said))
            self._loss[0] -= float(first[places, said].sum(dtype=np.float64))
            self._loss[1] -= float(second[places, said].sum(dtype=np.float64))
            self._predicted += len(said)

    def result(self) -> Divergence:
        """Return the means; NaN, which meets no bound, where a logit was not finite."""
        kl = np.concatenate(self._kl).astype(np.float64)
        reference, candidate = (loss / max(self._predicted, 1) for loss in self._loss)
        return Divergence(
            # Rounding can push a divergence of nothing a little below nothing.
            kl=max(float(kl.mean()), 0.0) if np.isfinite(kl).all() else math.nan,
            kl_99=float(np.percentile(kl, 99)),
            same_top=self._same / len(kl),
            perplexity=_exp(candidate),
            perplexity_ratio=_exp(candidate - reference),
            tokens=len(kl),
        )


def compare(reference: Scorer, candidate: Scorer, windows: Iterable[Sequence[int]]) -> Divergence:
    """Run both models over ``windows`` of token ids, which both must understand."""
    tally = Tally()
    for window in windows:
        tally.add(window, reference.logits(window), candidate.logits(window))
    return tally.result()


def normalised(logits: Float32) -> Any:
    """Return log-probabilities, float32, of ``logits`` (``[rows, vocabulary]``)."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True, dtype=np.float32))


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
