"""Exchanges are put together from notices, also when turns go on, fail or are cut off."""

from edgevoice.events import MetricsNotice, Notice, TranscriptNotice
from edgevoice.exchanges import ExchangeLog

SPANS = {"endpoint": 300.0, "first_sound": 500.0}


def user(text: str, at_ms: float = 1300.0, final: bool = True) -> Notice:
    return TranscriptNotice(at_ms, "user", text, final)


def agent(text: str, final: bool = True, interrupted: bool = False) -> Notice:
    return TranscriptNotice(2000.0, "agent", text, final, interrupted)


def test_question_and_answer() -> None:
    notices = [
        user("What is", final=False),
        user("What is it?"),
        agent("It is", final=False),
        agent("It is."),
        MetricsNotice(2500.0, 1, SPANS),
    ]
    (exchange,) = ExchangeLog.of(notices).exchanges
    assert (exchange.user, exchange.agent, exchange.unheard) == ("What is it?", "It is.", "")
    assert not exchange.interrupted
    assert exchange.speech_end_ms == 1000.0
    assert exchange.closed_ms == 2500.0
    assert exchange.spans_ms == SPANS


def test_an_interruption_keeps_what_was_not_heard_apart() -> None:
    notices = [
        user("Tell me."),
        agent("Once upon a time there was", final=False),
        agent("Once upon", interrupted=True),
        MetricsNotice(2500.0, 1, SPANS),
        user("Stop."),
        agent("Fine."),
        MetricsNotice(3500.0, 2, SPANS),
    ]
    first, second = ExchangeLog.of(notices).exchanges
    assert first.interrupted
    assert (first.agent, first.unheard) == ("Once upon", "a time there was")
    assert (second.user, second.agent, second.unheard) == ("Stop.", "Fine.", "")


def test_a_turn_that_went_on_is_one_turn() -> None:
    notices = [
        user("I want"),
        agent("What", final=False),
        user("I want a dog."),
        agent("Good."),
        MetricsNotice(2500.0, 2, SPANS),
    ]
    (exchange,) = ExchangeLog.of(notices).exchanges
    assert exchange.user == "I want a dog."
    assert exchange.unheard == ""


def test_a_failed_answer_and_a_last_turn_without_one() -> None:
    notices = [user("Hello?"), MetricsNotice(2500.0, 1, {"endpoint": 300.0}), user("Still there?")]
    first, last = ExchangeLog.of(notices).exchanges
    assert (first.user, first.agent) == ("Hello?", "")
    assert (last.user, last.agent, last.spans_ms) == ("Still there?", "", {})
