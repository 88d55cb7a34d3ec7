"""THINKING, SPEAKING and HELD: speech over the agent's answer, in stages. Pure.

The first suspicion ducks the voice, ``barge_in_ms`` of speech hold it, and words decide: an
interruption commits, anything else resumes. Before the first sound nothing is ducked, and a hold
keeps the answer from the speaker.

No hold is endless: it ends with a verdict, with ``words_wait_ms`` after the speech has ended, or
with ``max_hold_ms`` of sound in which the recogniser hears no words. A recogniser that does not
answer at all leaves speech of that length an interruption: better a lost answer than deaf.
"""

from __future__ import annotations

from dataclasses import replace

from edgevoice.events import (
    Action,
    Announce,
    AnswerFailed,
    AnswerFinished,
    AnswerSounded,
    CompleteAnswer,
    DropAnswer,
    DuckAnswer,
    Event,
    ForgetUtterance,
    HoldAnswer,
    InterruptAnswer,
    OverlapHeard,
    RestoreAnswer,
    ResumeAnswer,
    SpeechContinued,
    SpeechDismissed,
    SpeechPaused,
    SpeechStarted,
    SpeechSuspected,
    StartTimer,
    TimerFired,
    TranscribeOverlap,
)
from edgevoice.overlap import (
    BRIEF_MS,
    Evidence,
    Overlap,
    Verdict,
    below_echo,
    hidden_by_echo,
    is_background,
    judge,
)
from edgevoice.turn_rules import Rules, learn
from edgevoice.turn_state import Phase, Step, TurnState, hear_user, pause

NO_ANSWER = "no_answer"
"""Reason of a resumption: the recogniser was not heard in time."""

_PROBE_EVERY_MS = 80.0
"""Where the recogniser is as fast: it is asked again once it has answered. Asked every 64 ms, two
more of 150 nods stopped the agent: each look may hear words that were not said."""
_PROBE_ECHO_EVERY_MS = 96.0
"""The same where the agent's echo is in what is heard. Asked every 80 ms there, at 12 dB return
loss 28 of 30 users stopped the agent and 9 of 64 disturbances did; so 30 and 3."""
_LINGER_MS = 200.0
"""A voice stays turned down for so long behind speech that was too brief to hold it: "stop" is an
"s", 100 ms of closure, and "top", and would turn it down, up and down again."""

_GOES_ON_MS = {Verdict.BACKCHANNEL: 250.0, Verdict.UNCLEAR: 350.0}
"""Silence behind it before the agent goes on: "okay" may be the first word of a wish, and so may
be what was heard as "stuff" (please) and "build on" (, I have another question)."""

_CLEARS_MS = 450.0
"""The same behind speech of which the agent's echo may have hidden the half: once the agent is held
its echo dies away, and what the user says next is heard as it is. At 0 dB return loss the canceller
leaves 100 to 290 ms of "stop, please" and "wait a moment", in which nobody hears a word, and the
pause behind that "stop" is 420 to 450 ms long."""

_PROBE_PASSED_EVERY_MS = 1500.0
"""Sound that was taken for noise is listened to more seldom: each look costs a decode."""


def answering(state: TurnState, event: Event, rules: Rules) -> Step:
    """Take one event while an answer is awaited, heard or held."""
    over = state.over
    match event:
        case SpeechSuspected(onset_ms=onset_ms, echo_margin_db=margin_db):
            if over is not None or below_echo(margin_db, rules):
                return state, []
            suspected = Overlap(onset_ms, echo_margin_db=margin_db, began_db=margin_db)
            return _duck(replace(state, over=suspected))
        case SpeechDismissed() if over is not None and not over.speech_ms:
            return _restore(state, over)
        case SpeechStarted():
            return _started(state, event, rules)
        case SpeechContinued(at_ms=at_ms) if over is not None and over.speech_ms:
            louder = _loudest(over.echo_margin_db, event.echo_margin_db)
            similarity = event.speaker_similarity
            if similarity is None:
                similarity = over.speaker_similarity
            grown = replace(
                over,
                echo_margin_db=louder,
                speaker_similarity=similarity,
                loudness_db=event.loudness_db,
            )
            return _grown(state, grown, at_ms, rules)
        case SpeechPaused(at_ms=at_ms, end_ms=end_ms) if over is None or over.end_ms is None:
            return _paused(state, at_ms, end_ms, rules)
        case OverlapHeard() if over is not None and over.speech_ms:
            return _heard(state, over, event, rules)
        case TimerFired(at_ms=at_ms, timer=timer) if timer == state.timer and over is not None:
            if over.held:
                return _hold_over(state, over, at_ms, rules)
            return _ignore(state, over) if _lingers(over) else (state, [])
        case AnswerSounded(answer=answer) if (
            answer == state.answer and state.phase is Phase.THINKING
        ):
            held = over is not None and over.held
            phase = Phase.HELD if held else Phase.SPEAKING
            sounding = replace(state, phase=phase, carried="")
            return sounding, [Announce("answer_sounded", phase.value)]
        case AnswerFinished(answer=answer) if answer == state.answer:
            return _answer_over(state, [CompleteAnswer(answer)], "answer_finished", {}, rules)
        case AnswerFailed(answer=answer, reason=reason) if answer == state.answer:
            ended: list[Action] = [InterruptAnswer(answer, reason)]
            return _answer_over(state, ended, "answer_failed", {"reason": reason}, rules)
        case _:
            return state, []


