"""What was said and heard, and how it is fitted into a context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevoice.errors import EngineError
from edgevoice.history import INTERRUPTING, History, fit, heard_prefix
from edgevoice.stages import Message


class WordCounter:
    """Counts a word as a token; enough of a language model for fitting."""

    def __init__(self, context_tokens: int) -> None:
        self.context_tokens = context_tokens

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return sum(len(m.content.split()) for m in messages)


def counter(context_tokens: int) -> Any:
    return WordCounter(context_tokens)


def test_only_what_was_heard_is_kept() -> None:
    history = History("be brief")
    history.user_said("tell me a story")
    history.agent_said("Once upon a", cut_off=True)
    history.user_said("stop")
    history.agent_said("  ", cut_off=True)
    assert history.messages() == [
        Message("system", "be brief"),
        Message("user", "tell me a story"),
        Message("assistant", "Once upon a"),
        Message("user", INTERRUPTING + "stop"),
    ]
    assert history.turns[-1] == Message("user", "stop")


def test_an_interruption_is_told_to_the_model_and_can_be_retracted() -> None:
    history = History("")
    history.user_said("tell me a story")
    history.agent_said("Once upon a", cut_off=True)
    assert history.messages("stop")[-1] == Message("user", INTERRUPTING + "stop")
    history.user_said("stop")
    history.retract_user("stop")
    assert history.turns[-1] == Message("assistant", "Once upon a")
    history.user_said("stop it")
    history.agent_said("Fine.", cut_off=False)
    history.user_said("thanks")
    assert [m.content for m in history.messages()] == [
        "tell me a story",
        "Once upon a",
        INTERRUPTING + "stop it",
        "Fine.",
        "thanks",
    ]
    history.forget_oldest(2)
    assert history.messages()[0] == Message("user", "stop it")  # nobody knows what was interrupted


def test_a_mark_stays_with_its_turn_when_older_ones_go() -> None:
    history = History("")
    for text, cut_off in (("one", False), ("two", True)):
        history.user_said(f"say {text}")
        history.agent_said(text, cut_off=cut_off)
    history.forget_oldest(2)
    assert history.messages("stop")[-1] == Message("user", INTERRUPTING + "stop")
    assert history.messages()[0] == Message("user", "say two")


def test_two_user_turns_in_a_row_are_one() -> None:
    history = History("")
    history.user_said("hello")
    assert history.messages("are you there") == [Message("user", "hello are you there")]
    assert history.turns == (Message("user", "hello"),)


def test_a_retracted_turn_leaves_what_was_before_it() -> None:
    history = History("")
    history.user_said("hello")
    history.user_said("what is")
    history.retract_user("what is")
    assert history.turns == (Message("user", "hello"),)
    history.retract_user("hello")
    assert history.turns == ()
    history.retract_user("nothing there")
    assert history.turns == ()


def test_old_turns_go_whole_and_the_system_prompt_stays() -> None:
    history = History("be brief please")
    for number in range(10):
        history.user_said(f"question {number} is this")
        history.agent_said(f"answer {number} is that", cut_off=False)
    fitted = fit(history.messages("and now"), counter(60), answer_tokens=10)
    assert fitted.messages[0] == Message("system", "be brief please")
    assert fitted.messages[1].role == "user"
    assert fitted.messages[-1] == Message("user", "and now")
    assert fitted.dropped_turns % 2 == 0
    assert fitted.dropped_turns > 0
    history.forget_oldest(fitted.dropped_turns)
    assert history.messages("and now") == fitted.messages


def test_what_fits_is_left_alone() -> None:
    messages = [Message("system", "a b"), Message("user", "c")]
    assert fit(messages, counter(10), 5).dropped_turns == 0


def test_what_can_never_fit_is_an_error_with_numbers() -> None:
    with pytest.raises(EngineError, match=r"need 12 tokens, 5 are free beside an answer of 5"):
        fit([Message("system", "a b"), Message("user", "x " * 10)], counter(10), 5)


@pytest.mark.parametrize(
    ("share", "heard"),
    [(0.0, ""), (0.3, "one"), (0.6, "one two"), (0.99, "one two"), (1.0, "one two three")],
)
def test_the_heard_prefix_is_cut_at_a_word(share: float, heard: str) -> None:
    assert heard_prefix("one two three", share) == heard


@given(st.text(max_size=60), st.floats(-1, 2))
def test_the_heard_prefix_is_always_a_prefix(text: str, share: float) -> None:
    heard = heard_prefix(text, share).split()
    assert text.split()[: len(heard)] == heard


def test_the_rest_of_an_interrupted_answer_is_known_for_two_turns() -> None:
    history = History("")
    history.user_said("tell me a story")
    history.agent_said("Once upon", cut_off=True, unheard="a time there was a king.")
    assert history.unheard == "a time there was a king."
    history.user_said("wait")
    assert history.unheard
    history.retract_user("wait")
    history.user_said("wait a moment")
    history.agent_said("Yes.", cut_off=False)
    assert history.unheard
    history.user_said("what is the time")
    assert history.unheard == ""


def test_the_rest_is_forgotten_once_it_was_heard() -> None:
    history = History("")
    history.agent_said("Once upon", cut_off=True, unheard="a time.")
    history.forget_unheard()
    assert history.unheard == ""
