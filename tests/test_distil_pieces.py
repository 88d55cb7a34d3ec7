"""Pieces of words: learned, spelled, trained on, and written by sherpa-onnx itself."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_wenet import load, planted, scores

from edgevoice.engines import lexicon
from edgevoice.engines.ctc_tokens import Speller
from edgevoice.errors import ConfigError, ExportError, MissingDependencyError
from edgevoice.export.distil import alphabet, lexicon_making, pieces, sentences, shards, spelling
from edgevoice.export.distil.alphabet import Alphabet, least_frames
from edgevoice.export.distil.augment import Augmentation
from edgevoice.export.distil.batches import Batches
from edgevoice.export.distil.sentences import transcript
from edgevoice.export.distil.shards import Line

LETTERS = "'abcdefghijklmnopqrstuvwxyz"


def requests(count: int) -> list[str]:
    source = sentences.own("requests")
    return [transcript(source.draw(np.random.default_rng(seed))) for seed in range(count)]


@pytest.fixture(scope="module")
def learned() -> Alphabet:
    return pieces.learn(requests(1500), LETTERS, 300)


def test_pieces_are_learned_in_order_and_every_letter_is_one(learned: Alphabet) -> None:
    assert len(learned.tokens) == len(set(learned.tokens)) == 300
    assert learned.tokens[0] == "<blk>"
    assert learned.tokens[1:28] == tuple("▁" + letter for letter in LETTERS)
    assert learned.tokens[28:55] == tuple(LETTERS)
    assert "▁the" in learned.tokens and "ing" in learned.tokens
    # A piece is of two that were there before it; ▁ only begins one.
    for number, piece in enumerate(learned.tokens[55:], 55):
        before = set(learned.tokens[:number])
        assert any({piece[:at], piece[at:]} <= before for at in range(1, len(piece)))
        assert "▁" not in piece[1:]
    assert learned.summary() == "300 pieces of 27 letters"
    assert pieces.learn(requests(1500), LETTERS, 300).tokens == learned.tokens


def test_words_are_spelled_as_the_pieces_were_learned(learned: Alphabet) -> None:
    text = requests(60)
    for line in text:
        assert learned.decode(_with_blanks(learned.encode(line))) == line
    # What is joined last is a word that is often said.
    assert len(learned.encode("the")) == 1
    letters = sum(map(len, text))
    assert sum(len(learned.encode(line)) for line in text) < 0.5 * letters
    assert learned.between == [] and not learned.covers("naïve") and learned.covers("to be")


def _with_blanks(numbers: list[int]) -> list[int]:
    return [number for one in numbers for number in (one, one, 0)]


@given(st.lists(st.text(LETTERS, min_size=1, max_size=12), min_size=1, max_size=4))
@settings(max_examples=100, deadline=None)
def test_any_word_can_be_spelled(words: list[str]) -> None:
    text = " ".join(words)
    for kind in (alphabet.of(LETTERS), _FEW):
        assert kind.decode(_with_blanks(kind.encode(text))) == text


_FEW = Alphabet(("<blk>", *("▁" + x for x in LETTERS), *LETTERS, "▁th", "an", "anan", "▁than"))


def test_of_pieces_that_fit_the_first_learned_is_joined() -> None:
    # ▁th and an before ▁than; anan of an and an.
    assert [_FEW.tokens[n] for n in _FEW.encode("than banan a")] == ["▁than", "▁b", "anan", "▁a"]
    speller = Speller(("<blk>", "▁a", "▁b", "a", "b", "ab", "▁aa"))
    assert speller.spell("aab") == [1, 5]  # ab was learned before ▁aa


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("words", r"--tokens words: characters, or bpe:N with the number of pieces, as bpe:500"),
        ("bpe:", "--tokens bpe:: characters"),
        ("bpe:many", "--tokens bpe:many: characters"),
        ("bpe:0", "--tokens bpe:0: characters"),
        ("bpe:-3", "--tokens bpe:-3: characters"),
    ],
)
def test_tokens_that_cannot_be_asked_for(asked: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        pieces.parse(asked)
    assert "\n" not in str(raised.value)


def test_the_kinds_of_tokens() -> None:
    assert pieces.parse("characters") == 0
    assert pieces.parse("bpe:500") == 500


def test_too_few_and_too_many_pieces_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"bpe:55: 27 letters, .* are 55 already; ask for more"):
        pieces.learn(requests(10), LETTERS, 55)
    with pytest.raises(ConfigError, match=r"bpe:5000: the transcripts have (\d+) pieces") as raised:
        pieces.learn(requests(200), LETTERS, 5000)
    said = int(str(raised.value).split(" have ")[1].split()[0])
    assert len(pieces.learn(requests(200), LETTERS, said).tokens) == said
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'edgevoice\[export\]'"):
        pieces.learn([], LETTERS, 60)


def speech(folder: Path, text: str, seconds: float) -> list[shards.Clip]:
    folder.mkdir()
    noise = np.random.default_rng(0).integers(-3000, 3000, int(16_000 * seconds), np.int16)
    shards.write(folder, 0, [(noise, Line(0, 0, text, str(n), "tests", "none")) for n in range(4)])
    return list(shards.clips(folder))


def test_clips_are_joined_with_what_stands_between_words(tmp_path: Path) -> None:
    clips = speech(tmp_path / "speech", "abba", 0.3)
    for tokens, spelled, between in (
        (("<blk>", "▁", "a", "b"), [2, 3, 3, 2], [1]),
        (("<blk>", "▁a", "▁b", "a", "b", "bb"), [1, 5, 3], []),
    ):
        batches = Batches(clips, Alphabet(tokens), batch_frames=2000, seed=0, how=Augmentation())
        batch = batches.batch(0)
        ends = np.cumsum(batch.target_lengths)
        found = [row.tolist() for row in np.split(batch.targets, ends[:-1])]
        assert max(map(len, batch.names)) > 1
        for names, numbers in zip(batch.names, found, strict=True):
            assert numbers == spelled + (between + spelled) * (len(names) - 1)


def test_a_clip_too_short_for_its_tokens_is_left_out(tmp_path: Path) -> None:
    letters, words = alphabet.of("abn"), Alphabet(("<blk>", "▁b", "▁a", "▁n", *"abn", "an", "anan"))
    text = "banan bana baan"
    assert least_frames(letters.encode(text)) == 16 and least_frames(words.encode(text)) == 8
    assert least_frames(letters.encode("baab")) == 5
    # A frame is 20 ms: 16 of them are 0.32 s.
    clips = speech(tmp_path / "short", text, 0.3)
    with pytest.raises(ExportError, match="too short for their words"):
        Batches(clips, letters, batch_frames=2000, seed=0, how=Augmentation())
    clips += speech(tmp_path / "good", "ab", 1.0) + speech(tmp_path / "other", "zoo", 1.0)
    clips += speech(tmp_path / "long", "ab", 17.0)
    others = {"with other letters": 4, "longer than 16 s": 4}
    for kind, left_out in ((letters, others | {"too short for its words": 4}), (words, others)):
        batches = Batches(clips, kind, batch_frames=2000, seed=0, how=Augmentation())
        assert batches.left_out == left_out


def test_sherpa_writes_pieces_as_words(learned: Alphabet, tmp_path: Path) -> None:
    for number, text in enumerate(["turn on the kitchen light", "zz top's quay", "a", "o'neill"]):
        rows = scores(text, learned.tokens, 0.99)
        model = load(planted(tmp_path / str(number), [rows], learned.tokens), None)
        recogniser = model.open()
        recogniser.accept(np.zeros(320 * (len(rows) + 8), np.float32))
        assert recogniser.conclude().text == text


def test_words_of_more_pieces_than_a_byte_counts(learned: Alphabet, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("\n".join(requests(300)))
    asked = lexicon_making.Request([(str(tmp_path / "text.txt"), 1.0)], worth_nats=1.0)
    made = lexicon_making.make(asked, learned.tokens).lexicon
    assert made.label.max() > 255
    lexicon.write(made, tmp_path / lexicon.FILE)
    assert np.array_equal(lexicon.read(tmp_path / lexicon.FILE).label, made.label)
    for number, text in enumerate(["what's the weather like", "turn on the light zorvex"]):
        rows = scores(text, learned.tokens, 0.8)
        model = load(planted(tmp_path / str(number), [rows], learned.tokens), made)
        recogniser = model.open()
        recogniser.accept(np.zeros(320 * (len(rows) + 8), np.float32))
        assert recogniser.conclude().text == text


def test_letters_of_other_scripts_are_pieces_too(tmp_path: Path) -> None:
    # Beyond ASCII a letter has several bytes; sherpa-onnx must not take them for bytes' pieces.
    for said in ("добрий день", "день größe", "ñandú ƙasa"):
        text = [said] * alphabet.LEAST
        letters = alphabet.letters_of(text)
        found = pieces.learn(text, letters, 2 * len(letters) + 5)
        rows = scores(said, found.tokens, 0.99)
        recogniser = load(planted(tmp_path / said, [rows], found.tokens), None).open()
        recogniser.accept(np.zeros(320 * (len(rows) + 8), np.float32))
        mistaken = alphabet.taken_for_bytes(letters)
        assert (recogniser.conclude().text == said) == (not mistaken)
        assert mistaken in said and bool(mistaken) == ("ƙ" in said)


def test_unknown_words_are_spelled_by_pieces_that_may_stand_there(learned: Alphabet) -> None:
    words = sorted({word for line in requests(200) for word in line.split()})
    for kind in (learned, alphabet.of(LETTERS)):
        model = spelling.learn(words, kind.tokens, 400)
        first, inside = model.log_probs[spelling.START,], model.log_probs[()]
        assert sum(map(np.exp, first.values())) == pytest.approx(1.0)
        assert sum(map(np.exp, inside.values())) == pytest.approx(1.0)
        if not kind.between:
            assert {kind.tokens[n][0] for n in first} == {"▁"}
            assert not any(kind.tokens[n].startswith("▁") for n in inside)
        for context, (shorter, log_weight) in model.back_off.items():
            seen = model.log_probs[context]
            unseen = set(inside) - set(seen)
            total = sum(map(np.exp, seen.values())) + np.exp(log_weight) * sum(
                np.exp(_log_prob(model, shorter, token)) for token in unseen
            )
            assert total == pytest.approx(1.0, abs=1e-6)


def _log_prob(model: spelling.Spelling, context: spelling.Context, token: int) -> float:
    if token in model.log_probs[context]:
        return model.log_probs[context][token]
    shorter, log_weight = model.back_off[context]
    return log_weight + _log_prob(model, shorter, token)
