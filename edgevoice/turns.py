"""Turn-taking: a pure state machine. No clock, no audio, no I/O, no threads.

:func:`step` takes the state and one event and returns the next state and the actions that follow.
Time comes in with the events, timers are actions that come back as events, so a whole
conversation can be tested in microseconds on a virtual clock.

Phases::

    LISTENING      speech -> USER_SPEAKING
    USER_SPEAKING  pause -> ENDPOINTING
    ENDPOINTING    speech -> USER_SPEAKING; the wait is over -> THINKING; no words -> LISTENING
    THINKING       first sound -> SPEAKING; words -> USER_SPEAKING, the turn goes on
    SPEAKING       heard to the end -> LISTENING; speech that lasts -> HELD
    HELD           words for the agent -> USER_SPEAKING, a new turn; anything else -> SPEAKING

The answer is prepared as soon as the pause is transcribed, and held until the wait is over; when
the user goes on, it is dropped and nobody heard it. How the pause sounds comes with its words where
the recogniser judges that itself. Elsewhere a model is asked, and only where the words leave doubt:
on two cores that judgement costs the answer 60 to 80 ms.

The first three phases are here, the others in :mod:`edgevoice.barge_in`.
"""

from __future__ import annotations

import math
from dataclasses import replace

from edgevoice.barge_in import answering
from edgevoice.completeness import (
    HEARING,
    SOUND,
    combine,
    model_completeness,
    text_completeness,
    words_needed,
)
from edgevoice.events import (
    Action,
    Announce,
    AnswerFailed,
    EndpointReached,
    Event,
    ForgetUtterance,
    JudgePause,
    OverlapHeard,
    PauseJudged,
    PauseTranscribed,
    PrepareAnswer,
    ReleaseAnswer,
    SpeechContinued,
    SpeechDismissed,
    SpeechPaused,
    SpeechStarted,
    SpeechSuspected,
    StartTimer,
    TextJudged,
    TimerFired,
)
from edgevoice.overlap import Evidence, Overlap, Verdict, judge
from edgevoice.phrases import words
from edgevoice.turn_rules import Rules, forget, learn, nearly_answered, unjudged_wait_ms, wait_ms
from edgevoice.turn_state import Phase, Step, TurnState, drop, hear_user, pause, set_wait

__all__ = ["Phase", "Rules", "Step", "TurnState", "step"]

_TELLING_WORDS = 2
"""Of a single word a language model says nothing: to SmolLM2 "Berlin" sounds as cut as "how".
Of two it does: "stop, please" and "no thanks" sound whole, "tell me" and "how many" do not."""

_VERDICT_MS = 500.0
"""The language model's word on a prepared turn is waited for, at most this long: it comes before
the answer's first sound in any case."""

_SUSPICION_MS = 160.0
"""A suspicion of speech becomes speech or is dismissed within this time."""


def step(state: TurnState, event: Event, rules: Rules) -> Step:
    """Return the state after ``event`` and what is to be done, in order."""
    match state.phase:
        case Phase.LISTENING:
            return _listening(state, event)
        case Phase.USER_SPEAKING:
            return _user_speaking(state, event, rules)
        case Phase.ENDPOINTING:
            return _endpointing(state, event, rules)
        case Phase.THINKING | Phase.SPEAKING | Phase.HELD:
            return answering(state, event, rules)


def _listening(state: TurnState, event: Event) -> Step:
    if isinstance(event, SpeechStarted):
        return hear_user(state, event.onset_ms, "speech_started", {})
    if isinstance(event, SpeechPaused):
        # The rest of a turn that max_turn_ms or an endpoint rule had closed.
        return state, [ForgetUtterance(event.end_ms)]
    return state, []


def _user_speaking(state: TurnState, event: Event, rules: Rules) -> Step:
    match event:
        case SpeechPaused(end_ms=end_ms):
            return pause(state, end_ms, rules)
        case EndpointReached(at_ms=at_ms):
            return _close(*pause(state, at_ms, rules))
        case SpeechContinued(at_ms=at_ms) if at_ms - state.onset_ms >= rules.max_turn_ms:
            return _close(*pause(state, at_ms, rules))
        case SpeechContinued(at_ms=at_ms) if (
            state.prepared and at_ms - state.resumed_ms >= rules.keep_prepared_ms
        ):
            return replace(state, prepared=False), drop(state, "user went on")
        case TextJudged(answer=answer) if answer == state.answer and state.prepared:
            return _weighed(state, event), []
        case AnswerFailed(answer=answer) if answer == state.answer:
            return replace(state, prepared=False), []
        case _:
            return state, []