def _started(state: TurnState, event: SpeechStarted, rules: Rules) -> Step:
    at_ms, onset_ms, margin_db = event.at_ms, event.onset_ms, event.echo_margin_db
    over = state.over
    if over is not None and over.end_ms is not None:
        # It goes on before it was decided what it is: one overlap, one decision, one deadline.
        goes_on = replace(over, end_ms=None, probe=0, passed=False, quiet=None)
        grown, actions = _grown(state, goes_on, at_ms, rules)
        return _timer(grown, actions, over.deadline_ms) if over.held else (grown, actions)
    if over is None:
        if below_echo(margin_db, rules):
            # The agent's own echo: listened to, since a voice may be under it, and not obeyed.
            speech_ms = max(at_ms - onset_ms, 1.0)
            echo = Overlap(
                onset_ms, speech_ms, echoing=True, echo_margin_db=margin_db, began_db=margin_db
            )
            return replace(state, over=echo), []
        over = Overlap(onset_ms)
    if not over.speech_ms:
        # The suspicion may have been there long before, and faint.
        over = replace(over, onset_ms=onset_ms)
    over = replace(
        over,
        echo_margin_db=_loudest(over.echo_margin_db, margin_db),
        began_db=margin_db if over.began_db is None else over.began_db,
        loudness_db=event.loudness_db,
    )
    ducked, actions = _duck(replace(state, over=over))
    assert ducked.over is not None
    grown, more = _grown(ducked, ducked.over, at_ms, rules)
    return grown, [*actions, *more]


def _grown(state: TurnState, over: Overlap, at_ms: float, rules: Rules) -> Step:
    """Let the speech be as long as it is at ``at_ms``: hold, and ask for words, when it is time."""
    over = replace(over, speech_ms=max(at_ms - over.onset_ms, 1.0))
    over = replace(over, echoing=over.echoing and below_echo(over.echo_margin_db, rules))
    if over.unclear is not None:
        verdict, evidence = judge(over, over.unclear, rules)
        if verdict is Verdict.INTERRUPTION:
            return _commit(state, over, {**evidence, "speech_ms": round(over.speech_ms, 1)}, rules)
    actions: list[Action] = []
    state = replace(state, over=over)
    far = is_background(over.loudness_db, rules)
    obeyed = not over.passed and not over.echoing and not far
    if obeyed and not over.held and over.speech_ms >= rules.barge_in_ms:
        state, actions = _hold(state, over, at_ms, rules)
        assert state.over is not None
        over = state.over
    state, asked = _ask(state, over, rules)
    return state, [*actions, *asked]


def _ask(state: TurnState, over: Overlap, rules: Rules) -> Step:
    """Ask for the words of speech that goes on, when it is time."""
    if over.probe or over.speech_ms < max(over.probe_at_ms, rules.probe_ms):
        return state, []
    seldom = over.passed or over.echoing or is_background(over.loudness_db, rules)
    every_ms = _PROBE_EVERY_MS if over.echo_margin_db is None else _PROBE_ECHO_EVERY_MS
    if seldom:
        every_ms = _PROBE_PASSED_EVERY_MS
    probe = state.probe + 1
    # What is briefer is hardly ever trusted: twice would be once too often.
    again_ms = max(over.speech_ms + every_ms, BRIEF_MS)
    asking = replace(over, probe=probe, probed_ms=over.speech_ms, probe_at_ms=again_ms)
    return replace(state, over=asking, probe=probe), [TranscribeOverlap(probe)]


