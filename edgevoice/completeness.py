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

_EVEN_ENDING = 0.15
"""The language model's probability of an ending that says nothing either way."""

_SHARPNESS = 2.0
"""Of the language model's odds. It parts whole turns from cut ones better than their sound does:
Smart Turn gives 0.07 and 0.11 to two of the five questions that flite speaks."""

_SOUND_BOUND = 0.97
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


def model_completeness(ending: float) -> float:
    """Return the probability that a turn is whole, from the language model's of its ending.

    ``ending`` is small even for whole turns, which could mostly go on: SmolLM2-135M gives half of
    them less than 0.5, but nine of ten cut ones less than 0.06 (`benchmarks/turn_text.py`).

    >>> round(model_completeness(_EVEN_ENDING), 3)
    0.5
    """
    odds = _logit(min(max(ending, 1e-6), 1.0 - 1e-6)) - _logit(_EVEN_ENDING)
    sharpened = 1.0 / (1.0 + math.exp(-_SHARPNESS * odds))
    return min(max(sharpened, UNFINISHED), 1.0 - UNFINISHED)


def combine(sound: float | None, text: float) -> float:
    """Return one probability that the turn is over (two witnesses, independent, even prior).

    >>> round(combine(0.9, 0.5), 3), round(combine(None, 0.3), 3)
    (0.9, 0.3)
    """
    if sound is None:
        return text
    bounded = min(max(sound, 1.0 - _SOUND_BOUND), _SOUND_BOUND)
    return 1.0 / (1.0 + math.exp(-(_logit(bounded) + _logit(text))))


def _logit(probability: float) -> float:
    return math.log(probability / (1.0 - probability))
