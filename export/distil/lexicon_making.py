"""From texts to the `lexicon.npz` of a pack: read, count, smooth, prune, build, write.

    python -m edgevoice.export.distil.lexicon_making PACK --text book.txt --text requests=2

Owns the order of the steps and their sizes. What is said of the pack's own decoding is
:mod:`edgevoice.engines.decoding_graph`'s.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgevoice.engines import ctc_topology, lexicon
from edgevoice.engines.ctc_tokens import BLANK, NO_SPACE, SPACE, Speller
from edgevoice.engines.lexicon import Lexicon, Scales
from edgevoice.errors import EXIT_OK, ConfigError, EdgevoiceError
from edgevoice.export.distil import graph_text, lexicon_graph, spelling, word_ngrams
from edgevoice.export.families.pack_layout import TOKENS

REQUESTS = "requests"
"""In place of a file: the project's own requests, in English."""
_REQUESTS = 30_000
_ORDER = 3
_TRIGRAM = 1.5
"""How much more a trigram must save than a bigram: it brings a root of its own."""
LETTERS_SCALES = Scales()
PIECES_SCALES = Scales(blank=3.0)
"""Pieces leave more frames blank: at 2 nats, 14 % of the words of 57 utterances were left out."""
_SCALES = {"language": "--language-scale", "word": "--word-cost", "blank": "--blank-cost"}
_FLOOR = 0.1
"""Occurrences that a word has beside those it was found with."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the lexicon is made of.

    Attributes:
        texts: File and weight; a file may be :data:`REQUESTS`.
        words: List of words that are known even if the texts lack them; None for none.
        most_words: Of the texts that are known.
        worth_nats: What a pair of words must save over all of the text to be kept.
        contexts: Of the spelling of unknown words; 0 lets no unknown word be written.
        scales: Fields of :class:`~edgevoice.engines.lexicon.Scales` other than the usual.
    """

    texts: Sequence[tuple[str, float]]
    words: Path | None = None
    most_words: int = 50_000
    worth_nats: float = 8.0
    contexts: int = 1500
    scales: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Made:
    """The lexicon and what is in it."""

    lexicon: Lexicon
    words: int
    pairs: int
    triples: int

    def summary(self, path: Path) -> str:
        """Return one line about what was written to ``path``."""
        graph = ctc_topology.expand(self.lexicon)
        return (
            f"{self.words} words, {self.pairs} pairs, {self.triples} triples: "
            f"{path.stat().st_size / 1e6:.2f} MB, {ctc_topology.size(graph) / 1e6:.1f} MB unpacked"
        )


def parse(argument: str) -> tuple[str, float]:
    """Return file and weight of ``FILE`` or ``FILE=WEIGHT``.

    Raises:
        ConfigError: There is no such file, or the weight is not above 0.
    """
    name, number = argument, 1.0
    if "=" in argument and not Path(argument).exists():
        name, _, weight = argument.rpartition("=")
        try:
            number = float(weight)
        except ValueError:
            number = -1.0
        if not 0.0 < number <= 1000.0:
            raise ConfigError(f"{argument}: the weight must be above 0 and at most 1000")
    if name != REQUESTS and not Path(name).is_file():
        raise ConfigError(f"{name}: no such file; name a text, or {REQUESTS} for edgevoice's own")
    return name, number


def make(request: Request, tokens: Sequence[str]) -> Made:
    """Return the lexicon of ``request`` for a pack that writes ``tokens``.

    Raises:
        ConfigError: A text cannot be read, or too little of it can be written with ``tokens``.
    """
    if tokens[0] != BLANK or not any(token.startswith(SPACE) for token in tokens):
        raise ConfigError(
            f"tokens {', '.join(tokens[:4])}...: {BLANK} must be first, {SPACE} there"
        )
    if SPACE in tokens and any(len(token) > 1 and token.startswith(SPACE) for token in tokens):
        raise ConfigError(
            f"tokens with {SPACE} alone and pieces that begin with it: in which order letters are "
            "joined to these nobody says; take a pack of `edgevoice export distil`"
        )
    letters = Speller(tokens).letters
    texts = [
        graph_text.requests(_REQUESTS, 1, weight)
        if name == REQUESTS
        else graph_text.read(Path(name), weight)
        for name, weight in request.texts
    ]
    also = graph_text.read_words(request.words) if request.words else ()
    words = graph_text.vocabulary(texts, request.most_words, letters, also)
    if len(words) < len(graph_text.SPECIAL) + 2:
        raise ConfigError(f"the texts have no two words of the letters {letters}; bring others")
    counts = word_ngrams.count(graph_text.numbered(texts, words), len(words), _ORDER)
    smoothed = word_ngrams.smooth(counts, words, _FLOOR)
    worth = (request.worth_nats, _TRIGRAM * request.worth_nats)
    model = word_ngrams.prune(smoothed, counts, words, worth)
    unknown = None
    if request.contexts:
        # Unknown words are spelled like the rarer half of those that are known.
        unknown = spelling.learn(words[len(words) // 2 :], tokens, request.contexts)
    built = lexicon_graph.build(model, unknown, tokens)
    sizes = [len(order.keys) for order in model.orders]
    usual = LETTERS_SCALES if Speller(tokens).space != NO_SPACE else PIECES_SCALES
    scales = replace(usual, **request.scales)
    return Made(replace(built, scales=scales), len(words) - 2, sizes[1], sizes[2])


def tokens_of(pack: Path) -> list[str]:
    """Return the tokens of a pack in the order of their numbers.

    Raises:
        ConfigError: There is no tokens.txt.
    """
    try:
        return lexicon.tokens(pack / TOKENS)
    except OSError as error:
        raise ConfigError(f"{pack} has no {TOKENS}: {error.strerror}; name a pack") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the lexicon of a pack; return the exit code."""
    parser = argparse.ArgumentParser(prog="lexicon_making", description=__doc__)
    parser.add_argument("pack", type=Path, help="folder with tokens.txt; lexicon.npz goes there")
    parser.add_argument("--text", action="append", required=True, metavar="FILE[=WEIGHT]")
    parser.add_argument(
        "--words", type=Path, metavar="FILE", help="words to know beside the texts'"
    )
    parser.add_argument("--worth", type=float, default=8.0, metavar="NATS", help="more is smaller")
    for name, option in _SCALES.items():
        parser.add_argument(option, type=float, dest=name)
    parsed = parser.parse_args(arguments)
    try:
        tokens = tokens_of(parsed.pack)
        request = Request(
            texts=[parse(text) for text in parsed.text],
            words=parsed.words,
            worth_nats=parsed.worth,
            scales={n: v for n, v in vars(parsed).items() if n in _SCALES and v is not None},
        )
        path = parsed.pack / lexicon.FILE
        made = make(request, tokens)
        lexicon.write(made.lexicon, path)
        print(f"{path}: {made.summary(path)}")
    except EdgevoiceError as error:
        print(f"lexicon_making: {error}", file=sys.stderr)
        return error.exit_code
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