def _endpointing(state: TurnState, event: Event, rules: Rules) -> Step:
    match event:
        case SpeechSuspected(faint=False):
            return replace(state, stirring=True), []
        case SpeechDismissed():
            return replace(state, stirring=False), []
        case SpeechStarted(onset_ms=onset_ms):
            return _went_on(state, onset_ms)
        case PauseTranscribed(pause=number) if number == state.pause:
            return _transcribed(state, event, rules)
        case PauseJudged(pause=number, probability=probability) if (
            number == state.pause and state.probability is None
        ):
            judged = replace(state, probability=probability, witness=SOUND)
            if judged.wait_over or judged.closed:
                return judged, []
            return set_wait(judged, [], _wait_ms(judged, rules))
        case TextJudged(answer=answer) if (
            answer == state.answer and state.prepared and state.text is not None
        ):
            judged = _weighed(state, event)
            if state.closed:
                return judged, []
            return _listen(*set_wait(judged, [], _wait_ms(judged, rules)), rules)
        case EndpointReached():
            return _close(state, [])
        case TimerFired(at_ms=at_ms, timer=timer) if timer == state.timer:
            return _wait_ended(state, at_ms)
        case AnswerFailed(answer=answer) if answer == state.answer and state.prepared:
            return _listen(replace(state, prepared=False), [], rules)
        case _:
            return state, []


def _went_on(state: TurnState, onset_ms: float) -> Step:
    """Go on with the same turn, whose onset stays: max_turn_ms counts from the first word.

    The prepared answer is kept for a while: it may be a cough, which leaves the words as they are.
    """
    pause_ms = max(onset_ms - state.pause_end_ms, 0.0)
    nearly = not state.closed and nearly_answered(pause_ms, state.wait_ms)
    goes_on = replace(
        state,
        phase=Phase.USER_SPEAKING,
        resumed_ms=onset_ms,
        near_miss_ms=max(state.near_miss_ms, pause_ms if nearly else 0.0),
        stirring=False,
        timer=state.timer + 1,
    )
    evidence: Evidence = {"pause_ms": round(pause_ms, 1)}
    return goes_on, [Announce("turn_resumed", Phase.USER_SPEAKING.value, evidence)]


def _close(state: TurnState, actions: list[Action]) -> Step:
    """End the pause as soon as its words are there."""
    waiting, more = set_wait(state, actions, 0.0)
    return replace(waiting, closed=True), more


def _weighed(state: TurnState, event: TextJudged) -> TurnState:
    return replace(
        state,
        ending=event.probability,
        draft_ending=event.draft_probability,
        weighed=not event.more,
        weighs=event.probability is not None,
    )


def _listen(state: TurnState, actions: list[Action], rules: Rules) -> Step:
    """Ask once how the pause sounds, where the words leave doubt and no more is to come on them."""
    if not rules.judged or state.listened or state.closed or state.text is None:
        return state, actions
    waits = state.prepared and not state.weighed and state.ending is None
    weighing = waits and len(words(state.text)) >= _TELLING_WORDS
    if weighing or state.probability is not None or _words_suffice(state, rules):
        return state, actions
    return replace(state, listened=True), [*actions, JudgePause(state.pause)]


def _weighed_words(state: TurnState, rules: Rules) -> float | None:
    """Return how whole the words are to the language model; None where it has not said."""
    if state.text is None or state.ending is None or len(words(state.text)) < _TELLING_WORDS:
        return None
    return model_completeness(
        state.ending, state.text, rules.phrases, state.draft_ending, state.witness
    )


def _words_suffice(state: TurnState, rules: Rules) -> bool:
    """Whether the turn is surely over by its words, as it sounds, or however it may sound."""
    text = _weighed_words(state, rules)
    return text is not None and text >= _words_needed(state, rules)


def _words_needed(state: TurnState, rules: Rules) -> float:
    return words_needed(state.probability, rules.end_of_turn_threshold, state.witness)


def _probability(state: TurnState, rules: Rules) -> float | None:
    """Return how surely the turn is over, None while nothing is known."""
    if state.text is None:
        return state.probability
    text = _weighed_words(state, rules)
    if text is not None:
        over = combine(state.probability, text, state.witness.trust, state.witness.bound)
        settles = state.draft_ending is None or state.witness.draft_settles
        return over if settles else min(over, math.nextafter(rules.end_of_turn_threshold, 0.0))
    return combine(state.probability, text_completeness(state.text, rules.phrases))


def _wait_ms(state: TurnState, rules: Rules) -> float:
    probability = _probability(state, rules)
    if state.probability is None and not rules.judged:
        text = 0.5 if probability is None else probability
        return unjudged_wait_ms(text, state.patience_ms, rules)
    heard = state.probability is not None or _words_suffice(state, rules)
    more_to_come = state.prepared and state.ending is not None and not state.weighed
    if probability is None or not heard or more_to_come:
        return rules.incomplete_wait_ms
    return wait_ms(probability, state.patience_ms, rules, state.witness.likely)


