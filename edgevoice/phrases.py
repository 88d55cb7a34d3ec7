"""Short utterances that steer a conversation, language by language: the table `phrases.toml`.

Owns reading the table and comparing an utterance's words with it. What follows from a match is
turn-taking's business.
"""

from __future__ import annotations

import functools
import re
import tomllib
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TypeAlias

from edgevoice.errors import ConfigError, unknown

LANGUAGES = ("en", "de", "fr", "es", "it", "pt", "zh", "ja")
"""The languages that `phrases.toml` has a table for."""

Words: TypeAlias = tuple[str, ...]

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
# Han, kana, and the long-vowel mark: scripts that are written without spaces.
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\u3040-\u30ff\u3400-\u9fff]+")
_DRAWL = re.compile(r"(.)\1{2,}")


def words(text: str) -> Words:
    """Return the words of ``text`` as they are compared: lower case, without punctuation.

    Chinese and Japanese count character by character, and a drawl is shortened to two letters.

    >>> words("Mmmm-hm, it’s OK!")
    ('mm', 'hm', "it's", 'ok')
    >>> words("好的。")
    ('好', '的')
    """
    plain = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
    found: list[str] = []
    for word in _WORD.findall(plain):
        found += _UNSPACED.findall(_DRAWL.sub(r"\1\1", word))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Phrases:
    """One language's table; see the head of `phrases.toml`."""

    language: str
    backchannels: frozenset[Words]
    answers: frozenset[Words]
    go_on: frozenset[Words]
    stops: frozenset[Words]
    unfinished: frozenset[Words]
    seldom_last: frozenset[Words]

    def is_backchannel(self, said: Sequence[str]) -> bool:
        """Whether ``said`` (of :func:`words`) is nothing but backchannels, one or several."""
        return bool(said) and _is_made_of(tuple(said), self.backchannels)

    def behind_backchannels(self, said: Sequence[str]) -> Words:
        """Return what is left of ``said`` behind the backchannels that it begins with."""
        begun = [end for end in range(len(said) + 1) if self.is_backchannel(said[:end])]
        return tuple(said[max(begun, default=0) :])

    def is_answer(self, said: Sequence[str]) -> bool:
        """Whether ``said`` holds a backchannel that answers a question."""
        return any(_ends_with(said[: i + 1], self.answers) for i in range(len(said)))

    def stops_agent(self, said: Sequence[str]) -> bool:
        """Whether ``said`` holds a word that wants the agent to stop, or to hear something."""
        return any(_ends_with(said[: i + 1], self.stops) for i in range(len(said)))

    def begins_with_stop(self, said: Sequence[str]) -> bool:
        """Whether the first of ``said`` are such words."""
        return any(tuple(said[:end]) in self.stops for end in range(1, len(said) + 1))

    def begins_backchannel(self, said: Sequence[str]) -> bool:
        """Whether ``said`` may be a backchannel of which the end has not been heard."""
        if not said:
            return False
        head, tail = tuple(said[:-1]), said[-1]
        return any(
            phrase[: len(head)] == head and phrase[len(head)].startswith(tail)
            for phrase in self.backchannels
            if len(phrase) > len(head)
        )

    def asks_to_go_on(self, text: str) -> bool:
        """Whether ``text`` is nothing but a wish to hear the rest."""
        return words(text) in self.go_on


@functools.cache
def load(language: str) -> Phrases:
    """Return the table of ``language`` (one of :data:`LANGUAGES`).

    Raises:
        ConfigError: There is no such table.
    """
    if language not in LANGUAGES:
        raise ConfigError(unknown("language", language, LANGUAGES))
    table = tomllib.loads(
        resources.files("edgevoice").joinpath("phrases.toml").read_text(encoding="utf-8")
    )[language]
    return Phrases(language, **{name: _phrases(listed) for name, listed in table.items()})


def ends_with(said: Sequence[str], phrases: Iterable[Words]) -> bool:
    """Whether the last of ``said`` are one of ``phrases``."""
    return _ends_with(said, frozenset(phrases))


def _phrases(listed: Iterable[str]) -> frozenset[Words]:
    return frozenset(words(phrase) for phrase in listed)


def _ends_with(said: Sequence[str], phrases: frozenset[Words]) -> bool:
    return any(tuple(said[i:]) in phrases for i in range(max(0, len(said) - 6), len(said)))


def _is_made_of(said: Words, phrases: frozenset[Words]) -> bool:
    reached = {0}
    for end in range(1, len(said) + 1):
        if any(said[begin:end] in phrases for begin in reached):
            reached.add(end)
    return len(said) in reached
