import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevoice.engines.clauses import ClauseSplitter, Limits, clauses

ALPHABET = "abcA. ,;:!?-—…\n\"')1`~。，  "


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("The capital of France is Paris.", ["The capital of France is Paris."]),
        ("Yes, of course, I can. Really.", ["Yes, of course,", "I can.", "Really."]),
        ("Yes. It is.", ["Yes.", "It is."]),
        ("Dr. Smith and J. Doe paid 3.14 euros, e.g. on Monday, then left. Bye.",
         ["Dr. Smith and J. Doe paid 3.14 euros,", "e.g. on Monday, then left.", "Bye."]),
        ("At 10:30 we go: all of us. Ok", ["At 10:30 we go:", "all of us.", "Ok"]),
        ("1. Eat. 2. Sleep.", ["1. Eat.", "2. Sleep."]),
        ('He said "go!" Then left.', ['He said "go!"', "Then left."]),
        ("one two three four five six seven and eight nine ten eleven",
         ["one two three four five six seven", "and eight nine ten eleven"]),
        ("a1 a2 a3 a4 a5 a6 a7 a8 a9 a10 a11 a12",
         ["a1 a2 a3 a4 a5 a6 a7 a8", "a9 a10 a11 a12"]),
        ("- one\n- two\n", ["- one", "- two"]),
        ("Look, a. ```x = 1. y = 2.\n\nz``` Done. Ok",
         ["Look, a.", "```x = 1. y = 2.\n\nz``` Done.", "Ok"]),
        ("你好，我是助手。很高兴见到你。", ["你好，我是助手。", "很高兴见到你。"]),
        ("A word—another word. End", ["A word—", "another word.", "End"]),
        ("", []),
        (" \n ", []),
    ],
)  # fmt: skip
def test_pieces(text: str, pieces: list[str]) -> None:
    assert list(clauses([text])) == pieces


def test_first_clause_stands_before_the_sentence_ends() -> None:
    splitter = ClauseSplitter()
    seen = [(word, splitter.feed(word)) for word in ["Well, ", "you ", "know, ", "it ", "is "]]
    assert seen[2] == ("know, ", ["Well, you know,"])
    assert [pieces for _, pieces in seen if pieces] == [["Well, you know,"]]
    assert splitter.flush() == ["it is"]


def test_later_long_sentences_are_cut_at_a_mark() -> None:
    text = "Start here. " + "word " * 17 + "end, " + "more " * 5 + "done."
    pieces = list(clauses([text]))
    assert pieces[0] == "Start here."
    assert pieces[1].endswith("end,")


def test_limits_are_settings() -> None:
    assert list(clauses(["One, two."], Limits(first_words=1))) == ["One,", "two."]


def test_flush_starts_anew() -> None:
    splitter = ClauseSplitter()
    splitter.feed("One ``` open")
    assert splitter.flush() == ["One ``` open"]
    assert splitter.feed("Yes, sir, ") == ["Yes, sir,"]


def test_marks_alone_do_not_use_up_the_first_clause() -> None:
    assert list(clauses(["... \nYes, of course, sir."]))[1] == "Yes, of course,"


@given(st.text(alphabet=ALPHABET, max_size=300))
def test_nothing_is_lost_or_added(text: str) -> None:
    assert "".join("".join(clauses([text])).split()) == "".join(text.split())


@given(st.text(alphabet=ALPHABET, max_size=200), st.data())
def test_cuts_do_not_depend_on_the_stream(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)))))
    stream = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert list(clauses(stream)) == list(clauses([text]))


@given(st.lists(st.sampled_from(["alpha", "beta", "and", "of"]), min_size=1, max_size=200))
def test_no_piece_is_long_without_marks(words: list[str]) -> None:
    pieces = list(clauses([" ".join(words)]))
    assert len(pieces[0].split()) <= 10
    assert all(len(piece.split()) <= 32 for piece in pieces)
