"""How finished a turn sounds: its words and its sound, as one probability. Pure.

Owns the score of the text and the combination with the end-of-turn model's judgement of the
sound. What a probability means in milliseconds is :mod:`edgevoice.turn_rules`' business.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgevoice.phrases import Phrases, ends_with, words

UNFINISHED = 0.05
SELDOM_LAST = 0.3
CUT_OFF = 0.2
ASKED = 0.8
NEUTRAL = 0.5

_EVEN_ENDING = 0.047
"""The language model's probability of an ending that says nothing either way, of words that a
recogniser heard. What Whisper garbles looks unfinished to a language model: three of ten whole
turns get less than 0.2."""

_TRUST_IN_WORDS = 0.7
"""Of the odds, where a language model has judged the words."""

_EVEN_WORDS, _FEWEST_WORDS, _MOST_WORDS = 5, 4, 12
"""The log odds grow with the logarithm of the number of words: who pauses in mid-turn has mostly
said little. Bounded below, for the sake of short commands."""

_LEXICALLY_CUT = -2.0
_LEXICALLY_DOUBTFUL = -1.5
"""Added to the log odds of the words. Whisper gives a question mark to nearly all whole questions,
and to half of what is cut out of them ("What is the population")."""

_MARK_COUNTS_FROM = 0.25 * _EVEN_ENDING
"""A question mark where the language model thinks less of the end is one of those halves. Of 342
pauses in flite's utterances 12.8 % would be answered if it always counted, and 11.6 so; nine in ten
whole ones wait as long. With twice this it is 10.5, but "How many hours should I sleep?" waits."""

_MARKS = " .?!\"'"
"""At the end of a text: of "How do you like the" Whisper makes a question as well."""

_WORDS_BOUND = 0.98


@dataclass(frozen=True, slots=True)
class Witness:
    """Who judges the sound, and what words are worth beside that.

    Attributes:
        trust: Of the sound's odds, where a language model has judged the words.
        bound: The sound alone is never surer than this: the words must be able to outweigh it.
        length: The log odds of the words grow by so much with the logarithm of their number.
        question_mark: Added to them for one.
        likely: A turn that is less likely over than this waits for longer, the less the longer.
        draft_settles: Whether words as another recogniser heard them can make a turn surely over;
            otherwise likely over, at most.
    """

    trust: float
    bound: float
    length: float
    question_mark: float
    likely: float
    draft_settles: bool


SOUND = Witness(
    trust=0.3, bound=0.95, length=2.0, question_mark=1.5, likely=0.6, draft_settles=True
)
"""Smart Turn, which says 0.99 to many a "and the" that is spoken with a falling voice. Of 180 whole
and 342 cut utterances of flite, and 39 and 78 of LJ Speech, it tells one from the other with an
area under the curve of 0.58 and 0.64, the words with 0.94 and 0.80, the words and their number with
0.96 and 0.85."""

HEARING = Witness(
    trust=0.7, bound=0.98, length=0.0, question_mark=1.8, likely=0.4, draft_settles=False
)
"""What the recogniser's encoder heard (:mod:`edgevoice.engines.encoder_judge`), which tells how
much has been said as well: 0.93 and 0.94 of the same utterances, 0.97 and 0.92 with the words.

It is sure enough without a draft, and what a draft garbles may look whole: "he might have been"
cut behind "made" is unfinished, "he might have be ma" is not. A draft keeps what was misheard from
waiting as if it were cut, and no more."""


def text_completeness(text: str, phrases: Phrases) -> float:
    """Return the probability that ``text`` is a whole turn, by its last words and its mark.

    0.5 says nothing either way. A full stop is no evidence: Whisper sets one behind everything.

    >>> from edgevoice.phrases import load
    >>> text_completeness("Turn on the light and the.", load("en"))
    0.05
    >>> text_completeness("What time is it?", load("en"))
    0.8
    """
    said = words(text)
    if not said:
        return NEUTRAL
    mark = text.rstrip("\"'”’»)] ")[-1:]
    if mark and mark in "?？!！":
        return ASKED
    if ends_with(said, phrases.unfinished):
        return UNFINISHED
    if (mark and mark in ",:;-–—…，、；：") or text.rstrip().endswith("..."):
        return CUT_OFF
    if ends_with(said, phrases.seldom_last):
        return SELDOM_LAST
    return NEUTRAL


def model_completeness(
    ending: float,
    text: str,
    phrases: Phrases,
    draft_ending: float | None = None,
    witness: Witness = SOUND,
) -> float:
    """Return the probability that a turn is whole, from the language model's of its ending.

    ``ending`` is small even for whole turns, which could mostly go on. The mark, the last words and
    the length of ``text`` count beside it.

    ``draft_ending`` is the same of what another recogniser heard. The better of the two counts:
    what is misheard looks unfinished, and where one mishears the other mostly does not, or
    differently. Asked where the first leaves doubt, it brings nine in ten of flite's whole
    utterances from 500 to 150 ms of waiting and of LJ Speech's from 520 to 220, while 13.0 and
    40.3 % of the pauses in them are answered instead of 11.6 and 40.1 (639 utterances, the default
    bundle's first pass). The mean of both would answer 7 and 34 %, and lets every fourth question
    wait.

    >>> from edgevoice.phrases import load
    >>> round(model_completeness(_EVEN_ENDING, "It rains cats and dogs", load("en")), 3)
    0.5
    """
    likelier = ending if draft_ending is None else max(ending, draft_ending)
    best = _logit(_bounded(likelier, 1.0 - 1e-6))
    odds = _TRUST_IN_WORDS * (best - _logit(_EVEN_ENDING))
    length = min(max(len(words(text)), _FEWEST_WORDS), _MOST_WORDS)
    odds += witness.length * math.log(length / _EVEN_WORDS)
    marked = text_completeness(text, phrases)
    lexical = min(marked, text_completeness(text.rstrip(_MARKS), phrases))
    if lexical < NEUTRAL:
        odds += _LEXICALLY_CUT if lexical < SELDOM_LAST else _LEXICALLY_DOUBTFUL
    elif marked == ASKED and best >= _logit(_MARK_COUNTS_FROM):
        odds += witness.question_mark
    return _bounded(_probability(odds), _WORDS_BOUND)


def combine(
    sound: float | None, text: float, trust_in_sound: float = 1.0, bound: float = SOUND.bound
) -> float:
    """Return one probability that the turn is over: two independent witnesses, even prior.

    The sound is never surer than ``bound``.

    >>> round(combine(0.9, 0.5), 3), round(combine(None, 0.3), 3)
    (0.9, 0.3)
    """
    if sound is None:
        return text
    return _probability(trust_in_sound * _logit(_bounded(sound, bound)) + _logit(text))


def words_needed(sound: float | None, threshold: float, witness: Witness) -> float:
    """Return how complete words must be to end a turn with ``threshold``.

    ``sound`` is what :func:`combine` takes; None: however it sounds.

    >>> round(words_needed(None, 0.7, SOUND), 3), round(words_needed(0.5, 0.7, SOUND), 3)
    (0.849, 0.7)
    """
    heard = _logit(_bounded(0.0 if sound is None else sound, witness.bound))
    return _probability(_logit(_bounded(threshold, 1.0 - 1e-6)) - witness.trust * heard)


def _bounded(probability: float, most: float) -> float:
    """Return ``probability``, no surer than ``most`` either way."""
    return min(max(probability, 1.0 - most), most)


def _logit(probability: float) -> float:
    return math.log(probability / (1.0 - probability))


def _probability(log_odds: float) -> float:
    return 1.0 / (1.0 + math.exp(-log_odds))
