"""The figures by which turns are taken, and the arithmetic of waiting. Pure.

Owns how long a silence must be before it is answered, and what a speaker's own pauses teach.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from edgevoice.completeness import SOUND
from edgevoice.phrases import Phrases, load
from edgevoice.settings import Settings

NEAR_MISS = 0.6
"""A pause in mid-turn that took this share of the wait, or more, was nearly answered."""

_HEADROOM = 1.15
"""The wait is to be longer than the pause that nearly fooled it, by this factor."""

_FORGOTTEN = 0.9
"""With each turn that ended well, this much of the added patience is left."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The figures that decide. ``judged`` says whether an end-of-turn model answers every pause.

    Attributes:
        complete_wait_ms: Silence after a turn that is surely over.
        likely_wait_ms: Silence after one that is likely over.
        incomplete_wait_ms: Silence after one that surely is not.
        unjudged_wait_ms: Silence where there is no end-of-turn model and the words say nothing.
        end_of_turn_threshold: Probability from which a turn is surely over.
        adapt_wait_ms: At most this much is added to the first two for a slow speaker.
        barge_in_ms: Speech over the agent that holds its answer.
        probe_ms: Speech over the agent after which its words are first asked for.
        words_wait_ms: Wait for the words of speech that has ended.
        max_hold_ms: An answer is held this long at most while no words are heard.
        keep_prepared_ms: Speech in a pause that is shorter leaves the prepared answer in place.
        finishing_ms: An answer with less than this to be heard is as good as finished.
        echo_similarity: Share of the agent's own words from which speech over it is its echo.
        echo_margin_db: Sound that is not this much louder than the echo may be the echo.
        background_db: Speech this much quieter than the user's own is somebody else's.
        min_speaker_similarity: A voice less like the owner's is somebody else's.
        speculation_budget: Share of wasted work from which on nothing is prepared ahead.
        speculate_from: A turn that is less likely over than this is not answered ahead.
        max_turn_ms: A longer turn is answered as it is.
        phrases: The session's language.
    """

    complete_wait_ms: float = 150.0
    likely_wait_ms: float = 600.0
    incomplete_wait_ms: float = 2000.0
    unjudged_wait_ms: float = 700.0
    end_of_turn_threshold: float = 0.8
    adapt_wait_ms: float = 400.0
    barge_in_ms: float = 96.0
    probe_ms: float = 320.0
    words_wait_ms: float = 1000.0
    max_hold_ms: float = 2000.0
    keep_prepared_ms: float = 300.0
    finishing_ms: float = 1000.0
    echo_similarity: float = 0.6
    echo_margin_db: float = 0.0
    background_db: float = 8.0
    min_speaker_similarity: float = 0.25
    speculation_budget: float = 0.6
    speculate_from: float = 0.05
    max_turn_ms: float = 60_000.0
    judged: bool = True
    phrases: Phrases = field(default_factory=lambda: load("en"))


def rules(settings: Settings, *, judged: bool) -> Rules:
    """Return the figures of ``settings``; ``judged``: an end-of-turn model is there."""
    turns = settings.turns
    return Rules(
        complete_wait_ms=turns.complete_wait_ms,
        likely_wait_ms=turns.likely_wait_ms,
        incomplete_wait_ms=turns.incomplete_wait_ms,
        unjudged_wait_ms=turns.unjudged_wait_ms,
        end_of_turn_threshold=settings.end_of_turn.threshold,
        adapt_wait_ms=turns.adapt_wait_ms,
        barge_in_ms=turns.barge_in_ms,
        words_wait_ms=turns.words_wait_ms,
        max_hold_ms=turns.max_hold_ms,
        echo_similarity=turns.echo_similarity,
        echo_margin_db=turns.echo_margin_db,
        background_db=turns.background_db,
        min_speaker_similarity=turns.min_speaker_similarity,
        speculation_budget=turns.speculation_budget,
        max_turn_ms=turns.max_turn_s * 1000.0,
        judged=judged,
        phrases=load(turns.language),
    )


def wait_ms(
    probability: float, patience_ms: float, rules: Rules, likely: float = SOUND.likely
) -> float:
    """Return the silence to wait: short from the threshold on, long for what is hardly over.

    In between it is always the same, as long as an answer within 700 ms can afford: pauses are of
    any length, so that waiting a little helps little, and waiting for as long as most turns may
    wait helps most. `docs/benchmarks.md` has what this gives, and what else was tried.

    Args:
        probability: That the turn is over (:func:`edgevoice.completeness.combine`).
        patience_ms: What :func:`learn` made of the speaker's pauses.
        rules: The figures.
        likely: What is less likely over than this waits for longer, the less the longer.
    """
    longest_ms = rules.incomplete_wait_ms
    if probability >= rules.end_of_turn_threshold:
        return min(rules.complete_wait_ms + patience_ms, longest_ms)
    likely_ms = min(max(rules.likely_wait_ms, rules.complete_wait_ms) + patience_ms, longest_ms)
    doubt = max(0.0, 1.0 - probability / min(likely, rules.end_of_turn_threshold))
    return likely_ms + math.sqrt(doubt) * (longest_ms - likely_ms)


def unjudged_wait_ms(text_probability: float, patience_ms: float, rules: Rules) -> float:
    """Return the silence to wait where no model judges the sound: words can only lengthen it."""
    doubt = max(0.0, 1.0 - 2.0 * text_probability)
    short_ms = min(rules.unjudged_wait_ms + patience_ms, rules.incomplete_wait_ms)
    return max(short_ms, short_ms + doubt * (rules.incomplete_wait_ms - short_ms))


def nearly_answered(pause_ms: float, waited_ms: float) -> bool:
    """Whether a pause inside a turn came near to the wait that would have ended the turn."""
    return pause_ms >= NEAR_MISS * waited_ms


def learn(patience_ms: float, pause_ms: float, rules: Rules) -> float:
    """Return the patience after a pause of ``pause_ms`` inside a turn was nearly answered."""
    wanted_ms = min(_HEADROOM * pause_ms - rules.complete_wait_ms, rules.adapt_wait_ms)
    return max(patience_ms, 0.5 * (patience_ms + wanted_ms))


def forget(patience_ms: float) -> float:
    """Return the patience after a turn that ended."""
    return _FORGOTTEN * patience_ms
