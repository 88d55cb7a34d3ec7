"""Which words of a growing transcript will stay: local agreement between successive decodes.

LocalAgreement-2 of Macháček, Dabre and Bojar, "Turning Whisper into Real-Time Transcription
System" (2023): what two decodes in a row begin with alike is taken as stable. Pure.
"""

from __future__ import annotations

import re

_WORD = re.compile(r"\S+")
_EDGES = re.compile(r"^\W+|\W+$")


class LocalAgreement:
    """Follows one utterance's decodes."""

    def __init__(self) -> None:
        self._before: list[str] = []

    def agree(self, text: str) -> str:
        """Take the newest decode; return the prefix of it that the one before began with too.

        Words are compared without case and outer punctuation, since a partial's full stop turns
        into a comma as soon as more is said. The prefix ends behind a whole word, less that
        word's closing punctuation.

        >>> agreement = LocalAgreement()
        >>> agreement.agree("What is.")
        ''
        >>> agreement.agree("What is the capital?")
        'What is'
        """
        found = list(_WORD.finditer(text))
        words = [_EDGES.sub("", m.group()).casefold() for m in found]
        alike = 0
        for old, new in zip(self._before, words, strict=False):
            if old != new:
                break
            alike += 1
        self._before = words
        if not alike:
            return ""
        last = found[alike - 1]
        closing = re.search(r"\W*$", last.group())
        return text[: last.start() + (closing.start() if closing else len(last.group()))]

    def reset(self) -> None:
        """Forget the utterance."""
        self._before = []
