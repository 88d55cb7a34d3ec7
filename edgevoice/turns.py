"""Turn-taking: a pure state machine. No clock, no audio, no I/O, no threads.

:func:`step` takes the state and one event and returns the next state and the actions that follow.
Time comes in with the events, timers are actions that come back as events, so a whole
conversation can be tested in microseconds on a virtual clock.

Phases::

    LISTENING      speech -> USER_SPEAKING
    USER_SPEAKING  pause -> ENDPOINTING
    ENDPOINTING    speech -> USER_SPEAKING; the wait is over -> THINKING; no words -> LISTENING
    THINKING       first sound -> SPEAKING; speech that lasts -> USER_SPEAKING, the turn goes on
    SPEAKING       heard to the end -> LISTENING; speech that lasts -> USER_SPEAKING, a new turn

The answer is prepared as soon as the pause is transcribed, and held until the wait is over; when
the user goes on, it is dropped and nobody heard it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from edgevoice.events import (
    Action,
    Announce,
    AnswerFailed,
    AnswerFinished,
    AnswerSounded,
    CompleteAnswer,
    DropAnswer,
    EndpointReached,
    Event,
    ForgetUtterance,
    InterruptAnswer,
    PauseJudged,
    PauseTranscribed,
    PrepareAnswer,
    ReleaseAnswer,
    SpeechContinued,
    SpeechPaused,
    SpeechStarted,
    StartTimer,
    TimerFired,
    TranscribePause,
)


class Phase(StrEnum):
    """Who has the floor."""

    LISTENING = "listening"
    USER_SPEAKING = "user_speaking"
    ENDPOINTING = "endpointing"
    THINKING = "thinking"
    SPEAKING = "speaking"


@dataclass(frozen=True, slots=True)
class Rules:
    """The figures that decide. ``judged`` says whether an end-of-turn model answers every pause."""

    complete_wait_ms: float = 260.0
    incomplete_wait_ms: float = 1200.0
    unjudged_wait_ms: float = 700.0
    end_of_turn_threshold: float = 0.5
    barge_in_ms: float = 96.0
    max_turn_ms: float = 60_000.0
    judged: bool = True


@dataclass(frozen=True, slots=True)
class TurnState:
    """Everything the machine remembers.

    Attributes:
        pause: Number of the latest pause; results for earlier pauses are stale.
        pause_end_ms: When speech stopped before that pause.
        text: The utterance up to that pause, None until the recogniser has answered.
        probability: The end-of-turn model's word on that pause, None until it came.
        wait_over: The wait ended before the text was there.
        carried: Words of a turn that was released and whose answer nobody heard.
        answer: Number of the latest answer.
        prepared: Answer ``answer`` is being made and has not been released.
        timer: Number of the latest timer; earlier ones are void.
        over_onset_ms: Onset of speech during THINKING or SPEAKING, not yet long enough to count.
    """

    phase: Phase = Phase.LISTENING
    onset_ms: float = 0.0
    pause: int = 0
    pause_end_ms: float = 0.0
    text: str | None = None
    probability: float | None = None
    wait_over: bool = False
    carried: str = ""
    answer: int = 0
    prepared: bool = False
    timer: int = 0
    over_onset_ms: float | None = None


Step = tuple[TurnState, list[Action]]


def step(state: TurnState, event: Event, rules: Rules) -> Step:
    """Return the state after ``event`` and what is to be done, in order."""
    match state.phase:
        case Phase.LISTENING:
            return _listening(state, event)
        case Phase.USER_SPEAKING:
            return _user_speaking(state, event, rules)
        case Phase.ENDPOINTING:
            return _endpointing(state, event, rules)
        case Phase.THINKING | Phase.SPEAKING:
            return _answering(state, event, rules)


def _listening(state: TurnState, event: Event) -> Step:
    if isinstance(event, SpeechStarted):
        return _hear_user(state, event.onset_ms, "speech_started", {})
    if isinstance(event, SpeechPaused):
        # The rest of a turn that max_turn_ms or an endpoint rule had closed.
        return state, [ForgetUtterance(event.end_ms)]
    return state, []


def _user_speaking(state: TurnState, event: Event, rules: Rules) -> Step:
    match event:
        case SpeechPaused(end_ms=end_ms):
            return _pause(state, end_ms, rules)
        case EndpointReached(at_ms=at_ms):
            paused, actions = _pause(state, at_ms, rules)
            return _set_wait(paused, actions, 0.0)
        case SpeechContinued(at_ms=at_ms) if at_ms - state.onset_ms >= rules.max_turn_ms:
            paused, actions = _pause(state, at_ms, rules)
            return _set_wait(paused, actions, 0.0)
        case _:
            return state, []


def _endpointing(state: TurnState, event: Event, rules: Rules) -> Step:
    match event:
        case SpeechStarted():
            # Still the same turn: the onset stays, so that max_turn_ms counts from the first word.
            dropped = _drop(state, "user went on")
            return (
                replace(state, phase=Phase.USER_SPEAKING, prepared=False, timer=state.timer + 1),
                [*dropped, Announce("turn_resumed", Phase.USER_SPEAKING.value)],
            )
        case PauseTranscribed(pause=pause, text=text) if pause == state.pause:
            return _transcribed(state, text)
        case PauseJudged(pause=pause, probability=probability) if pause == state.pause:
            judged = replace(state, probability=probability)
            if judged.wait_over:
                return judged, []
            return _set_wait(judged, [], _wait_ms(probability, rules))
        case EndpointReached():
            return _set_wait(state, [], 0.0)
        case TimerFired(timer=timer) if timer == state.timer:
            if state.text is None:
                return replace(state, wait_over=True), []
            return _release(state)
        case AnswerFailed(answer=answer) if answer == state.answer and state.prepared:
            return replace(state, prepared=False), []
        case _:
            return state, []


def _answering(state: TurnState, event: Event, rules: Rules) -> Step:
    match event:
        case SpeechStarted(onset_ms=onset_ms):
            return replace(state, over_onset_ms=onset_ms), []
        case SpeechContinued(at_ms=at_ms) if (
            state.over_onset_ms is not None and at_ms - state.over_onset_ms >= rules.barge_in_ms
        ):
            return _barge_in(state, at_ms, state.over_onset_ms)
        case SpeechPaused(end_ms=end_ms) if state.over_onset_ms is None:
            # Speech that was cut off by max_turn_ms or an endpoint rule has ended at last.
            return state, [ForgetUtterance(end_ms)]
        case SpeechPaused(end_ms=end_ms) if state.over_onset_ms is not None:
            evidence: dict[str, float | str] = {"speech_ms": end_ms - state.over_onset_ms}
            return (
                replace(state, over_onset_ms=None),
                [
                    ForgetUtterance(end_ms),
                    Announce("disturbance_ignored", state.phase.value, evidence),
                ],
            )
        case AnswerSounded(answer=answer) if answer == state.answer:
            if state.phase is Phase.SPEAKING:
                return state, []
            speaking = replace(state, phase=Phase.SPEAKING, carried="")
            return speaking, [Announce("answer_sounded", Phase.SPEAKING.value)]
        case AnswerFinished(answer=answer) if answer == state.answer:
            return _answer_over(state, [CompleteAnswer(answer)], "answer_finished", {})
        case AnswerFailed(answer=answer, reason=reason) if answer == state.answer:
            ended: list[Action] = [InterruptAnswer(answer, reason)]
            return _answer_over(state, ended, "answer_failed", {"reason": reason})
        case _:
            return state, []


def _hear_user(
    state: TurnState,
    onset_ms: float,
    decision: str,
    evidence: dict[str, float | str],
) -> Step:
    heard = replace(
        state,
        phase=Phase.USER_SPEAKING,
        onset_ms=onset_ms,
        text=None,
        probability=None,
        wait_over=False,
        prepared=False,
        over_onset_ms=None,
        timer=state.timer + 1,
    )
    return heard, [Announce(decision, Phase.USER_SPEAKING.value, evidence)]


def _pause(state: TurnState, end_ms: float, rules: Rules) -> Step:
    paused = replace(
        state,
        phase=Phase.ENDPOINTING,
        pause=state.pause + 1,
        pause_end_ms=end_ms,
        text=None,
        probability=None,
        wait_over=False,
    )
    wait_ms = rules.incomplete_wait_ms if rules.judged else rules.unjudged_wait_ms
    actions: list[Action] = [
        TranscribePause(paused.pause),
        Announce("speech_paused", Phase.ENDPOINTING.value),
    ]
    return _set_wait(paused, actions, wait_ms)


def _wait_ms(probability: float, rules: Rules) -> float:
    """Return the silence to wait: short from the threshold on, growing evenly below it."""
    doubt = max(0.0, 1.0 - probability / max(rules.end_of_turn_threshold, 1e-6))
    return rules.complete_wait_ms + doubt * (rules.incomplete_wait_ms - rules.complete_wait_ms)


def _set_wait(state: TurnState, actions: list[Action], wait_ms: float) -> Step:
    timer = state.timer + 1
    due_ms = state.pause_end_ms + wait_ms
    return replace(state, timer=timer), [*actions, StartTimer(timer, due_ms)]


def _transcribed(state: TurnState, text: str) -> Step:
    whole = f"{state.carried} {text}".strip()
    if not whole:
        ignored = replace(
            state, phase=Phase.LISTENING, prepared=False, text=None, timer=state.timer + 1
        )
        return ignored, [
            *_drop(state, "no words"),
            ForgetUtterance(state.pause_end_ms),
            Announce("no_words", Phase.LISTENING.value),
        ]
    answer = state.answer + 1
    prepared = replace(state, text=whole, answer=answer, prepared=True)
    actions: list[Action] = [PrepareAnswer(answer, whole)]
    if prepared.wait_over:
        released, more = _release(prepared)
        return released, [*actions, *more]
    return prepared, actions


def _release(state: TurnState) -> Step:
    text = state.text or ""
    evidence: dict[str, float | str] = {}
    if state.probability is not None:
        evidence["end_of_turn"] = round(state.probability, 4)
    actions: list[Action] = []
    if not state.prepared:
        # Its making failed while it was held. Now that the turn is over, it gets a second try.
        state = replace(state, answer=state.answer + 1)
        actions.append(PrepareAnswer(state.answer, text))
    released = replace(
        state,
        phase=Phase.THINKING,
        prepared=False,
        carried=text,
        over_onset_ms=None,
        timer=state.timer + 1,
    )
    return released, [
        *actions,
        ReleaseAnswer(state.answer, text),
        ForgetUtterance(state.pause_end_ms),
        Announce("turn_ended", Phase.THINKING.value, evidence),
    ]


def _barge_in(state: TurnState, at_ms: float, onset_ms: float) -> Step:
    evidence: dict[str, float | str] = {"speech_ms": at_ms - onset_ms}
    if state.phase is Phase.SPEAKING:
        heard, announced = _hear_user(state, onset_ms, "interrupted", evidence)
        stop: Action = InterruptAnswer(state.answer, "user spoke")
    else:
        # Nothing was heard of the answer: the turn goes on, with the words that it already has.
        heard, announced = _hear_user(state, onset_ms, "turn_resumed", evidence)
        stop = DropAnswer(state.answer, "user went on")
    return heard, [stop, *announced]


def _answer_over(
    state: TurnState, actions: list[Action], decision: str, evidence: dict[str, float | str]
) -> Step:
    onset_ms = state.over_onset_ms
    idle = replace(state, phase=Phase.LISTENING, carried="", text=None, over_onset_ms=None)
    if onset_ms is not None:
        # The user had just begun when the agent ended: what was speech over the agent is a turn.
        heard, announced = _hear_user(idle, onset_ms, decision, evidence)
        return heard, [*actions, *announced]
    return idle, [*actions, Announce(decision, Phase.LISTENING.value, evidence)]


def _drop(state: TurnState, reason: str) -> list[Action]:
    return [DropAnswer(state.answer, reason)] if state.prepared else []
