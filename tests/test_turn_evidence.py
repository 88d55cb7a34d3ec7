"""The pure judgements that turn-taking rests on: words, sounds, waits, and wasted work."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevoice.completeness import (
    HEARING,
    SOUND,
    combine,
    model_completeness,
    text_completeness,
)
from edgevoice.echo_words import echo_similarity
from edgevoice.errors import ConfigError
from edgevoice.events import OverlapHeard
from edgevoice.overlap import Overlap, Verdict, judge
from edgevoice.phrases import LANGUAGES, load, words
from edgevoice.resuming import cut_word_start, quiet_spot, word_starts, words_between
from edgevoice.speculation import Speculation
from edgevoice.turn_rules import Rules, forget, learn, nearly_answered, unjudged_wait_ms, wait_ms

RULES = Rules()


@pytest.mark.parametrize(
    ("language", "nod", "answer", "go_on", "turn"),
    [
        ("en", "Mm-hm.", "Yes", "Go on!", "What is the time?"),
        ("de", "Genau.", "Ja", "Mach weiter!", "Wie spät ist es?"),
        ("fr", "D'accord.", "Oui", "Vas-y !", "Quelle heure est-il ?"),
        ("es", "Ajá.", "Sí", "Sigue.", "¿Qué hora es?"),
        ("it", "Capisco.", "Sì", "Vai avanti.", "Che ore sono?"),
        ("pt", "Entendi.", "Sim", "Pode continuar.", "Que horas são?"),
        ("zh", "嗯，原来如此。", "是的", "继续说", "现在几点？"),
        ("ja", "なるほど。", "はい", "続けてください", "今何時ですか"),
    ],
)
def test_every_language_has_its_table(
    language: str, nod: str, answer: str, go_on: str, turn: str
) -> None:
    phrases = load(language)
    assert phrases.is_backchannel(words(nod))
    assert phrases.is_answer(words(answer))
    assert phrases.is_backchannel(words(answer))
    assert phrases.asks_to_go_on(go_on)
    for said in (turn, go_on):
        assert not phrases.is_backchannel(words(said)), said
    assert not phrases.asks_to_go_on(turn)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_table_agrees_with_itself(language: str) -> None:
    phrases = load(language)
    assert all(phrases.is_backchannel(answer) for answer in phrases.answers)
    assert not phrases.unfinished & phrases.seldom_last
    assert not phrases.stops & phrases.backchannels
    assert () not in phrases.backchannels | phrases.go_on | phrases.unfinished


def test_an_unknown_language_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="known: de, en"):
        load("xx")


def test_several_nods_are_a_nod_and_a_nod_with_more_is_not() -> None:
    phrases = load("en")
    assert phrases.is_backchannel(words("yeah, yeah, I see... right"))
    assert not phrases.is_backchannel(words("yeah but no"))
    assert not phrases.is_backchannel(words("I see the house"))
    assert not phrases.is_backchannel(())


def test_the_beginning_of_a_nod_is_recognised() -> None:
    phrases = load("en")
    assert phrases.begins_backchannel(words("of cour"))
    assert phrases.begins_backchannel(words("ye"))
    assert not phrases.begins_backchannel(words("stop"))
    assert not phrases.begins_backchannel(())


@pytest.mark.parametrize(
    ("text", "probability"),
    [
        ("What is the capital of France?", 0.8),
        ("Turn on the light.", 0.5),
        ("Turn on the light and.", 0.05),
        ("I would like to", 0.05),
        ("Well,", 0.2),
        ("I was thinking...", 0.2),
        ("The thing that I saw on", 0.3),
        ("", 0.5),
    ],
)
def test_completeness_of_text(text: str, probability: float) -> None:
    assert text_completeness(text, load("en")) == probability


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_likelier_ending_is_a_likelier_turn(one: float, other: float) -> None:
    low, high = sorted((one, other))
    for text in ("What is the capital of France?", "I saw the"):
        likely = [model_completeness(ending, text, load("en")) for ending in (low, high)]
        assert 0.0 < likely[0] <= likely[1] < 1.0
    assert model_completeness(one, "It rains?", load("en")) >= model_completeness(
        one, "It rains and", load("en")
    )


@given(st.floats(0, 1), st.floats(0, 1))
def test_both_witnesses_move_the_probability_their_way(one: float, other: float) -> None:
    low, high = sorted((one, other))
    for text in (0.05, 0.5, 0.8):
        assert combine(low, text) <= combine(high, text)
    assert combine(one, 0.05) < combine(one, 0.5) < combine(one, 0.8)


def test_a_question_mark_does_not_finish_unfinished_words() -> None:
    asked, cut = (
        model_completeness(0.1, t, RULES.phrases) for t in ("Is it late?", "Is it late and?")
    )
    assert cut < 0.5 < asked
    made_up = model_completeness(0.09, "What is it?", RULES.phrases)
    assert combine(0.97, made_up, SOUND.trust) < RULES.end_of_turn_threshold
    whole = model_completeness(0.8, "What time is it?", RULES.phrases)
    assert combine(0.9, whole, SOUND.trust) > RULES.end_of_turn_threshold
    heard = model_completeness(0.8, "What time is it?", RULES.phrases, None, HEARING)
    assert combine(0.5, heard, HEARING.trust) > RULES.end_of_turn_threshold


def test_words_that_are_unfinished_outweigh_a_sure_sound() -> None:
    assert combine(0.999, 0.05) < RULES.end_of_turn_threshold
    assert combine(0.9, 0.5) == pytest.approx(0.9)


def test_the_wait_runs_from_the_short_to_the_long_one() -> None:
    assert wait_ms(0.97, 0.0, RULES) == RULES.complete_wait_ms == 150.0
    assert wait_ms(0.0, 0.0, RULES) == RULES.incomplete_wait_ms == 2000.0
    assert wait_ms(0.79, 0.0, RULES) == wait_ms(0.6, 0.0, RULES) == RULES.likely_wait_ms == 600.0
    assert wait_ms(0.45, 0.0, RULES, HEARING.likely) == RULES.likely_wait_ms
    assert 650.0 < wait_ms(0.55, 0.0, RULES) < wait_ms(0.2, 0.0, RULES) < 2000.0


def test_the_wait_is_no_longer_than_the_longest_nor_shorter_than_the_shortest() -> None:
    hurried = replace(RULES, incomplete_wait_ms=400.0)
    assert wait_ms(0.65, 0.0, hurried) == wait_ms(0.1, 0.0, hurried) == 400.0
    calm = replace(RULES, complete_wait_ms=900.0)
    assert wait_ms(0.9, 0.0, calm) == wait_ms(0.65, 0.0, calm) == 900.0
    assert wait_ms(0.4, 0.0, calm) > 900.0


def test_what_a_low_threshold_calls_over_is_over() -> None:
    bold = replace(RULES, end_of_turn_threshold=0.3)
    assert wait_ms(0.3, 0.0, bold) == 150.0
    assert wait_ms(0.29, 0.0, bold) >= 600.0
    assert wait_ms(0.0, 0.0, replace(RULES, end_of_turn_threshold=0.0)) == 150.0


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 400))
def test_doubt_and_patience_never_shorten_the_wait(a: float, b: float, patience: float) -> None:
    low, high = sorted((a, b))
    rounding = 1e-6
    assert wait_ms(low, patience, RULES) >= wait_ms(high, patience, RULES) - rounding
    assert wait_ms(a, patience, RULES) >= wait_ms(a, 0.0, RULES) - rounding
    assert unjudged_wait_ms(low, patience, RULES) >= unjudged_wait_ms(high, patience, RULES)


@given(st.lists(st.floats(0, 5000), max_size=30))
def test_patience_is_bounded(pauses: list[float]) -> None:
    patience = 0.0
    for pause_ms in pauses:
        learned = learn(patience, pause_ms, RULES)
        assert patience <= learned <= RULES.adapt_wait_ms
        patience = forget(learned)
        assert patience <= learned


def test_patience_grows_with_pauses_that_were_nearly_answered() -> None:
    assert not nearly_answered(100.0, 400.0)
    assert nearly_answered(300.0, 400.0)
    once = learn(0.0, 350.0, RULES)
    twice = learn(once, 350.0, RULES)
    assert 100.0 < once < twice < 1.15 * 350.0
    assert learn(0.0, 350.0, Rules(adapt_wait_ms=0.0)) == 0.0


def test_an_echo_is_the_agents_words_in_their_order() -> None:
    said = words("The capital of France is Paris, and it lies on the Seine.")
    assert echo_similarity(words("capital of France"), said) == 1.0
    assert echo_similarity(words("capitol of frans"), said) == 1.0
    assert echo_similarity(words("France of capital"), said) < 0.5
    assert echo_similarity(words("what about Rome"), said) == 0.0
    assert echo_similarity((), said) == echo_similarity(words("no"), ()) == 0.0


WORDS = st.lists(st.sampled_from(["one", "two", "three", "four", "stop"]), min_size=1, max_size=8)


@given(WORDS, WORDS)
def test_similarity_is_a_share_and_whole_for_what_was_said(
    heard: list[str], said: list[str]
) -> None:
    assert 0.0 <= echo_similarity(heard, said) <= 1.0
    assert echo_similarity(said, said) == 1.0
    assert echo_similarity(heard, [*heard, *said]) == 1.0


def verdict(
    text: str,
    said: str = "the capital of France is Paris",
    remaining_ms: float | None = 3000.0,
    overlap: Overlap | None = None,
) -> Verdict:
    over = overlap or Overlap(0.0, 500.0, end_ms=500.0)
    return judge(over, OverlapHeard(0.0, 1, text, said, remaining_ms), RULES)[0]


def test_verdicts() -> None:
    assert verdict("") is Verdict.NO_WORDS
    assert verdict("...") is Verdict.NO_WORDS
    assert verdict("uh-huh") is Verdict.BACKCHANNEL
    assert verdict("go on") is Verdict.BACKCHANNEL
    assert verdict("of France") is Verdict.ECHO
    assert verdict("of France stop please") is Verdict.INTERRUPTION
    assert verdict("stop") is Verdict.INTERRUPTION
    assert verdict("yes", "shall I go on?", 0.0) is Verdict.INTERRUPTION
    assert verdict("yes", "shall I go on?", None) is Verdict.BACKCHANNEL
    assert verdict("yes", "shall I go on?", 5000.0) is Verdict.BACKCHANNEL


def test_a_user_who_is_misheard_is_no_echo() -> None:
    said = "bread rises in the morning"
    # Function words are in everything that an agent says; fuzzy likeness counts as far as it goes.
    assert verdict("in the moment", said, overlap=Overlap(0.0, 800.0)) is Verdict.INTERRUPTION
    assert verdict("the mornings", said, overlap=Overlap(0.0, 800.0)) is Verdict.ECHO
    # What is far louder than the echo is one only where it says what the agent says.
    loud = Overlap(0.0, 800.0, echo_margin_db=30.0)
    assert verdict("morning in the kitchen", "in the kitchen", overlap=loud) is Verdict.INTERRUPTION
    assert verdict("morning in the kitchen", "in the kitchen") is Verdict.ECHO
    assert verdict("in the kitchen", "in the kitchen", overlap=loud) is Verdict.ECHO


def test_what_may_become_a_nod_is_unclear_while_it_goes_on() -> None:
    going_on = Overlap(0.0, 390.0)
    assert verdict("ye", overlap=going_on) is Verdict.UNCLEAR
    assert verdict("you", overlap=going_on) is Verdict.UNCLEAR
    assert verdict("stop", overlap=going_on) is Verdict.INTERRUPTION
    assert verdict("you here", overlap=going_on) is Verdict.UNCLEAR
    assert verdict("you here", overlap=Overlap(0.0, 600.0)) is Verdict.UNCLEAR
    assert verdict("you here", overlap=Overlap(0.0, 800.0)) is Verdict.INTERRUPTION
    # "no way" begins with a "no" that would stop the agent.
    assert verdict("no", overlap=going_on) is Verdict.UNCLEAR
    assert verdict("no", overlap=Overlap(0.0, 450.0)) is Verdict.INTERRUPTION


def test_several_words_are_a_sentence_sooner_than_one() -> None:
    short = Overlap(0.0, 500.0)
    assert verdict("they were married", overlap=short) is Verdict.INTERRUPTION
    assert verdict("they were", overlap=short) is Verdict.UNCLEAR
    assert verdict("okay that is", overlap=short) is Verdict.INTERRUPTION
    assert verdict("okay that", overlap=short) is Verdict.UNCLEAR
    assert verdict("for comments", overlap=short) is Verdict.UNCLEAR
    assert verdict("for comments", overlap=Overlap(0.0, 650.0)) is Verdict.INTERRUPTION
    assert verdict("an image", overlap=Overlap(0.0, 650.0)) is Verdict.UNCLEAR
    # What Whisper makes of nods.
    assert verdict("yes and yes", overlap=short) is Verdict.UNCLEAR
    assert verdict("MMHS my friend", overlap=short) is Verdict.UNCLEAR
    assert verdict("and then they change", overlap=short) is Verdict.UNCLEAR
    assert verdict("and Mr. John", overlap=Overlap(0.0, 800.0)) is Verdict.INTERRUPTION


def judged(text: str, nod: float | None, overlap: Overlap, said: str = "the capital") -> Verdict:
    return judge(overlap, OverlapHeard(0.0, 1, text, said, 5000.0, nod=nod), RULES)[0]


def test_what_the_encoder_takes_for_no_nod_need_not_last() -> None:
    brief, short = Overlap(0.0, 380.0), Overlap(0.0, 450.0)
    assert judged("he was", None, short) is Verdict.UNCLEAR
    assert judged("he was", 0.5, short) is Verdict.UNCLEAR
    assert judged("he was", 0.15, short) is Verdict.INTERRUPTION
    assert judged("and Mr.", 0.15, short) is Verdict.INTERRUPTION
    assert judged("he was", 0.25, brief) is Verdict.UNCLEAR
    assert judged("he was", 0.05, brief) is Verdict.INTERRUPTION
    quieter = Overlap(0.0, 450.0, loudness_db=-5.0)  # and not yet as quiet as a television
    assert judged("he was", 0.05, quieter) is Verdict.UNCLEAR
    # "Okay, that is enough" so far.
    assert judged("okay", 0.05, brief) is Verdict.INTERRUPTION
    assert judged("okay", 0.25, brief) is Verdict.BACKCHANNEL
    assert judged("okay", 0.05, Overlap(0.0, 380.0, end_ms=380.0)) is Verdict.BACKCHANNEL
    assert judged("you had", 0.25, Overlap(0.0, 450.0, end_ms=450.0)) is Verdict.UNCLEAR


def test_a_nods_words_that_sound_like_a_beginning_are_one() -> None:
    def okay(*nods: float, speech_ms: float = 450.0, end_ms: float | None = None) -> Verdict:
        return judged("okay", nods[-1], Overlap(0.0, speech_ms, end_ms=end_ms, nods=nods))

    assert okay(0.3, 0.2) is Verdict.INTERRUPTION
    assert okay(0.3, 0.2, speech_ms=380.0) is Verdict.BACKCHANNEL
    assert okay(0.7, 0.3) is Verdict.BACKCHANNEL
    assert okay(0.2, 0.35) is Verdict.INTERRUPTION
    assert okay(0.1, 0.55) is Verdict.BACKCHANNEL  # The newest says a nod.
    assert okay(0.0, 0.9, 0.9, 0.9) is Verdict.BACKCHANNEL  # No hearing decides alone.
    # In a pause as well: "okay... that is enough".
    assert okay(0.3, 0.2, end_ms=450.0) is Verdict.INTERRUPTION
    assert okay(0.3, 0.7, end_ms=450.0) is Verdict.BACKCHANNEL
    echo = Overlap(0.0, 450.0, echo_margin_db=5.0, nods=(0.2, 0.2))
    assert judged("okay", 0.2, echo) is Verdict.BACKCHANNEL
    far = Overlap(0.0, 450.0, loudness_db=-5.0, nods=(0.2, 0.2))
    assert judged("okay", 0.2, far) is Verdict.BACKCHANNEL
    assert judged("go on", 0.2, Overlap(0.0, 450.0, nods=(0.2, 0.2))) is Verdict.BACKCHANNEL


def test_what_the_encoder_takes_for_a_nod_is_one_whatever_was_heard() -> None:
    short = Overlap(0.0, 700.0)
    assert judged("and I'm sorry", 0.45, short) is Verdict.INTERRUPTION
    doubtful = Overlap(0.0, 700.0, nods=(0.7, 0.45))
    assert judged("and I'm sorry", 0.45, doubtful) is Verdict.UNCLEAR
    assert judged("and I'm sorry", 0.98, short) is Verdict.UNCLEAR
    assert judged("they were married", 0.98, short) is Verdict.UNCLEAR
    assert judged("outside outside", 0.98, Overlap(0.0, 900.0)) is Verdict.UNCLEAR
    assert judged("they were married", 0.98, Overlap(0.0, 1100.0)) is Verdict.INTERRUPTION
    # A wish is a wish, and under the agent's echo the encoder hears both.
    assert judged("stop it", 0.98, short) is Verdict.INTERRUPTION
    echo = Overlap(0.0, 700.0, echo_margin_db=5.0)
    assert judged("and I'm sorry", 0.98, echo) is Verdict.INTERRUPTION
    assert judged("he was", 0.05, Overlap(0.0, 450.0, echo_margin_db=5.0)) is Verdict.UNCLEAR
    died_away = Overlap(0.0, 450.0, echo_margin_db=40.0, began_db=5.0)
    assert judged("he was", 0.05, died_away) is Verdict.UNCLEAR
    far = Overlap(0.0, 450.0, echo_margin_db=40.0, began_db=30.0)
    assert judged("he was", 0.05, far) is Verdict.INTERRUPTION


def test_a_short_word_that_is_no_wish_is_let_go_unless_the_agent_asked() -> None:
    ended = Overlap(0.0, 600.0, end_ms=600.0)
    assert verdict("Yack", overlap=ended) is Verdict.UNCLEAR
    assert verdict("Yack", said="", overlap=ended) is Verdict.INTERRUPTION  # of a silent agent
    assert verdict("Louder", overlap=ended) is Verdict.INTERRUPTION
    assert verdict("Berlin", "Which city do you mean?", 0.0, ended) is Verdict.INTERRUPTION


def test_loudness_and_voice_are_evidence_where_they_are_known() -> None:
    quiet = Overlap(0.0, 500.0, end_ms=500.0, echo_margin_db=-3.0)
    loud = Overlap(0.0, 500.0, end_ms=500.0, echo_margin_db=12.0)
    # Half of the letters are in the agent's words: an echo if it is as loud as one.
    assert verdict("no wait Paris", overlap=quiet) is Verdict.ECHO
    assert verdict("no wait Paris", overlap=loud) is Verdict.INTERRUPTION
    stranger = Overlap(0.0, 500.0, end_ms=500.0, speaker_similarity=0.1)
    owner = Overlap(0.0, 500.0, end_ms=500.0, speaker_similarity=0.6)
    assert verdict("stop it", overlap=stranger) is Verdict.OTHER_VOICE
    assert verdict("stop it", overlap=owner) is Verdict.INTERRUPTION


PARTS = [("One two three.", 1400), ("Four five", 900)]


def test_what_is_too_brief_for_its_words_is_no_interruption() -> None:
    nod = Overlap(0.0, 350.0, end_ms=350.0)
    assert verdict("You had", overlap=nod) is Verdict.UNCLEAR
    assert verdict("Well", overlap=nod) is Verdict.UNCLEAR
    assert verdict("Stop.", overlap=nod) is Verdict.INTERRUPTION
    assert verdict("No, wait", overlap=nod) is Verdict.INTERRUPTION
    assert verdict("Berlin", "which city?", 0.0, overlap=nod) is Verdict.INTERRUPTION


def test_talk_in_the_background_is_not_for_the_agent() -> None:
    far, near = (Overlap(0.0, 800.0, loudness_db=db) for db in (-15.0, -6.0))
    assert verdict("breaking news this evening", overlap=far) is Verdict.BACKGROUND
    assert verdict("tell me something else", overlap=near) is Verdict.INTERRUPTION


def test_words_and_where_they_begin() -> None:
    assert list(word_starts(PARTS)) == [
        (0, "One"),
        (400, "two"),
        (800, "three."),
        (1400, "Four"),
        (1900, "five"),
    ]
    assert cut_word_start(PARTS, 0) == 0
    assert cut_word_start(PARTS, 850) == 800
    assert cut_word_start(PARTS, 800) == 400, "at a word's first sample the one before is whole"
    assert cut_word_start([("Supercalifragilistic", 96_000)], 90_000) == 90_000 - 24_000
    assert words_between(PARTS, 400, 1401) == "two three. Four"


def test_the_quiet_spot_lies_between_the_words() -> None:
    rng = np.random.default_rng(1)
    audio = (rng.normal(0, 3000, 16_000)).astype(np.int16)
    audio[7000:7400] = 0
    assert 7000 <= quiet_spot(audio, 8000) <= 7400
    assert quiet_spot(np.zeros(0, dtype=np.int16), 0) == 0
    assert quiet_spot(audio[:100], 300) == 100


def test_wasted_work_is_what_the_next_prompt_had_no_use_for() -> None:
    work = Speculation()
    assert work.wasted_share == 0.0
    work.prepared()
    work.read(100, 100, cancelled=False)
    for _ in range(20):
        work.wrote()
    work.dropped()
    # The next prompt keeps 90 tokens; 10 of the first, and the 20 of its answer, were in vain.
    work.prepared()
    work.read(60, 150, cancelled=False)
    assert work.figures() == {
        "answers_prepared": 2,
        "answers_dropped": 1,
        "tokens_read": 160,
        "tokens_written": 20,
        "tokens_wasted": 30,
        "wasted_share": round(30 / 180, 3),
    }
    assert 0.15 < work.wasted_share < 0.25


def test_recent_waste_counts_most() -> None:
    work = Speculation()
    for _ in range(5):
        work.prepared()
        work.read(100, 100, cancelled=False)
    wasteful = work.wasted_share
    size = 100
    for _ in range(10):
        work.prepared()
        size += 100
        work.read(100, size, cancelled=False)
    assert wasteful > 0.7
    assert work.wasted_share < 0.2


def test_a_cancelled_read_is_settled_with_the_next() -> None:
    work = Speculation()
    work.read(50, 200, cancelled=True)
    work.read(100, 100, cancelled=False)
    assert work.figures()["tokens_wasted"] == 50
