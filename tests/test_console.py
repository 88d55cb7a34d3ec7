"""What a terminal and a pipe see of a conversation."""

import io

import pytest

from edgevoice.console import Console, spans_table
from edgevoice.events import (
    ErrorNotice,
    LoadNotice,
    MetricsNotice,
    Notice,
    StateNotice,
    TranscriptNotice,
)
from edgevoice.exchanges import ExchangeLog

NOTICES: list[Notice] = [
    StateNotice(0, "listening"),
    TranscriptNotice(1, "user", "What", final=False),
    TranscriptNotice(2, "user", "What is it?", final=True),
    TranscriptNotice(3, "agent", "It is", final=False),
    ErrorNotice(4, "the voice stumbled"),
    ErrorNotice(4, "the microphone is gone", fatal=True),
    TranscriptNotice(5, "agent", "It", final=True, interrupted=True),
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(out: io.StringIO) -> str:
    console = Console(out)
    for notice in NOTICES:
        console.watch(notice)
    return out.getvalue()


def test_a_pipe_gets_final_lines_only() -> None:
    assert shown(io.StringIO()).splitlines() == [
        "you   > What is it?",
        "      ! the voice stumbled",
        "agent > It (interrupted)",
    ]


def test_a_terminal_sees_one_line_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "16")
    text = shown(Terminal())
    lines = [line.split("\r\x1b[K") for line in text.split("\n")]
    assert lines[0] == ["", "…   (listening)", "you   … What", "you   > What is it?"]
    assert lines[1] == ["", "agent … It is", "      ! the voice stumbled"]
    assert lines[2][-1] == "agent > It (interrupted)"


def test_less_work_and_all_of_it_again_are_lines() -> None:
    out = io.StringIO()
    console = Console(out)
    figures = ("speculation", "response_ms", 1840.0, 1500.0)
    console.watch(LoadNotice(1, "down", *figures, "first sound after 1840 ms", ("speculation",)))
    console.watch(LoadNotice(2, "up", *figures, "first sound after 600 ms"))
    step = "answers are not begun before the turn is over"
    assert out.getvalue().splitlines() == [
        f"      ! less work: {step} (first sound after 1840 ms)",
        f"      ! no longer: {step} (first sound after 600 ms)",
    ]


def test_a_long_partial_shows_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    out = Terminal()
    Console(out).watch(TranscriptNotice(1, "user", "one two three four five", final=False))
    assert out.getvalue().removeprefix("\r\x1b[K") == "…wo three four five"


def test_the_table_has_a_row_a_turn_and_medians() -> None:
    notices: list[Notice] = []
    for turn, sound in enumerate((400.0, 600.0, 500.0), 1):
        notices.append(TranscriptNotice(1, "user", "x", final=True))
        notices.append(MetricsNotice(2, turn, {"endpoint": 300.0, "first_sound": sound}))
    table = spans_table(ExchangeLog.of(notices).exchanges).splitlines()
    assert len(table) == 2 + 3 + 1
    assert table[1].split()[0] == "turn"
    assert table[3].split() == ["2", "300", "-", "-", "-", "600"]
    assert table[-1].split() == ["p50", "300", "-", "-", "-", "500"]
    assert len({len(line) for line in table[1:]}) == 1
