"""Scripted conversations on the virtual clock: one test a block of `conversations.txt`."""

from __future__ import annotations

from pathlib import Path

import pytest
from conversation_script import play

_TEXT = (Path(__file__).parent / "conversations.txt").read_text(encoding="utf-8")
CASES = {
    name.strip(): script
    for name, _, script in (block.partition("\n") for block in _TEXT.split("\n== ")[1:])
}


@pytest.mark.parametrize("name", CASES)
def test_conversation(name: str) -> None:
    play(CASES[name])


def test_there_are_as_many_cases_as_blocks() -> None:
    assert len(CASES) == _TEXT.count("\n== ") >= 60


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ("user: another question\nagent: one two three four five six seven eight", "history"),
        ("at a1+500 listening", "is not so"),
        ("has interrupted", "interrupted"),
    ],
)
def test_a_script_that_expects_what_does_not_happen_fails(wrong: str, complaint: str) -> None:
    right = "user: hello there\nagent: one two three four five six seven eight"
    script = f'user 0 800 "hello there"\n{wrong if "user:" in wrong else right}\n'
    if "user:" not in wrong:
        script += wrong
    with pytest.raises(AssertionError, match=complaint):
        play(script)
