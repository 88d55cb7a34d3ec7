"""How finished a turn sounds: its words and its sound, as one probability. Pure.

Owns the score of the text and the combination with the end-of-turn model's judgement of the
sound. What a probability means in milliseconds is :mod:`edgevoice.turn_rules`' business.
"""

from __future__ import annotations

import math

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
TRUST_IN_SOUND = 0.3
"""Of the odds, where a language model has judged the words. Fitted to 102 whole and 92 cut
utterances of flite and of readers: the words told the one from the other with an area under the
curve of 0.85, the sound of 0.53. Cutting takes away what hesitation sounds like, so live speech
may deserve more than 0.3."""

_LENGTH = 2.0
_EVEN_WORDS, _FEWEST_WORDS, _MOST_WORDS = 5, 4, 12
"""The log odds grow by so much with the logarithm of the number of words: who pauses in mid-turn
has mostly said little. Of 180 whole and 342 cut utterances of flite, and 39 and 78 of LJ Speech,
the words alone told one from the other with an area under the curve of 0.94 and 0.80; with their
number it is 0.96 and 0.85. Bounded below, for the sake of short commands."""

_QUESTION_MARK = 1.5
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

_SOUND_BOUND = 0.95
"""The sound alone is never surer than this: Smart Turn says 0.99 to many a "and the" that is
spoken with a falling voice, and the words must be able to outweigh that."""


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
    ending: float, text: str, phrases: Phrases, draft_ending: float | None = None
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
    best = _logit(min(max(likelier, 1e-6), 1.0 - 1e-6))
    odds = _TRUST_IN_WORDS * (best - _logit(_EVEN_ENDING))
    length = min(max(len(words(text)), _FEWEST_WORDS), _MOST_WORDS)
    odds += _LENGTH * math.log(length / _EVEN_WORDS)
    marked = text_completeness(text, phrases)
    lexical = min(marked, text_completeness(text.rstrip(_MARKS), phrases))
    if lexical < NEUTRAL:
        odds += _LEXICALLY_CUT if lexical < SELDOM_LAST else _LEXICALLY_DOUBTFUL
    elif marked == ASKED and best >= _logit(_MARK_COUNTS_FROM):
        odds += _QUESTION_MARK
    return min(max(1.0 / (1.0 + math.exp(-odds)), 1.0 - _WORDS_BOUND), _WORDS_BOUND)


def combine(sound: float | None, text: float, trust_in_sound: float = 1.0) -> float:
    """Return one probability that the turn is over: two independent witnesses, even prior.

    >>> round(combine(0.9, 0.5), 3), round(combine(None, 0.3), 3)
    (0.9, 0.3)
    """
    if sound is None:
        return text
    bounded = min(max(sound, 1.0 - _SOUND_BOUND), _SOUND_BOUND)
    return 1.0 / (1.0 + math.exp(-(trust_in_sound * _logit(bounded) + _logit(text))))


def settled(text: float, threshold: float) -> bool:
    """Whether words as complete as ``text`` end a turn with ``threshold``, however it sounds.

    >>> settled(0.86, 0.7), settled(0.84, 0.7)
    (True, False)
    """
    return combine(0.0, text, TRUST_IN_SOUND) >= threshold


def _logit(probability: float) -> float:
    return math.log(probability / (1.0 - probability))
