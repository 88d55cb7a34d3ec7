"""Cuts a streamed answer into what the voice is given: a first clause early, then sentences.

The first piece decides when the first sound comes, so it ends at any clause mark, or at a word
boundary when there is none for long. Later pieces are made while earlier ones play; they are
whole sentences where these are not too long, since a voice says whole sentences better.

Where the cuts fall depends on the text alone, never on how the stream was cut: a decision is
taken at the character that makes it certain (the white space behind a mark).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_SENTENCE_MARKS = ".!?"
_CLAUSE_MARKS = ",;:"
_WIDE_SENTENCE_MARKS = "。！？"
_WIDE_CLAUSE_MARKS = "，；：、—"
_CLOSERS = "\"'”’»)]}*_"
_ABBREVIATIONS = frozenset(
    [
        "dr",
        "mr",
        "mrs",
        "ms",
        "prof",
        "st",
        "jr",
        "sr",
        "vs",
        "e.g",
        "i.e",
        "etc",
        "approx",
        "fig",
        "no",
        "vol",
        "inc",
        "ltd",
        "co",
        "dept",
        "u.s",
        "u.k",
    ]
)
# A long clause without a mark is cut before one of these, where a speaker would breathe.
_BREATHES_BEFORE = frozenset(
    [
        "and",
        "but",
        "or",
        "so",
        "because",
        "although",
        "which",
        "that",
        "who",
        "where",
        "when",
        "while",
        "if",
        "than",
        "then",
        "with",
        "without",
        "from",
        "into",
        "for",
        "of",
        "in",
        "on",
        "at",
        "by",
        "to",
        "as",
        "before",
        "after",
        "until",
    ]
)


@dataclass(frozen=True, slots=True)
class Limits:
    """Lengths of pieces.

    Attributes:
        first_words: A first clause that ends at a clause mark has at least this many words
            ("Well," alone would leave the voice waiting for the next piece).
        first_max_words: A first clause without any mark is cut here.
        later_clause_chars: A later piece ends at a clause mark once it is this long.
        later_max_words: A later piece without any mark is cut here.
    """

    first_words: int = 2
    first_max_words: int = 8
    later_clause_chars: int = 80
    later_max_words: int = 32


class ClauseSplitter:
    """Takes text as it is streamed, gives pieces to say. For one answer, one thread.

    >>> splitter = ClauseSplitter()
    >>> splitter.feed("Yes, of course, Dr. Watson. It is 3.14")
    ['Yes, of course,', 'Dr. Watson.']
    >>> splitter.flush()
    ['It is 3.14']
    """

    def __init__(self, limits: Limits = Limits()) -> None:
        self._limits = limits
        self._start()

    def _start(self) -> None:
        self._pending = ""
        self._words = 0  # complete words in _pending
        self._fence_marks = 0  # backticks (or tildes) in a row just now
        self._in_fence = False
        self._first = True

    def feed(self, text: str) -> list[str]:
        """Take the next piece of the stream; return the pieces that now stand, in order."""
        pieces: list[str] = []
        for character in text:
            self._pending += character
            cut = self._cut(character)
            if cut:
                self._emit(cut, pieces)
        return pieces

    def flush(self) -> list[str]:
        """Return what is left when the stream has ended. The splitter then starts anew."""
        left = self._pending.strip()
        self._start()
        return [left] if left else []

    def _emit(self, cut: int, pieces: list[str]) -> None:
        piece, self._pending = self._pending[:cut].strip(), self._pending[cut:].lstrip()
        self._words = len(self._pending.split())
        if piece:
            pieces.append(piece)
            # A piece of marks alone says nothing; the first sound is still to come.
            self._first = self._first and not any(c.isalnum() for c in piece)

    def _cut(self, character: str) -> int:
        """Return where the pending text is cut now that it ends in ``character``; 0: nowhere."""
        pending = self._pending
        # A fence of code is one piece, so that it can be left unsaid as a whole.
        self._fence_marks = self._fence_marks + 1 if character in "`~" else 0
        if self._fence_marks == 3:
            self._in_fence = not self._in_fence
        if self._in_fence:
            return 0
        if character in _WIDE_SENTENCE_MARKS:
            return len(pending)
        if character in _WIDE_CLAUSE_MARKS:
            return len(pending) if self._clause_is_long_enough(len(pending)) else 0
        if not character.isspace():
            return 0
        body = pending.rstrip()
        if not body:
            return 0
        if len(pending) - len(body) == 1:
            self._words += 1
        if character == "\n":
            return len(pending)
        return self._cut_at_space(body)

    def _cut_at_space(self, body: str) -> int:
        bare = body.rstrip(_CLOSERS)
        mark = bare[-1:]
        if mark and mark in _SENTENCE_MARKS:
            return 0 if mark == "." and _is_abbreviation(bare) else len(body)
        if (mark and mark in _CLAUSE_MARKS) or body.endswith((" -", " –")):
            if self._clause_is_long_enough(len(body)):
                return len(body)
            return 0
        limits = self._limits
        limit = limits.first_max_words if self._first else limits.later_max_words
        return _breath(body) if self._words >= limit else 0

    def _clause_is_long_enough(self, length: int) -> bool:
        if self._first:
            return len(self._pending.split()) >= self._limits.first_words
        return length >= self._limits.later_clause_chars


def clauses(stream: Iterable[str], limits: Limits = Limits()) -> Iterator[str]:
    """Yield the pieces of a whole stream, each as soon as it stands."""
    splitter = ClauseSplitter(limits)
    for text in stream:
        yield from splitter.feed(text)
    yield from splitter.flush()


def _is_abbreviation(body: str) -> bool:
    """Whether the full stop at the end of ``body`` does not end a sentence."""
    words = body[:-1].split()
    if not words:
        return True
    word = words[-1].lstrip("\"'“‘(*_")
    if word.lower() in _ABBREVIATIONS:
        return True
    if word.isdigit():
        # "1. Take the first" is a list; "It was in 1999. Then" is a sentence.
        return len(words) == 1
    return len(word) == 1 and word.isalpha() and word.isupper() and word != "I"


def _breath(body: str) -> int:
    """Return where to cut ``body``: before the last word one breathes before, or at its end."""
    starts = [i for i in range(1, len(body)) if body[i - 1].isspace() and not body[i].isspace()]
    for number in range(len(starts) - 1, len(starts) // 2 - 1, -1):
        word = body[starts[number] :].split(maxsplit=1)[0].lower()
        if word in _BREATHES_BEFORE:
            return starts[number]
    return len(body)
