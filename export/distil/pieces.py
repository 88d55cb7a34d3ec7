"""Pieces of words, learned from transcripts by byte-pair encoding, to be written in letters' place.

Every letter is a piece at the beginning of words (with ``▁``) and inside; what is often side by
side is joined, most frequent first, never across words. Hugging Face's tokenizers does the
counting; the same texts give the same pieces. Pieces are of letters, never of bytes, for which
sherpa-onnx has a writing of its own. Owns the learning and what can be asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgevoice.engines.ctc_tokens import BLANK, SPACE
from edgevoice.errors import ConfigError, MissingDependencyError
from edgevoice.export.distil.alphabet import LEAST, Alphabet

CHARACTERS, BPE = "characters", "bpe:"
_PRIVATE = 0xF0000
"""A letter at the beginning of a word is counted as one of Unicode's private characters."""


def parse(argument: str) -> int:
    """Return how many tokens ``bpe:N`` asks for; 0 for ``characters``.

    Raises:
        ConfigError: It is neither.
    """
    if argument == CHARACTERS:
        return 0
    number = argument.removeprefix(BPE)
    if number == argument or not number.isdecimal() or not int(number):
        raise ConfigError(
            f"--tokens {argument}: {CHARACTERS}, or {BPE}N with the number of pieces, as {BPE}500"
        )
    return int(number)


def learn(texts: Iterable[str], letters: Sequence[str], count: int) -> Alphabet:
    """Return an alphabet of ``count`` tokens, the blank among them.

    Args:
        texts: Transcripts; words with other letters than ``letters`` are passed over.
        letters: What is to be written.

    Raises:
        ConfigError: The letters alone are more, or the texts have no such number of pieces.
        MissingDependencyError: tokenizers is not installed.
    """
    try:
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    except ImportError as error:
        raise MissingDependencyError(
            f"pieces of words need tokenizers: pip install 'edgevoice[export]' ({error})"
        ) from error
    single = [BLANK, *(SPACE + letter for letter in letters), *letters]
    if count <= len(single):
        raise ConfigError(
            f"--tokens {BPE}{count}: {len(letters)} letters, at the beginning of words and inside, "
            f"and the blank are {len(single)} already; ask for more, or for {CHARACTERS}"
        )
    beginning = {letter: chr(_PRIVATE + n) for n, letter in enumerate(letters)}
    known = set(letters)
    words = [
        beginning[word[0]] + word[1:]
        for text in texts
        for word in text.split()
        if set(word) <= known
    ]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=count - 1,
        min_frequency=LEAST,
        show_progress=False,
        initial_alphabet=[*beginning.values(), *letters],
    )
    tokenizer.train_from_iterator(words, trainer)
    numbers = tokenizer.get_vocab()
    learned = sorted((piece for piece in numbers if len(piece) > 1), key=lambda p: numbers[p])
    marked = {ord(private): SPACE + letter for letter, private in beginning.items()}
    tokens = [*single, *(piece.translate(marked) for piece in learned)]
    if len(tokens) < count:
        raise ConfigError(
            f"--tokens {BPE}{count}: the transcripts have {len(tokens)} pieces that occur {LEAST} "
            "times; ask for at most as many, or bring more speech"
        )
    return Alphabet(tokens)
