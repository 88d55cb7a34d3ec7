"""Word errors, beside the reference that the conversation benchmark uses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from voicebench.wer import edit_distance, normalize

from edgevoice.export.words import normalise, spelled, word_errors

TEXT = st.text(alphabet="abAB '.,-!?é’\n", max_size=30)
WORDS = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=8)


@given(TEXT.filter(lambda t: "’" not in t))
def test_words_are_those_of_voicebench(text: str) -> None:
    assert list(normalise(text)) == normalize(text)


@given(WORDS, WORDS)
def test_errors_are_those_of_voicebench(said: list[str], heard: list[str]) -> None:
    assert word_errors(said, heard) == edit_distance(said, heard) == word_errors(heard, said)


@given(WORDS, WORDS, WORDS)
def test_a_disagreement_bounds_the_change_of_the_error(
    said: list[str], one: list[str], other: list[str]
) -> None:
    change = abs(word_errors(said, one) - word_errors(said, other))
    assert change <= word_errors(one, other)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don’t!", ("don't",)),
        ("今天天气 good", ("今", "天", "天", "气", "good")),
        ("１２ Ｋ", ("12", "k")),
        ("...", ()),
    ],
)
def test_other_scripts_and_signs(text: str, words: tuple[str, ...]) -> None:
    assert normalise(text) == words


def test_figures_are_words() -> None:
    assert spelled("Ten minutes to 42, then go.") == spelled("10 minutes to forty-two then Go!")
    assert word_errors(spelled("one two three"), ()) == 3
