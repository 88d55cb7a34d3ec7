"""The turn-taking machine on a virtual clock: scripted conversations, and any order of events."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from conversation_script import Delays, Sound, World
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevoice.completeness import HEARING
from edgevoice.events import (
    Action,
    Announce,
    AnswerFailed,
    AnswerFinished,
    AnswerSounded,
    CompleteAnswer,
    DropAnswer,
    DuckAnswer,
    EndpointReached,
    Event,
    ForgetUtterance,
    HoldAnswer,
    InterruptAnswer,
    JudgePause,
    OverlapHeard,
    PartialHeard,
    PauseJudged,
    PauseTranscribed,
    PrepareAnswer,
    ReleaseAnswer,
    RestoreAnswer,
    ResumeAnswer,
    SpeechContinued,
    SpeechDismissed,
    SpeechPaused,
    SpeechStarted,
    SpeechSuspected,
    StartTimer,
    TextJudged,
    TimerFired,
    TranscribePause,
)
from edgevoice.turns import Phase, Rules, TurnState, step

RULES = Rules(
    complete_wait_ms=250,
    likely_wait_ms=400,
    incomplete_wait_ms=1200,
    unjudged_wait_ms=700,
    end_of_turn_threshold=0.5,
    barge_in_ms=100,
    max_turn_ms=30_000,
)


@dataclass
class Conversation:
    """Drives the machine, keeps what it asked for, and fires its timers in :meth:`until`."""

    rules: Rules = RULES
    state: TurnState = field(default_factory=TurnState)
    now_ms: float = 0.0
    actions: list[Action] = field(default_factory=list)
    timer: StartTimer | None = None

    def send(self, event: Event) -> list[Action]:
        self.state, actions = step(self.state, event, self.rules)
        for action in actions:
            if isinstance(action, StartTimer):
                self.timer = action
        self.actions += actions
        return actions

    def until(self, now_ms: float) -> None:
        while self.timer is not None and self.timer.due_ms <= now_ms:
            due, self.timer = self.timer, None
            self.now_ms = max(self.now_ms, due.due_ms)
            self.send(TimerFired(self.now_ms, due.timer))
        self.now_ms = now_ms

    def speech(self, start_ms: float, end_ms: float) -> None:
        self.until(start_ms + 64)
        self.send(SpeechStarted(start_ms + 64, start_ms))
        at_ms = start_ms + 96
        while at_ms <= end_ms:
            self.until(at_ms)
            self.send(SpeechContinued(at_ms, at_ms - start_ms))
            at_ms += 32
        self.until(end_ms + 96)
        self.send(SpeechPaused(end_ms + 96, end_ms))

    def understood(self, text: str, probability: float | None = 0.95, after_ms: float = 60) -> None:
        self.until(self.now_ms + after_ms)
        pause = self.state.pause
        if probability is not None:
            self.send(PauseJudged(self.now_ms, pause, probability))
        self.send(PauseTranscribed(self.now_ms, pause, text))
        self.weighed(None)

    def weighed(self, ending: float | None) -> None:
        """Let the language model judge the words of the prepared answer."""
        if self.state.prepared:
            self.send(TextJudged(self.now_ms, self.state.answer, ending))

    def agent_speaks(self, at_ms: float) -> None:
        self.until(at_ms)
        self.send(AnswerSounded(at_ms, self.state.answer))

    def agent_ends(self, at_ms: float) -> None:
        self.until(at_ms)
        self.send(AnswerFinished(at_ms, self.state.answer))

    def asked(self, kind: type[Action]) -> list[Action]:
        return [action for action in self.actions if isinstance(action, kind)]

    @property
    def prepared(self) -> list[tuple[int, str]]:
        return [(a.answer, a.text) for a in self.actions if isinstance(a, PrepareAnswer)]

    @property
    def decisions(self) -> list[str]:
        return [action.decision for action in self.actions if isinstance(action, Announce)]


def test_question_and_answer() -> None:
    talk = Conversation()
    talk.speech(1000, 2000)
    assert talk.state.phase is Phase.ENDPOINTING
    assert talk.asked(TranscribePause) == [TranscribePause(1)]
    talk.understood("what time is it")
    assert talk.prepared == [(1, "what time is it")]
    assert talk.asked(ReleaseAnswer) == []
    talk.until(2249)
    assert talk.state.phase is Phase.ENDPOINTING
    talk.until(2250)
    assert talk.asked(ReleaseAnswer) == [ReleaseAnswer(1, "what time is it")]
    assert talk.asked(ForgetUtterance) == [ForgetUtterance(2000)]
    talk.agent_speaks(2500)
    assert talk.state.phase is Phase.SPEAKING
    talk.agent_ends(4000)
    assert talk.state.phase is Phase.LISTENING
    assert talk.asked(CompleteAnswer) == [CompleteAnswer(1)]


@pytest.mark.parametrize(("loudness_db", "holds"), [(None, 1), (-6.0, 1), (-15.0, 0)])
def test_only_speech_as_loud_as_the_users_holds_the_answer(
    loudness_db: float | None, holds: int
) -> None:
    talk = Conversation()
    talk.speech(1000, 2000)
    talk.understood("what time is it")
    talk.agent_speaks(2500)
    talk.send(SpeechStarted(3064, 3000, loudness_db=loudness_db))
    for at_ms in range(3096, 3800, 32):
        talk.send(SpeechContinued(at_ms, at_ms - 3000, loudness_db=loudness_db))
    assert len(talk.asked(HoldAnswer)) == holds
    talk.send(OverlapHeard(3800, talk.state.probe, "breaking news", "it is four", 2000.0))
    assert (talk.state.phase is Phase.SPEAKING) == (loudness_db == -15.0)
    if talk.state.phase is Phase.SPEAKING:
        talk.send(SpeechPaused(3900, 3800))
        assert talk.state.over is None
        talk.agent_ends(4500)
        assert talk.state.phase is Phase.LISTENING


def test_no_turn_ends_before_the_language_model_has_weighed_its_words() -> None:
    talk = Conversation()
    talk.speech(1000, 2000)
    talk.until(2300)
    talk.send(PauseJudged(2300, 1, 0.98))
    talk.send(PauseTranscribed(2300, 1, "could you tell me how many"))
    assert talk.prepared == [(1, "could you tell me how many")]
    talk.until(2400)
    assert talk.asked(ReleaseAnswer) == []
    talk.weighed(0.0001)
    talk.until(2900)
    assert talk.asked(ReleaseAnswer) == []  # a sure sound, and words that are not over
    talk.until(3200)
    assert len(talk.asked(ReleaseAnswer)) == 1


@pytest.mark.parametrize(("drafted", "waits_ms"), [(0.6, 400), (0.0001, 500)])
def test_what_another_pass_heard_may_settle_a_doubt(drafted: float, waits_ms: float) -> None:
    talk = Conversation()
    talk.speech(1000, 2000)
    talk.until(2100)
    talk.send(PauseTranscribed(2100, 1, "how far are the ways the moon"))
    text = "how far away is the moon"
    talk.send(TextJudged(2150, talk.state.answer, 0.02, more=True))
    assert talk.asked(JudgePause) == [JudgePause(1)], "the words leave doubt"
    talk.send(PauseJudged(2160, 1, 0.1))
    talk.until(2200)
    assert talk.state.wait_ms == RULES.incomplete_wait_ms, "another word is to come"
    talk.send(TextJudged(2200, talk.state.answer, 0.02, text, drafted))
    assert (talk.state.wait_ms < waits_ms) == (drafted > 0.5)
    talk.until(2000 + waits_ms)
    assert bool(talk.asked(ReleaseAnswer)) == (drafted > 0.5)


def test_how_a_pause_sounds_is_not_asked_where_the_words_leave_no_doubt() -> None:
    talk = Conversation()
    talk.speech(1000, 2000)
    talk.until(2100)
    talk.send(PauseTranscribed(2100, 1, "What is the capital of France?"))
    talk.weighed(0.5)
    talk.until(2251)
    assert talk.asked(JudgePause) == []
    assert len(talk.asked(ReleaseAnswer)) == 1


@pytest.mark.parametrize(("ending", "waits"), [(0.03, False), (0.003, True)])
def test_a_question_mark_counts_where_the_language_model_agrees(ending: float, waits: bool) -> None:
    """Whisper wrote one behind this half of a sentence."""
    talk = Conversation()
    talk.speech(1000, 2000)
    talk.understood("Had he married a more amiable woman he might have been made?", 0.5)
    talk.weighed(ending)
    assert (talk.state.wait_ms > RULES.likely_wait_ms) == waits


@pytest.mark.parametrize(("ending", "ends_ms"), [(0.9, 2400), (None, 2400)])
def test_words_that_sound_whole_end_the_turn_at_once(ending: float | None, ends_ms: float) -> None:
    talk = Conversation()
    talk.speech(1000, 2000)
    talk.until(2300)
    talk.send(PauseJudged(2300, 1, 0.98))
    talk.send(PauseTranscribed(2300, 1, "what time is it"))
    talk.until(ends_ms)
    talk.weighed(ending)
    talk.until(ends_ms + 1)
    assert len(talk.asked(ReleaseAnswer)) == 1


def test_a_language_model_that_says_nothing_holds_no_turn_back_for_long() -> None:
    talk = Conversation()
    talk.speech(1000, 2000)
    talk.until(2300)
    talk.send(PauseJudged(2300, 1, 0.98))
    talk.send(PauseTranscribed(2300, 1, "what time is it"))
    talk.until(2799)
    assert talk.asked(ReleaseAnswer) == []
    talk.until(2800)
    assert len(talk.asked(ReleaseAnswer)) == 1


def test_without_a_budget_nothing_is_prepared_ahead() -> None:
    talk = Conversation(replace(RULES, speculation_budget=0.0))
    talk.speech(1000, 2000)
    talk.understood("what time is it")
    assert talk.asked(PrepareAnswer) == []
    talk.until(2250)
    assert [type(a) for a in talk.actions if isinstance(a, PrepareAnswer | ReleaseAnswer)] == [
        PrepareAnswer,
        ReleaseAnswer,
    ]


@pytest.mark.parametrize(
    ("probability", "wait_ms"),
    [(0.0, 1166), (0.25, 1011), (0.4, 862), (0.6, 400), (0.8, 400), (0.81, 250), (1.0, 250)],
)
def test_the_wait_grows_with_the_doubt(probability: float, wait_ms: float) -> None:
    talk = Conversation(replace(RULES, end_of_turn_threshold=0.805))
    talk.speech(0, 1000)
    talk.understood("i would like tea", probability=probability)
    talk.until(1000 + wait_ms - 1)
    assert talk.state.phase is Phase.ENDPOINTING
    talk.until(1000 + wait_ms + 1)
    assert talk.state.phase is Phase.THINKING


def prepared_with(ending: float | None) -> tuple[Conversation, PrepareAnswer]:
    talk = Conversation()
    talk.speech(0, 1000)
    talk.until(1060)
    talk.send(PauseTranscribed(1060, talk.state.pause, "tell me about tea", ending=ending))
    (wanted,) = talk.asked(PrepareAnswer)
    assert isinstance(wanted, PrepareAnswer)
    return talk, wanted


def test_what_the_recogniser_heard_of_the_end_spares_asking_the_judge() -> None:
    waits = []
    for ending in (0.02, 0.5, 0.98):
        talk, wanted = prepared_with(ending)
        assert wanted.by_hearing
        talk.weighed(0.03)
        assert talk.asked(JudgePause) == []
        # The judge was asked before, for another pause, or by a recogniser that cannot hear it.
        talk.send(PauseJudged(talk.now_ms, talk.state.pause, 0.5))
        assert talk.state.probability == ending
        waits.append(talk.state.wait_ms)
    assert waits[0] > waits[1] >= waits[2] == RULES.complete_wait_ms


def test_the_surer_the_sound_the_less_whole_the_words_must_be() -> None:
    needed = [prepared_with(ending)[1].sure_from or 0.0 for ending in (None, 0.1, 0.5, 0.9)]
    assert needed[1] > needed[2] > needed[3]
    assert needed[2] == pytest.approx(HEARING.likely)
    assert needed[0] > RULES.end_of_turn_threshold


def test_a_draft_makes_a_turn_likely_over_and_not_surely() -> None:
    waits = []
    for own, drafted in ((0.002, None), (0.002, 0.99), (0.99, None)):
        talk, _ = prepared_with(0.9)
        talk.send(TextJudged(talk.now_ms, talk.state.answer, own, draft_probability=drafted))
        waits.append(talk.state.wait_ms)
    assert waits[0] > waits[1] == RULES.likely_wait_ms > waits[2] == RULES.complete_wait_ms


def test_without_a_judge_the_wait_is_the_unjudged_one() -> None:
    talk = Conversation(Rules(unjudged_wait_ms=700, judged=False))
    talk.speech(0, 1000)
    talk.understood("hello", probability=None)
    talk.until(1699)
    assert talk.state.phase is Phase.ENDPOINTING
    talk.until(1700)
    assert talk.state.phase is Phase.THINKING


def test_a_judge_that_never_answers_costs_the_long_wait_and_not_the_turn() -> None:
    talk = Conversation()
    talk.speech(0, 1000)
    talk.understood("hello", probability=None)
    talk.until(2200)
    assert talk.state.phase is Phase.THINKING


def test_a_pause_in_mid_sentence_drops_the_prepared_answer_and_keeps_one_turn() -> None:
    talk = Conversation()
    talk.speech(0, 1000)
    talk.understood("turn it", probability=0.2)
    talk.speech(1500, 2500)
    # While it might have been a cough, the answer was kept.
    assert talk.asked(DropAnswer) == [DropAnswer(1, "user went on")]
    assert talk.asked(ForgetUtterance) == []
    talk.understood("turn on the light")
    talk.until(3000)
    assert talk.asked(ReleaseAnswer) == [ReleaseAnswer(2, "turn on the light")]


def test_the_wait_may_end_before_the_words_are_there() -> None:
    talk = Conversation()
    talk.speech(0, 1000)
    talk.send(PauseJudged(1100, 1, 0.99))
    talk.until(1900)
    assert talk.state.phase is Phase.ENDPOINTING
    talk.send(PauseTranscribed(1900, 1, "late words"))
    talk.weighed(None)
    talk.until(1900)
    assert talk.state.phase is Phase.THINKING
    assert talk.asked(ReleaseAnswer) == [ReleaseAnswer(1, "late words")]


def test_words_of_an_earlier_pause_are_stale() -> None:
    talk = Conversation()
    talk.speech(0, 1000)
    talk.speech(1300, 2000)
    talk.send(PauseTranscribed(2100, 1, "half of it"))
    talk.send(PauseJudged(2100, 1, 1.0))
    assert talk.asked(PrepareAnswer) == []
    talk.until(2260)
    assert talk.state.phase is Phase.ENDPOINTING


def test_a_noise_without_words_ends_in_silence() -> None:
    talk = Conversation()
    talk.speech(0, 200)
    talk.understood("")
    assert talk.state.phase is Phase.LISTENING
    assert talk.decisions[-1] == "no_words"
    assert talk.asked(ForgetUtterance) == [ForgetUtterance(200)]
    talk.until(5000)
    assert talk.asked(ReleaseAnswer) == []


def speaking() -> Conversation:
    talk = Conversation()
    talk.speech(0, 1000)
    talk.understood("tell me a story")
    talk.agent_speaks(1600)
    assert talk.state.phase is Phase.SPEAKING
    return talk


def test_a_faint_suspicion_turns_the_agent_down_and_counts_for_no_speech() -> None:
    talk = speaking()
    assert talk.send(SpeechSuspected(3000, 3000, None, True)) == [DuckAnswer(1)]
    assert talk.send(SpeechSuspected(3200, 3168)) == []
    talk.send(SpeechStarted(3232, 3168))
    assert talk.state.phase is Phase.SPEAKING  # 64 ms of speech, and not 232, hold no answer
    assert talk.state.over is not None and talk.state.over.onset_ms == 3168


def test_a_faint_suspicion_that_comes_to_nothing_leaves_nothing_behind() -> None:
    talk = speaking()
    talk.send(SpeechSuspected(3000, 3000, None, True))
    assert talk.send(SpeechDismissed(3100)) == [RestoreAnswer(1)]
    assert talk.state.over is None


def test_no_answer_waits_for_a_faint_suspicion() -> None:
    talk = Conversation()
    talk.speech(0, 1000)
    talk.understood("tell me a story")
    assert talk.send(SpeechSuspected(1160, 1160, None, True)) == []
    assert not talk.state.stirring


def nodded(talk: Conversation) -> OverlapHeard:
    """Say "okay" from 3000 to 3400 ms; return what the recogniser says at 3550."""
    talk.speech(3000, 3400)
    assert talk.state.phase is Phase.HELD
    return OverlapHeard(3550, talk.state.probe, "Okay.", "a dog and a cat", 5000.0)


def test_the_agent_goes_on_a_moment_after_a_nod() -> None:
    talk = speaking()
    assert talk.asked(ResumeAnswer) == []
    talk.send(nodded(talk))
    talk.until(3640)
    assert talk.state.phase is Phase.HELD
    talk.until(3660)
    assert talk.state.phase is Phase.SPEAKING
    assert talk.decisions[-1] == "resumed"


def test_a_nod_may_be_the_first_word_of_a_wish() -> None:
    talk = speaking()
    talk.send(nodded(talk))
    talk.send(SpeechStarted(3620, 3560))
    talk.until(3900)
    assert talk.state.phase is Phase.HELD
    assert talk.asked(ResumeAnswer) == []
    talk.send(SpeechContinued(3910, 910))
    heard = OverlapHeard(4000, talk.state.probe, "Okay, that is", "a dog and a cat", 5000.0)
    talk.send(heard)
    assert talk.decisions[-1] == "interrupted"


def test_a_word_that_was_unclear_may_be_the_first_of_a_wish() -> None:
    """A "stop" that was heard as "stuff", and "please" 250 ms behind it, are one wish."""
    talk = speaking()
    talk.speech(3000, 3400)
    unclear = OverlapHeard(3550, talk.state.probe, "stuff", "a dog and a cat", 5000.0)
    talk.send(unclear)
    talk.until(3714)
    assert talk.state.phase is Phase.HELD
    talk.send(SpeechStarted(3714, 3650))
    talk.send(SpeechContinued(3780, 780))
    assert talk.decisions[-1] == "interrupted"
    assert talk.asked(ResumeAnswer) == []


def test_the_agent_goes_on_a_moment_after_what_stays_unclear() -> None:
    talk = speaking()
    talk.speech(3000, 3400)
    talk.send(OverlapHeard(3550, talk.state.probe, "stuff", "a dog and a cat", 5000.0))
    talk.until(3740)
    assert talk.state.phase is Phase.HELD
    talk.until(3760)
    assert talk.state.phase is Phase.SPEAKING
    resumed = [a for a in talk.actions if isinstance(a, Announce)][-1]
    assert (resumed.decision, resumed.evidence["reason"]) == ("resumed", "unclear")


def goes_on(talk: Conversation, onset_ms: float, until_ms: float) -> None:
    """Let speech go on to ``until_ms``, as the VAD tells it."""
    while talk.now_ms + 32 <= until_ms:
        talk.until(talk.now_ms + 32)
        if talk.state.over is None:
            return
        talk.send(SpeechContinued(talk.now_ms, talk.now_ms - onset_ms))


@pytest.mark.parametrize(
    ("margin_db", "asked_ms"), [(None, [320, 408, 488]), (25.0, [320, 416, 512])]
)
def test_the_recogniser_is_asked_less_often_under_an_echo(
    margin_db: float | None, asked_ms: list[float]
) -> None:
    talk = speaking()
    talk.until(3064)
    talk.send(SpeechStarted(3064, 3000, margin_db))
    found = []
    for speech_ms in range(72, 530, 8):
        probe = talk.state.probe
        talk.until(3000 + speech_ms)
        talk.send(SpeechContinued(3000 + speech_ms, speech_ms, margin_db))
        if talk.state.probe != probe:
            found.append(speech_ms)
            talk.until(3000 + speech_ms + 4)
            talk.send(OverlapHeard(talk.now_ms, talk.state.probe, "okay", "a dog", 5000.0))
    assert found[0] == asked_ms[0]
    assert found == pytest.approx(asked_ms, abs=16)
    assert (found[1] >= 416) == (margin_db is not None)


def test_speech_that_outlasts_a_nod_needs_no_second_hearing() -> None:
    talk = speaking()
    talk.until(3064)
    talk.send(SpeechStarted(3064, 3000))
    goes_on(talk, 3000, 3450)
    talk.send(OverlapHeard(3450, talk.state.probe, "He was", "a dog and a cat", 5000.0))
    assert talk.state.phase is Phase.HELD
    goes_on(talk, 3000, 3760)
    assert talk.state.phase is Phase.HELD
    goes_on(talk, 3000, 3810)
    assert talk.state.phase is Phase.USER_SPEAKING
    assert talk.decisions[-1] == "interrupted"


def test_three_words_need_less_and_a_nod_or_nothing_behind_them_needs_more() -> None:
    for later, ends in (("He was not", True), ("Okay", False), ("", False)):
        talk = speaking()
        talk.until(3064)
        talk.send(SpeechStarted(3064, 3000))
        goes_on(talk, 3000, 3400)
        talk.send(OverlapHeard(3400, talk.state.probe, "He was", "a dog and a cat", 5000.0))
        goes_on(talk, 3000, 3440)
        talk.send(OverlapHeard(3440, talk.state.probe, later, "a dog and a cat", 5000.0))
        assert talk.state.phase is Phase.HELD
        goes_on(talk, 3000, 3500)
        assert (talk.state.phase is Phase.USER_SPEAKING) is ends
        if not ends:
            # The newest words count, and the long bound is for words that may be a wish.
            goes_on(talk, 3000, 3900)
            assert talk.state.phase is Phase.HELD


def test_speech_that_begins_as_the_agent_ends_is_a_turn() -> None:
    talk = speaking()
    talk.until(3000)
    talk.send(SpeechStarted(3000, 2940))
    talk.agent_ends(3010)
    assert talk.state.phase is Phase.USER_SPEAKING
    assert talk.state.onset_ms == 2940
    talk.send(SpeechPaused(3600, 3500))
    talk.understood("another one")
    talk.until(4000)
    assert talk.asked(ReleaseAnswer)[-1] == ReleaseAnswer(2, "another one")


def test_an_answer_without_sound_gives_the_floor_back() -> None:
    talk = Conversation()
    talk.speech(0, 1000)
    talk.understood("hm")
    talk.until(1300)
    talk.agent_ends(1400)
    assert talk.state.phase is Phase.LISTENING


def test_a_failure_while_held_is_tried_again_when_the_turn_is_over() -> None:
    talk = Conversation()
    talk.speech(0, 1000)
    talk.understood("hello")
    talk.send(AnswerFailed(1200, 1, "broken"))
    talk.until(1300)
    assert talk.asked(PrepareAnswer)[-1] == PrepareAnswer(2, "hello")
    assert talk.asked(ReleaseAnswer) == [ReleaseAnswer(2, "hello")]


@pytest.mark.parametrize("sounded", [False, True])
def test_a_failure_after_the_release_gives_the_floor_back(sounded: bool) -> None:
    talk = Conversation()
    talk.speech(0, 1000)
    talk.understood("hello")
    talk.until(1300)
    if sounded:
        talk.agent_speaks(1400)
    talk.send(AnswerFailed(1500, 1, "broken"))
    assert talk.state.phase is Phase.LISTENING
    assert talk.asked(InterruptAnswer) == [InterruptAnswer(1, "broken")]


def test_the_recognisers_endpoint_ends_the_wait_at_once() -> None:
    talk = Conversation()
    talk.speech(0, 1000)
    talk.understood("that is all", probability=0.1)
    talk.send(EndpointReached(1300))
    talk.until(1301)
    assert talk.state.phase is Phase.THINKING


def test_an_endless_turn_is_answered_as_it_is() -> None:
    talk = Conversation(Rules(max_turn_ms=5000))
    talk.send(SpeechStarted(64, 0))
    talk.send(SpeechContinued(5000, 5000))
    assert talk.state.phase is Phase.ENDPOINTING
    talk.until(5001)
    talk.send(PauseTranscribed(5100, 1, "the television"))
    assert talk.state.phase is Phase.THINKING
    talk.agent_speaks(5300)
    # The same speech goes on and was no interruption; it ends, and belongs to no turn.
    talk.send(SpeechContinued(6000, 6000))
    talk.send(SpeechPaused(6500, 6400))
    assert talk.state.phase is Phase.SPEAKING
    assert talk.asked(ForgetUtterance)[-1] == ForgetUtterance(6400)


def test_events_of_an_earlier_answer_are_stale() -> None:
    talk = speaking()
    talk.send(AnswerFinished(2000, 0))
    talk.send(AnswerFailed(2000, 0, "old"))
    assert talk.state.phase is Phase.SPEAKING


_AT = st.floats(0, 1e5)
_NUMBER = st.integers(0, 6)
_WORDS = st.sampled_from(["", "words", "mm-hm", "one two three", "yes", "go on"])
_MARGIN = st.none() | st.floats(-20, 20)
_EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.builds(SpeechSuspected, _AT, _AT, _MARGIN),
    st.builds(SpeechDismissed, _AT),
    st.builds(SpeechStarted, _AT, _AT, _MARGIN),
    st.builds(SpeechContinued, _AT, _AT, _MARGIN, st.none() | st.floats(-1, 1)),
    st.builds(SpeechPaused, _AT, _AT),
    st.builds(PartialHeard, _AT, st.just("so"), st.just("")),
    st.builds(PauseTranscribed, _AT, _NUMBER, _WORDS, _WORDS, st.floats(0, 1)),
    st.builds(PauseJudged, _AT, _NUMBER, st.floats(0, 1)),
    st.builds(TextJudged, _AT, _NUMBER, st.none() | st.floats(0, 1)),
    st.builds(OverlapHeard, _AT, _NUMBER, _WORDS, _WORDS, st.none() | st.floats(0, 5000)),
    st.builds(EndpointReached, _AT),
    st.builds(AnswerSounded, _AT, _NUMBER),
    st.builds(AnswerFinished, _AT, _NUMBER),
    st.builds(AnswerFailed, _AT, _NUMBER, st.just("broken")),
    st.builds(TimerFired, _AT, st.integers(0, 20)),
)


@settings(max_examples=500, deadline=None)
@given(st.lists(_EVENTS, max_size=50))
def test_any_order_of_events_keeps_the_promises(events: list[Event]) -> None:
    talk = Conversation()
    released: set[int] = set()
    ended: set[int] = set()
    held: int | None = None
    for event in events:
        before = talk.state.phase
        for action in talk.send(event):
            if isinstance(action, ReleaseAnswer):
                assert before is Phase.ENDPOINTING
                assert action.answer not in released, "an answer is released once"
                assert action.text, "nothing is answered with nothing"
                released.add(action.answer)
            if isinstance(action, InterruptAnswer | CompleteAnswer):
                assert action.answer in released
                assert action.answer not in ended, "an answer ends once"
                ended.add(action.answer)
                held = None
            if isinstance(action, DropAnswer):
                held = None
            if isinstance(action, HoldAnswer):
                assert action.answer in released - ended
                assert held is None, "what is held is not held again"
                held = action.answer
            if isinstance(action, ResumeAnswer):
                assert held == action.answer, "only what is held goes on"
                held = None
        over = talk.state.over
        assert (held is not None) == (over is not None and over.held)
        assert (talk.state.phase is Phase.HELD) <= (held is not None)
        if held is not None:
            assert talk.timer is not None, "no hold is endless"
        if talk.state.phase is Phase.LISTENING:
            assert not talk.state.prepared
    # From anywhere, the user is heard and answered: no state is a dead end.
    at_ms = 2e5
    talk.send(SpeechPaused(at_ms, at_ms))
    talk.until(at_ms + 20_000)
    at_ms += 20_000
    talk.send(AnswerFinished(at_ms, talk.state.answer))
    talk.timer = None
    talk.send(SpeechStarted(at_ms, at_ms))
    talk.send(SpeechContinued(at_ms + 500, 500))
    talk.send(SpeechPaused(at_ms + 1000, at_ms + 900))
    assert talk.state.phase is Phase.ENDPOINTING
    talk.until(at_ms + 1100)
    talk.understood("are you there")
    talk.until(at_ms + 10_000)
    assert talk.state.phase is Phase.THINKING


_SOUNDS = st.lists(
    st.tuples(
        st.floats(0, 2500),  # silence before it
        st.floats(20, 2500),  # its length
        st.sampled_from(["", "", "mm-hm", "stop", "what is the capital", "turn it on and", "two"]),
        st.sampled_from([0.02, 0.3, 0.7, 0.99]),
        st.none() | st.sampled_from([0.001, 0.1, 0.9]),
        st.none() | st.sampled_from([-6.0, 4.0, 20.0]),
    ),
    max_size=8,
)
_DELAYS = st.builds(
    Delays,
    recogniser_ms=st.floats(20, 2500),
    judge_ms=st.floats(5, 2500) | st.just(float("inf")),
    think_ms=st.floats(20, 2500),
    fails=st.integers(0, 2),
    streaming=st.integers(0, 1),
)


@settings(max_examples=150, deadline=None)
@given(_SOUNDS, _DELAYS, st.booleans(), st.floats(0, 1))
def test_any_conversation_comes_to_rest_with_a_true_history(
    sounds: list[tuple[float, float, str, float, float | None, float | None]],
    delays: Delays,
    judged: bool,
    wasted_share: float,
) -> None:
    answers = ["", "shall I go on?", "one two three four five six seven"]
    world = World(Rules(judged=judged), delays, answers, wasted_share=wasted_share)
    at_ms = 0.0
    for silence_ms, length_ms, words, probability, ending, margin_db in sounds:
        at_ms += 100.0 + silence_ms
        sound = Sound(at_ms, length_ms, words.split(), probability, ending, margin_db)
        world.later(at_ms, lambda sound=sound: world.hear(sound))  # type: ignore[misc]
        at_ms += length_ms
    world.run(at_ms + 20_000.0)
    world.check()
