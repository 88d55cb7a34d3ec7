"""What the turn-taking machine remembers, and the transitions that several phases share. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeAlias

from edgevoice.completeness import SOUND, Witness
from edgevoice.events import (
    Action,
    Announce,
    DropAnswer,
    JudgePause,
    StartTimer,
    TranscribePause,
)
from edgevoice.overlap import Evidence, Overlap
from edgevoice.turn_rules import Rules


class Phase(StrEnum):
    """Who has the floor."""

    LISTENING = "listening"
    USER_SPEAKING = "user_speaking"
    ENDPOINTING = "endpointing"
    THINKING = "thinking"
    SPEAKING = "speaking"
    HELD = "held"


@dataclass(frozen=True, slots=True)
class TurnState:
    """Everything the machine remembers.

    Attributes:
        onset_ms: When the turn began.
        resumed_ms: When the turn's latest speech began.
        pause: Number of the latest pause; results for earlier pauses are stale.
        pause_end_ms: When speech stopped before that pause.
        text: The utterance up to that pause, None until the recogniser has answered.
        listened: The end-of-turn model was asked about that pause.
        probability: That the turn is over by its sound: that model's word, or the recogniser's own;
            None until it came.
        witness: Which of the two.
        ending: The language model's word on that text, None until it came.
        draft_ending: Its word on the same as the quicker of two passes heard it; None: not asked.
        weighed: It came, or need not be waited for.
        weighs: The language model weighs words, as far as is known.
        wait_ms: The wait in force since that pause.
        wait_over: The wait ended before the text was there.
        closed: The turn was ended by a rule, and no wait is worked out for it.
        near_miss_ms: Length of a pause in this turn that was nearly answered, 0 for none.
        patience_ms: See :func:`edgevoice.turn_rules.learn`.
        carried: Words of a turn that was released and whose answer nobody heard.
        answer: Number of the latest answer.
        prepared: Answer ``answer`` is being made and has not been released.
        prepared_text: What it answers.
        stirring: The VAD has a suspicion of speech.
        over: Speech over the answer that is not decided on.
        over_agent: The turn began while the agent still spoke, and may be no turn at all.
        probe: Number of the latest question for words over the agent.
        timer: Number of the latest timer; earlier ones are void.
    """

    phase: Phase = Phase.LISTENING
    onset_ms: float = 0.0
    resumed_ms: float = 0.0
    pause: int = 0
    pause_end_ms: float = 0.0
    text: str | None = None
    listened: bool = False
    probability: float | None = None
    witness: Witness = SOUND
    ending: float | None = None
    draft_ending: float | None = None
    weighed: bool = False
    weighs: bool = True
    wait_ms: float = 0.0
    wait_over: bool = False
    closed: bool = False
    near_miss_ms: float = 0.0
    patience_ms: float = 0.0
    carried: str = ""
    answer: int = 0
    prepared: bool = False
    prepared_text: str = ""
    stirring: bool = False
    over: Overlap | None = None
    over_agent: bool = False
    probe: int = 0
    timer: int = 0


Step: TypeAlias = tuple[TurnState, list[Action]]


def hear_user(state: TurnState, onset_ms: float, decision: str, evidence: Evidence) -> Step:
    """Begin a user's turn."""
    heard = replace(
        state,
        phase=Phase.USER_SPEAKING,
        onset_ms=onset_ms,
        resumed_ms=onset_ms,
        text=None,
        listened=False,
        probability=None,
        witness=SOUND,
        ending=None,
        draft_ending=None,
        wait_over=False,
        closed=False,
        near_miss_ms=0.0,
        prepared=False,
        over=None,
        over_agent=False,
        timer=state.timer + 1,
    )
    return heard, [Announce(decision, Phase.USER_SPEAKING.value, evidence)]


def pause(state: TurnState, end_ms: float, rules: Rules) -> Step:
    """Begin a pause, which may be the turn's end."""
    paused = replace(
        state,
        phase=Phase.ENDPOINTING,
        pause=state.pause + 1,
        pause_end_ms=end_ms,
        text=None,
        listened=rules.judged and not state.weighs,
        probability=None,
        witness=SOUND,
        ending=state.ending if state.prepared else None,
        draft_ending=state.draft_ending if state.prepared else None,
        wait_over=False,
        closed=False,
        stirring=False,
    )
    actions: list[Action] = [
        TranscribePause(paused.pause),
        *([JudgePause(paused.pause)] if paused.listened else []),
        Announce("speech_paused", Phase.ENDPOINTING.value),
    ]
    # The long wait, until sound and words say more.
    unknown_ms = rules.incomplete_wait_ms if rules.judged else rules.unjudged_wait_ms
    return set_wait(paused, actions, unknown_ms)


def set_wait(state: TurnState, actions: list[Action], wait_ms: float) -> Step:
    """Let the pause last ``wait_ms`` from the end of speech."""
    timer = state.timer + 1
    waiting = replace(state, timer=timer, wait_ms=wait_ms, wait_over=False)
    return waiting, [*actions, StartTimer(timer, state.pause_end_ms + wait_ms)]


def drop(state: TurnState, reason: str) -> list[Action]:
    """Return the action that drops the prepared answer, if there is one."""
    return [DropAnswer(state.answer, reason)] if state.prepared else []
