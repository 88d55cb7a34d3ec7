"""Sentences to be said: requests made from templates, sentences of books, words at random.

Owns what is said and what its transcript is; who says it is :mod:`edgevoice.export.distil.voices`'s
business. Each source draws with a generator of random numbers that it is given, so that a number
names a sentence for good.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Protocol

import numpy as np

from edgevoice.errors import ConfigError
from edgevoice.export import words

_SLOT = re.compile(r"\{(\w+)\}")
_AN = re.compile(r"(?<=\b[Aa])(?= [aeiou])")
_ABBREVIATIONS = {
    "Mr.": "Mister", "Mrs.": "Missus", "Dr.": "Doctor", "St.": "Saint", "Esq.": "Esquire",
    "&c.": "and so on", "etc.": "and so on", "e.g.": "for example", "i.e.": "that is",
}  # fmt: skip
_ABBREVIATION = re.compile("|".join(rf"(?<![\w.]){re.escape(short)}" for short in _ABBREVIATIONS))
_END = re.compile(r"(?<=[.!?])[\"'”’)]*\s+")
_CLAUSE = re.compile(r"(?<=[,;:])\s+|\s+--\s*|--")
_PLAIN = re.compile(r"[A-Za-z ,.;:!?'\"()-]+")
MIN_WORDS, MAX_WORDS = 2, 26
"""Words in a sentence of a book; Kokoro's symbols for more than that exceed its 510."""


class Source(Protocol):
    """Draws sentences."""

    def draw(self, random: np.random.Generator) -> str:
        """Return a sentence to be said."""


def transcript(sentence: str) -> str:
    """Return the words of ``sentence``: small letters, apostrophes inside words, single spaces.

    >>> transcript("Mister O'Neill's half-hour, 'tis said!")
    "mister o'neill's half hour tis said"
    """
    return " ".join(words.normalise(sentence))


class Requests:
    """Requests to an assistant and everyday sentences, from templates with slots.

    Args:
        templates: Groups of sentences with ``{slots}``; each group is as likely as its size.
        slots: What may stand in each slot, slots again included.

    Raises:
        ConfigError: A slot is not there.
    """

    def __init__(
        self, templates: Mapping[str, Sequence[str]], slots: Mapping[str, Sequence[str]]
    ) -> None:
        self._templates = [text for group in templates.values() for text in group]
        self._slots = slots
        written = [*self._templates, *(text for texts in slots.values() for text in texts)]
        for text in written:
            for slot in _SLOT.findall(text):
                if not slots.get(slot):
                    raise ConfigError(f"{text!r}: there is no slot {slot!r}")

    def draw(self, random: np.random.Generator) -> str:
        """Return a template with all its slots filled."""
        text = self._templates[int(random.integers(len(self._templates)))]
        while found := _SLOT.search(text):
            choices = self._slots[found[1]]
            chosen = choices[int(random.integers(len(choices)))]
            text = text[: found.start()] + chosen + text[found.end() :]
        return _AN.sub("n", text[:1].upper() + text[1:])


OWN = ("requests", "nods", "replies")
"""Sentences written for this project: to an assistant that listens, and two kinds of what is said
while it speaks."""


def own(kind: str) -> Requests:
    """Return the project's own sentences of one of the kinds in :data:`OWN`."""
    file = resources.files("edgevoice.export").joinpath(f"distil/texts/{kind}.toml")
    data = tomllib.loads(file.read_text(encoding="utf-8"))
    return Requests(data["templates"], data["slots"])


@dataclass(frozen=True, slots=True)
class Book:
    """The sentences of a text; one is drawn as likely as any other."""

    sentences: Sequence[str]

    def draw(self, random: np.random.Generator) -> str:
        """Return one sentence."""
        return self.sentences[int(random.integers(len(self.sentences)))]


def read_book(path: Path) -> Book:
    """Return the sentences of a plain text in English that can be said as they are written.

    Long ones are cut at clause marks; what has figures, capitals throughout or other alphabets is
    left out.

    Raises:
        ConfigError: The file cannot be read, or has fewer than a hundred such sentences.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="ignore")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    paragraphs = re.split(r"\n\s*\n", text.replace("_", "").replace("’", "'").replace("—", "--"))
    found = dict.fromkeys(
        part
        for paragraph in paragraphs
        for sentence in _END.split(_spoken(" ".join(paragraph.split())))
        for part in _bounded(sentence)
        if _sayable(part)
    )
    if len(found) < 100:
        raise ConfigError(f"{path}: {len(found)} sentences that can be said; 100 are needed")
    return Book(tuple(found))


class Words:
    """Words at random, in rows of three to eight: no language model guesses these.

    Args:
        words: Different words.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words

    def draw(self, random: np.random.Generator) -> str:
        """Return some words and a full stop."""
        chosen = random.integers(len(self._words), size=random.integers(3, 9))
        return " ".join(self._words[i] for i in chosen).capitalize() + "."


def read_words(path: Path) -> Words:
    """Return the words of a list such as `/usr/share/dict/words`; names and genitives are left out.

    Raises:
        ConfigError: The file cannot be read, or has fewer than a hundred words.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="ignore").split()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    found = [word for word in lines if re.fullmatch(r"[a-z]{3,14}", word)]
    if len(found) < 100:
        raise ConfigError(f"{path}: {len(found)} words; 100 are needed")
    return Words(found)


def _spoken(text: str) -> str:
    return _ABBREVIATION.sub(lambda found: _ABBREVIATIONS[found[0]], text)


def _bounded(sentence: str) -> list[str]:
    """Cut a sentence at clause marks into parts of at most :data:`MAX_WORDS`."""
    if len(sentence.split()) <= MAX_WORDS:
        return [sentence.strip("\"'( )")]
    parts: list[str] = []
    for clause in _CLAUSE.split(sentence):
        if parts and len((parts[-1] + " " + clause).split()) <= MAX_WORDS:
            parts[-1] += " " + clause
        else:
            parts.append(clause)
    return [part.strip("\"'( )") for part in parts]


def _sayable(sentence: str) -> bool:
    parts = sentence.split()
    return (
        MIN_WORDS <= len(parts) <= MAX_WORDS
        and _PLAIN.fullmatch(sentence) is not None
        and not any(len(word) > 2 and word.isupper() for word in parts)
        and not re.search(r"[a-z][.][a-z]", sentence)  # names of files and news groups
        and not any(re.fullmatch(r"(?:[A-Za-z]\.)+|[IVXLC]{2,}\.?", word) for word in parts)
    )
