"""How much of the language model's work was done ahead, and how much of that for nothing.

Work is counted in tokens, read or written. A token is wasted when the model's cache holds it and
the next prompt has no use for it: a partial that was heard differently after all, an answer that
was dropped, the unheard part of one that was interrupted. Leaves deciding what to do about it to
:mod:`edgevoice.turns`.
"""

from __future__ import annotations

import threading

_FADING = 0.75
"""Of earlier work in the recent share, with each answer: a few answers' worth count."""

_ENOUGH_TOKENS = 100.0
"""Less recent work than this is too little to judge by."""


class Speculation:
    """One conversation's account. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cached = 0
        self._prepared = 0
        self._dropped = 0
        self._read = 0
        self._written = 0
        self._wasted = 0
        self._recent_work = 0.0
        self._recent_waste = 0.0

    def prepared(self) -> None:
        """Note that an answer was begun before the turn was surely over."""
        with self._lock:
            self._prepared += 1
            self._recent_work *= _FADING
            self._recent_waste *= _FADING

    def dropped(self) -> None:
        """Note that nobody heard an answer that was begun."""
        with self._lock:
            self._dropped += 1

    def read(self, evaluated: int, prompt_tokens: int, *, cancelled: bool) -> None:
        """Note a prompt that was read.

        Args:
            evaluated: Tokens that had to be evaluated.
            prompt_tokens: All tokens of the prompt.
            cancelled: Reading stopped early. How much of the cache had to go is then not known
                until the next prompt has been read, and counted with that.
        """
        with self._lock:
            self._read += evaluated
            self._recent_work += evaluated
            if cancelled:
                self._cached = min(prompt_tokens, self._cached + evaluated)
                return
            wasted = max(0, self._cached - (prompt_tokens - evaluated))
            self._wasted += wasted
            self._recent_waste += wasted
            self._cached = prompt_tokens

    def wrote(self) -> None:
        """Note a token of an answer."""
        with self._lock:
            self._written += 1
            self._recent_work += 1
            self._cached += 1

    @property
    def wasted_share(self) -> float:
        """Share (0 to 1) of the recent work that was wasted; 0 while there is little of it."""
        with self._lock:
            if self._recent_work < _ENOUGH_TOKENS:
                return 0.0
            return min(1.0, self._recent_waste / self._recent_work)

    def figures(self) -> dict[str, float]:
        """Return the session's counts so far."""
        with self._lock:
            work = self._read + self._written
            return {
                "answers_prepared": self._prepared,
                "answers_dropped": self._dropped,
                "tokens_read": self._read,
                "tokens_written": self._written,
                "tokens_wasted": self._wasted,
                "wasted_share": round(self._wasted / work, 3) if work else 0.0,
            }