def _paused(state: TurnState, at_ms: float, end_ms: float, rules: Rules) -> Step:
    over = state.over
    if over is None:
        # Speech that was cut off by max_turn_ms or an endpoint rule has ended at last.
        return state, [ForgetUtterance(end_ms)]
    speech_ms = end_ms - over.onset_ms
    ended = replace(over, speech_ms=max(speech_ms, 1.0), end_ms=end_ms)
    if not over.held:
        if over.passed or not over.ducked or speech_ms >= rules.barge_in_ms:
            return _ignore(state, ended)
        return _timer(replace(state, over=ended), [], at_ms + _LINGER_MS)
    probe = state.probe + 1
    ended = replace(ended, probe=probe)
    asked: list[Action] = [TranscribeOverlap(probe)]
    return _timer(replace(state, over=ended, probe=probe), asked, at_ms + rules.words_wait_ms)


def _lingers(over: Overlap) -> bool:
    """Whether it has ended before anything was held for it."""
    return over.end_ms is not None and not over.held and not over.passed


def _ignore(state: TurnState, over: Overlap) -> Step:
    """Let the agent speak on over what has ended and was too brief, or too quiet, to hold it."""
    _, actions = _restore(state, over)
    evidence: Evidence = {"speech_ms": round(over.speech_ms, 1)}
    assert over.end_ms is not None
    return replace(state, over=None), [
        *actions,
        ForgetUtterance(over.end_ms),
        Announce("disturbance_ignored", state.phase.value, evidence),
    ]


def _heard(state: TurnState, over: Overlap, event: OverlapHeard, rules: Rules) -> Step:
    answered = event.probe == over.probe
    if event.probe and not answered:
        return state, []
    # Of speech that goes on, the recogniser heard what there was when it was asked.
    goes_on = answered and over.end_ms is None
    over = replace(
        over,
        heard_ms=over.probed_ms if goes_on else over.speech_ms,
        nods=over.nods if event.nod is None else (*over.nods, event.nod),
    )
    verdict, evidence = judge(over, event, rules)
    evidence["speech_ms"] = round(over.speech_ms, 1)
    if verdict is Verdict.INTERRUPTION:
        return _commit(state, over, evidence, rules)
    if over.end_ms is not None:
        if not answered:
            return state, []  # A partial, which may be older than the end.
        if not over.held:
            # The agent has gone on meanwhile, rightly.
            return replace(state, over=None), [ForgetUtterance(over.end_ms)]
        until_ms = over.end_ms + _goes_on_ms(over, verdict)
        if event.at_ms < until_ms:
            unclear = event if verdict is Verdict.UNCLEAR else None
            evidence["reason"] = verdict.value
            waits = replace(over, probe=0, unclear=unclear, quiet=evidence)
            return _timer(replace(state, over=waits), [], until_ms)
        return _resume(state, over, verdict.value, evidence)
    unclear = event if verdict is Verdict.UNCLEAR else None
    known = replace(over, heard=True, unclear=unclear, probe=0 if answered else over.probe)
    if not answered:
        return replace(state, over=known), []
    # Speech has grown while the recogniser was busy.
    grown = replace(known, speech_ms=max(event.at_ms - over.onset_ms, over.speech_ms))
    return _ask(replace(state, over=known), grown, rules)


def _goes_on_ms(over: Overlap, verdict: Verdict) -> float:
    """Return the silence behind ``over`` before the agent goes on."""
    own_ms = _GOES_ON_MS.get(verdict, 0.0)
    return max(own_ms, _CLEARS_MS) if hidden_by_echo(over) else own_ms


def _hold_over(state: TurnState, over: Overlap, at_ms: float, rules: Rules) -> Step:
    """End a hold in which no words have come."""
    if over.quiet is not None:
        reason = str(over.quiet["reason"])
        return _resume(state, over, reason, over.quiet)
    evidence: Evidence = {"speech_ms": round(over.speech_ms, 1)}
    if over.end_ms is not None:
        return _resume(state, over, NO_ANSWER, evidence)
    if not over.heard:
        evidence["reason"] = "unheard"
        return _commit(state, replace(over, speech_ms=at_ms - over.onset_ms), evidence, rules)
    return _resume(state, over, "lasting_sound", evidence)


