"""The text that a decoding graph is built from: files, weights, sentences, vocabulary.

A file that ends its sentences with marks is read as a book, any other as one sentence a line. Owns
reading and the choice of the vocabulary.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgevoice.errors import ConfigError
from edgevoice.export.distil import sentences
from edgevoice.export.distil.sentences import transcript
from edgevoice.export.distil.word_ngrams import UNKNOWN

SPECIAL = ("<s>", "<unk>")
_LONGEST, _SHORTEST = 24, 3
"""Letters of a word; the shortest of a list of words."""


@dataclass(frozen=True, slots=True)
class Text:
    """Sentences, all of one weight.

    Attributes:
        sentences: As they are transcribed.
        weight: How often each counts.
    """

    sentences: Sequence[str]
    weight: float


def read(path: Path, weight: float = 1.0) -> Text:
    """Return the sentences of a file.

    Raises:
        ConfigError: It cannot be read, or holds no words.
    """
    try:
        content = path.read_text(encoding="utf-8", errors="ignore")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    lines = content.splitlines()
    ended = sum(line.rstrip()[-1:] in (*".?!",) for line in lines)
    if ended * 20 > len(lines) and "\n\n" in content:
        found = [transcript(sentence) for sentence in sentences.read_book(path).sentences]
    else:
        found = [transcript(line) for line in lines]
    found = [sentence for sentence in found if sentence]
    if not found:
        raise ConfigError(f"{path} holds no words; a text with a sentence a line is needed")
    return Text(found, weight)


def read_words(path: Path) -> list[str]:
    """Return the words of a list, one a line; short ones, which are mostly abbreviations, are not.

    Raises:
        ConfigError: It cannot be read, or holds no words.
    """
    lines = [sentence.split() for sentence in read(path).sentences]
    return [line[0] for line in lines if len(line) == 1 and len(line[0]) >= _SHORTEST]


def requests(number: int, seed: int, weight: float = 1.0) -> Text:
    """Return ``number`` of the project's own requests."""
    random = np.random.default_rng(seed)
    source = sentences.own("requests")
    return Text([transcript(source.draw(random)) for _ in range(number)], weight)


def vocabulary(
    texts: Iterable[Text], most: int, letters: str, also: Iterable[str] = ()
) -> list[str]:
    """Return the words of a graph: the two special ones, then the ``most`` frequent.

    Args:
        letters: What words may be spelled with; others are left out.
        also: Words that are taken however rare they are.
    """
    counts: dict[str, float] = defaultdict(float)
    for text in texts:
        for sentence in text.sentences:
            for word in sentence.split():
                counts[word] += text.weight
    allowed = set(letters)
    usable = [
        word
        for word, _ in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
        if set(word) <= allowed and len(word) <= _LONGEST
    ]
    extra = [w for w in also if w and set(w) <= allowed and len(w) <= _LONGEST]
    return [*SPECIAL, *dict.fromkeys([*usable[:most], *extra])]


def numbered(texts: Iterable[Text], words: Sequence[str]) -> list[tuple[float, NDArray[np.int64]]]:
    """Return every sentence as its weight and the numbers of its words."""
    numbers = {word: number for number, word in enumerate(words)}
    return [
        (text.weight, np.array([numbers.get(w, UNKNOWN) for w in sentence.split()], np.int64))
        for text in texts
        for sentence in text.sentences
    ]
