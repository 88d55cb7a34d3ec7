"""Chooses the next token from logits, as llama.cpp's chain of samplers does.

Repetition penalty over the answer's last tokens, then the greatest, or the nucleus (top-p, Holtzman
et al. 2020) at a temperature. One object an answer: what it chose is what it penalises.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from edgevoice.frames import Float32
from edgevoice.settings import LanguageModelSettings

PENALTY_WINDOW_TOKENS = 64


class TokenChoice:
    """The choices of one answer."""

    def __init__(self, settings: LanguageModelSettings, seed: int | None = None) -> None:
        """Begin an answer; ``seed`` None draws differently each time."""
        self._settings = settings
        self._recent: deque[int] = deque(maxlen=PENALTY_WINDOW_TOKENS)
        self._random = np.random.default_rng(seed)

    def choose(self, logits: Float32) -> int:
        """Return the next token for ``logits`` [vocabulary], which stay as they are."""
        scores = logits.astype(np.float32, copy=True)
        if self._recent and self._settings.repetition_penalty != 1.0:
            said = np.fromiter(set(self._recent), np.int64)
            penalty = np.float32(self._settings.repetition_penalty)
            scores[said] = np.where(
                scores[said] > 0, scores[said] / penalty, scores[said] * penalty
            )
        greedy = self._settings.temperature == 0
        token = int(scores.argmax()) if greedy else self._draw(scores)
        self._recent.append(token)
        return token

    def _draw(self, scores: Float32) -> int:
        order = np.argsort(-scores)
        likely = np.exp((scores[order] - scores[order[0]]).astype(np.float64))
        # The nucleus is cut before the temperature, as llama.cpp's default chain does.
        covered = np.cumsum(likely) / likely.sum()
        count = int(np.searchsorted(covered, self._settings.top_p)) + 1
        kept = order[: max(1, min(count, len(order)))]
        warm = (scores[kept] - scores[kept[0]]).astype(np.float64) / self._settings.temperature
        shares = np.exp(warm)
        return int(self._random.choice(kept, p=shares / shares.sum()))