def _duck(state: TurnState) -> Step:
    over = state.over
    if over is None or over.ducked or state.phase is not Phase.SPEAKING:
        return state, []
    return replace(state, over=replace(over, ducked=True)), [DuckAnswer(state.answer)]


def _restore(state: TurnState, over: Overlap) -> Step:
    actions: list[Action] = [RestoreAnswer(state.answer)] if over.ducked else []
    return replace(state, over=None), actions


def _hold(state: TurnState, over: Overlap, at_ms: float, rules: Rules) -> Step:
    deadline_ms = at_ms + rules.max_hold_ms
    phase = Phase.HELD if state.phase is Phase.SPEAKING else state.phase
    held = replace(over, held=True, deadline_ms=deadline_ms)
    evidence: Evidence = {"speech_ms": round(over.speech_ms, 1)}
    if over.echo_margin_db is not None:
        evidence["echo_margin_db"] = round(over.echo_margin_db, 1)
    actions: list[Action] = [
        HoldAnswer(state.answer),
        Announce("held", phase.value, evidence),
    ]
    return _timer(replace(state, phase=phase, over=held), actions, deadline_ms)


def _resume(state: TurnState, over: Overlap, reason: str, evidence: Evidence) -> Step:
    phase = Phase.SPEAKING if state.phase is Phase.HELD else state.phase
    actions: list[Action] = [
        ResumeAnswer(state.answer),
        Announce("resumed", phase.value, {"reason": reason, **evidence}),
    ]
    remembered: Overlap | None = None
    if over.end_ms is not None and reason != NO_ANSWER:
        actions.insert(0, ForgetUtterance(over.end_ms))
    else:
        # The sound goes on, or the recogniser is late: words may yet come, and still interrupt.
        remembered = replace(over, held=False, ducked=False, passed=True)
    return replace(state, phase=phase, over=remembered, timer=state.timer + 1), actions


def _commit(state: TurnState, over: Overlap, evidence: Evidence, rules: Rules) -> Step:
    if state.phase is Phase.THINKING:
        # Nothing was heard of the answer: the turn goes on, with the words that it already has.
        pause_ms = over.onset_ms - state.pause_end_ms
        if pause_ms <= rules.incomplete_wait_ms:
            state = replace(state, patience_ms=learn(state.patience_ms, pause_ms, rules))
        heard, announced = hear_user(state, over.onset_ms, "turn_resumed", evidence)
        stop: Action = DropAnswer(state.answer, "user went on")
    else:
        heard, announced = hear_user(state, over.onset_ms, "interrupted", evidence)
        stop = InterruptAnswer(state.answer, "user spoke")
    if over.end_ms is None:
        return heard, [stop, *announced]
    paused, more = pause(heard, over.end_ms, rules)
    return paused, [stop, *announced, *more]


def _answer_over(
    state: TurnState, actions: list[Action], decision: str, evidence: Evidence, rules: Rules
) -> Step:
    over = state.over
    idle = replace(
        state, phase=Phase.LISTENING, carried="", text=None, over=None, timer=state.timer + 1
    )
    if over is not None and _lingers(over):
        idle, ignored = _ignore(idle, over)
        return idle, [*actions, *ignored[-2:], Announce(decision, Phase.LISTENING.value, evidence)]
    if over is None or not over.speech_ms or is_background(over.loudness_db, rules):
        return idle, [*actions, Announce(decision, Phase.LISTENING.value, evidence)]
    # The user had just begun when the agent ended: what was speech over the agent may be a turn.
    heard, announced = hear_user(idle, over.onset_ms, decision, evidence)
    heard = replace(heard, over_agent=True)
    if over.end_ms is None:
        return heard, [*actions, *announced]
    paused, more = pause(heard, over.end_ms, rules)
    return paused, [*actions, *announced, *more]


def _timer(state: TurnState, actions: list[Action], due_ms: float) -> Step:
    timer = state.timer + 1
    return replace(state, timer=timer), [*actions, StartTimer(timer, due_ms)]


def _loudest(one: float | None, other: float | None) -> float | None:
    known = [margin for margin in (one, other) if margin is not None]
    return max(known, default=None)