def _wait_ended(state: TurnState, at_ms: float) -> Step:
    if state.text is None:
        return replace(state, wait_over=True), []
    if state.stirring:
        # Somebody may just have begun to speak, and would be spoken over.
        timer = state.timer + 1
        later = replace(state, stirring=False, timer=timer)
        return later, [StartTimer(timer, at_ms + _SUSPICION_MS)]
    if state.prepared and not state.weighed and not state.closed:
        timer = state.timer + 1
        later = replace(state, weighed=True, timer=timer)
        return later, [StartTimer(timer, at_ms + _VERDICT_MS)]
    return _release(state)


def _transcribed(state: TurnState, event: PauseTranscribed, rules: Rules) -> Step:
    whole = f"{state.carried} {event.text}".strip()
    if not whole:
        return _no_turn(state, "no_words", {})
    if event.said:
        # The agent has finished a moment ago: this may be the end of its echo, or, where it
        # began over the agent's voice, a nod.
        overlap = Overlap(state.onset_ms, end_ms=state.pause_end_ms)
        heard = OverlapHeard(event.at_ms, 0, event.text, event.said, remaining_ms=0.0)
        verdict, evidence = judge(overlap, heard, rules)
        nod = state.over_agent and verdict is Verdict.BACKCHANNEL
        if verdict is Verdict.ECHO or nod:
            return _no_turn(state, "disturbance_ignored", {"reason": verdict.value, **evidence})
    state = replace(_learn(state, whole, rules), text=whole)
    if event.ending is not None:
        state = replace(state, probability=event.ending, witness=HEARING)
    actions: list[Action] = []
    if state.prepared and state.prepared_text != whole:
        actions = drop(state, "other words")
        state = replace(state, prepared=False, ending=None)
    over = state.wait_over
    if not state.closed:
        # The words are there: they may call for another wait than the sound alone did.
        state, timed = set_wait(state, [], _wait_ms(state, rules))
        over = state.pause_end_ms + state.wait_ms <= event.at_ms
        actions += [] if over else timed
    # What the language model will say of the words may outweigh the sound.
    lexical = text_completeness(whole, rules.phrases)
    likely = combine(state.probability, lexical, state.witness.trust) >= rules.speculate_from
    if not state.prepared and likely and event.wasted_share < rules.speculation_budget:
        state = _prepare(state)
        actions.append(_preparation(state, whole, rules))
    if over:
        ended, more = _wait_ended(state, event.at_ms)
        return ended, [*actions, *more]
    return _listen(state, actions, rules)


def _preparation(state: TurnState, text: str, rules: Rules) -> PrepareAnswer:
    if len(words(text)) < _TELLING_WORDS:
        return PrepareAnswer(state.answer, text)
    witness = state.witness
    sure = rules.end_of_turn_threshold
    # A draft that settles nothing is worth asking for where the wait would be long without it.
    wanted = sure if witness.draft_settles else min(witness.likely, sure)
    doubted_below = words_needed(state.probability, wanted, witness)
    return PrepareAnswer(state.answer, text, doubted_below, witness is HEARING, state.carried)


def _prepare(state: TurnState) -> TurnState:
    return replace(
        state,
        answer=state.answer + 1,
        prepared=True,
        prepared_text=state.text or "",
        ending=None,
        draft_ending=None,
        weighed=False,
    )


def _learn(state: TurnState, whole: str, rules: Rules) -> TurnState:
    """Learn from a pause that had words behind it, and not only a noise."""
    if not state.near_miss_ms or whole == state.prepared_text:
        return state
    patience_ms = learn(state.patience_ms, state.near_miss_ms, rules)
    return replace(state, patience_ms=patience_ms, near_miss_ms=0.0)


def _no_turn(state: TurnState, decision: str, evidence: Evidence) -> Step:
    ignored = replace(
        state,
        phase=Phase.LISTENING,
        prepared=False,
        text=None,
        over_agent=False,
        timer=state.timer + 1,
    )
    return ignored, [
        *drop(state, "no turn"),
        ForgetUtterance(state.pause_end_ms),
        Announce(decision, Phase.LISTENING.value, evidence),
    ]


def _release(state: TurnState) -> Step:
    text = state.text or ""
    evidence: Evidence = {"wait_ms": round(state.wait_ms, 1)}
    if state.probability is not None:
        evidence["end_of_turn"] = round(state.probability, 4)
    if state.ending is not None:
        evidence["ending"] = round(state.ending, 4)
    actions: list[Action] = []
    if not state.prepared:
        # Nothing was prepared ahead, or its making failed while it was held.
        state = _prepare(state)
        actions.append(PrepareAnswer(state.answer, text))
    released = replace(
        state,
        phase=Phase.THINKING,
        prepared=False,
        carried=text,
        over=None,
        over_agent=False,
        patience_ms=forget(state.patience_ms),
        timer=state.timer + 1,
    )
    return released, [
        *actions,
        ReleaseAnswer(state.answer, text),
        ForgetUtterance(state.pause_end_ms),
        Announce("turn_ended", Phase.THINKING.value, evidence),
    ]
