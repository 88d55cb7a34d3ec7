import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevoice.engines.speakable import speakable


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("**Sure!** 😀 See [the shop](https://example.com/x).", "Sure! See the shop."),
        ("# Title\n\n- one\n- two\n* **three**", "Title, one, two, three"),
        ("1. First\n2. Second", "1. First. 2. Second"),
        ("Run `ls -l` now", "Run ls -l now"),
        ("Code:\n```python\nprint(1)\n```\nDone.", "Code: Done."),
        ("```python\nprint(1)", ""),
        ("Visit https://www.example.com/a/b?c=d#e. Bye", "Visit example dot com. Bye"),
        ("or www.example.org/x, say", "or example dot org, say"),
        ("Mail jo.doe@example.com", "Mail jo dot doe at example dot com"),
        ("a|b\n|---|---|\n1|2", "a, b. 1, 2"),
        ("<b>bold</b> move", "bold move"),
        ("_so_ snake_case", "so snake case"),
        ("2*3 and 4 × 5", "2 times 3 and 4 times 5"),
        ("It is 20°C & 50%", "It is 20 degrees Celsius & 50%"),
        ("$3.50, £1, €0.99, $5.", "3 dollars 50, 1 pound, 99 cents, 5 dollars."),
        ("$1,200 or $3.5 million or $2k",
         "1,200 dollars or 3.5 million dollars or 2 thousand dollars"),
        ("5–6 p.m.", "5 to 6 p.m."),
        ("Dr. No vs. Mr. Yes, e.g. now", "Doctor No versus Mister Yes, for example now"),
        ("“Quoted” — it’s…", '"Quoted" — it\'s,'),
        ("Well... No.", "Well. No."),
        ("Nice :) indeed", "Nice indeed"),
        ("What?!?!", "What?"),
        ("see [a link, whose", "see a link, whose"),
        ("end is here](http://x.y/z) now", "end is here now"),
    ],
)  # fmt: skip
def test_what_is_written_becomes_what_is_said(written: str, said: str) -> None:
    assert speakable(written) == said


@pytest.mark.parametrize(
    "text", ["", " \n\t", "😀", "👍🏽🇫🇷", "!!!", "***", "---", "|---|", "\ud800"]
)
def test_nothing_speakable_is_empty(text: str) -> None:
    assert speakable(text) == ""


def test_other_languages_keep_their_signs() -> None:
    assert speakable("**5 €** für Dr. Weiß", "de") == "5 € für Dr. Weiß"


@given(st.text(max_size=200))
def test_never_fails_and_leaves_no_markup(text: str) -> None:
    said = speakable(text)
    assert not set(said) & set("*`[]{}<>|\n\0😀")
    assert said == said.strip()
    assert not said or any(c.isalnum() for c in said)


@given(st.text(alphabet="[]()`*_#<>|~!-: \nab.1$", max_size=400))
def test_broken_markdown_does_not_hang(text: str) -> None:
    assert isinstance(speakable(text), str)


def test_long_hostile_markdown_is_quick() -> None:
    for unit in ("[", "![", "`", "(", "<a ", "**", "_", "http://", "$1,", "a|", " ", "-", "# "):
        speakable(unit * 5000)
