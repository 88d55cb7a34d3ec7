"""A decoding graph from a dozen sentences: built, written, searched by sherpa-onnx itself.

In letters and in pieces of words alike.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from planted_wenet import load, planted, scores

from edgevoice.engines import lexicon, own_words
from edgevoice.engines.lexicon import Lexicon, Scales
from edgevoice.engines.sherpa_online import OnlineRecogniserModel
from edgevoice.errors import ArtifactError, ConfigError
from edgevoice.export.distil import (
    alphabet,
    graph_text,
    lexicon_graph,
    lexicon_making,
    pieces,
    word_ngrams,
)
from edgevoice.export.distil.alphabet import Alphabet
from edgevoice.export.distil.lexicon_making import Request

LETTERS = "'abcdefghijklmnopqrstuvwxyz"
TEXT = """turn on the light
turn off the light
turn on the light in the kitchen
turn off the radio in the hall
what time is it
what is the time in london
tell me a story
tell me the time
set a timer for ten minutes
set the timer for two minutes
play the radio
stop
"""


@pytest.fixture(scope="module", params=["letters", "pieces"])
def tokens(request: pytest.FixtureRequest) -> tuple[str, ...]:
    if request.param == "letters":
        return alphabet.of(LETTERS).tokens
    return pieces.learn(TEXT.splitlines() * alphabet.LEAST, LETTERS, 90).tokens


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tokens: Sequence[str]) -> lexicon_making.Made:
    folder = tmp_path_factory.mktemp("texts")
    (folder / "text.txt").write_text(TEXT)
    texts = [(str(folder / "text.txt"), 1.0)]
    return lexicon_making.make(Request(texts, worth_nats=0.1), tokens)


def heard(
    folder: Path,
    graph: Lexicon | None,
    said: tuple[str, float],
    tokens: Sequence[str],
    words: Sequence[str] = (),
) -> str:
    """What a recogniser writes that hears the text of `said` as surely as it says."""
    rows = scores(said[0], tokens, said[1])
    recogniser = load(planted(folder, [rows], tokens), graph, words).open()
    recogniser.accept(np.zeros(320 * (len(rows) + 8), np.float32))
    return recogniser.conclude().text


def test_a_spelling_is_repaired(
    made: lexicon_making.Made, tokens: Sequence[str], tmp_path: Path
) -> None:
    # A piece heard wrongly is another piece.
    wrong = "of the lihgt in" if "▁" in tokens else "off the light in"
    said = f"turn {wrong} the kitshen", 0.6
    assert heard(tmp_path / "tokens", None, said, tokens) == said[0]
    found = heard(tmp_path / "words", made.lexicon, said, tokens)
    assert found == "turn off the light in the kitchen"


def test_a_token_twice_needs_a_blank_between(
    made: lexicon_making.Made, tokens: Sequence[str], tmp_path: Path
) -> None:
    for said in ("tell me a story", "set a timer for ten minutes", "stop", "tell tell minutes"):
        assert heard(tmp_path / said, made.lexicon, (said, 0.99), tokens) == said


def test_an_unknown_name_can_be_written(
    made: lexicon_making.Made, tokens: Sequence[str], tmp_path: Path
) -> None:
    said = "tell marline the time", 0.95
    assert heard(tmp_path / "open", made.lexicon, said, tokens) == "tell marline the time"
    (tmp_path / "text.txt").write_text(TEXT)
    texts = [(str(tmp_path / "text.txt"), 1.0)]
    closed = lexicon_making.make(Request(texts, contexts=0), tokens)
    found = heard(tmp_path / "closed", closed.lexicon, said, tokens)
    assert set(found.split()) <= set(TEXT.split())


def test_own_words_are_preferred(
    made: lexicon_making.Made, tokens: Sequence[str], tmp_path: Path
) -> None:
    said = "turn on the light in the uttility rum", 0.55
    without = heard(tmp_path / "without", made.lexicon, said, tokens)
    assert "utility room" not in without
    found = heard(tmp_path / "with", made.lexicon, said, tokens, ["Utility Room", "Annika"])
    assert found == "turn on the light in the utility room"


def test_own_words_that_cannot_be_written_are_named(
    made: lexicon_making.Made, tokens: Sequence[str], tmp_path: Path
) -> None:
    folder = planted(tmp_path / "pack", [scores("stop", tokens)], tokens)
    with pytest.raises(ConfigError, match=r"recogniser.words: 'Zoë' has 'ë'; .* spell it"):
        load(folder, made.lexicon, ["Zoë"])
    with pytest.raises(ConfigError, match="' ' has no letters"):
        load(folder, made.lexicon, [" "])
    (folder / lexicon.FILE).unlink()
    with pytest.raises(ConfigError, match=r"'planted' has no lexicon\.npz and takes none"):
        load(folder, None, ["Zoe"])


def test_partials_come_inside_words(
    made: lexicon_making.Made, tokens: Sequence[str], tmp_path: Path
) -> None:
    # So slow that a chunk of 16 frames ends inside the second word.
    said = np.repeat(scores("two minutes", tokens, 0.95), 3, axis=0)
    model = load(planted(tmp_path / "pack", [said], tokens), made.lexicon)
    recogniser = model.open()
    seen = []
    for _ in range(24):
        recogniser.accept(np.zeros(1600, np.float32))
        if (partial := recogniser.partial()) is not None:
            seen.append(partial.text)
    assert any(text.startswith("two m") and text != seen[-1] for text in seen)
    assert recogniser.conclude().text == "two minutes"


def silence_to_endpoint_s(model: OnlineRecogniserModel, said_s: float) -> float:
    recogniser = model.open()
    fed_s = 0.0
    while not recogniser.endpoint():
        recogniser.accept(np.zeros(1600, np.float32))
        fed_s += 0.1
        assert fed_s < said_s + 10.0
    return fed_s - said_s


def test_endpoint_rules_mean_seconds(
    made: lexicon_making.Made, tokens: Sequence[str], tmp_path: Path
) -> None:
    said = scores("turn on the radio in the hall", tokens, 0.95)
    silent = scores("a", tokens, 0.9)[2:]
    late_s = 2 * 0.32 + 0.1
    with_words = silence_to_endpoint_s(
        load(planted(tmp_path / "words", [said], tokens), made.lexicon), len(said) * 0.02
    )
    assert 1.2 <= with_words <= 1.2 + late_s
    without = silence_to_endpoint_s(
        load(planted(tmp_path / "none", [silent], tokens), made.lexicon), 0.0
    )
    assert 2.4 <= without <= 2.4 + late_s


def test_reset_forgets(made: lexicon_making.Made, tokens: Sequence[str], tmp_path: Path) -> None:
    said = scores("what time is it", tokens, 0.95)
    recogniser = load(planted(tmp_path / "pack", [said], tokens), made.lexicon).open()
    for _ in range(2):  # the planted sound begins again
        recogniser.accept(np.zeros(320 * (len(said) + 8), np.float32))
        assert recogniser.conclude().text == "what time is it"
        recogniser.reset()
        assert recogniser.conclude().text == ""
        recogniser.reset()


def test_probabilities_sum_to_one() -> None:
    texts = [graph_text.Text(TEXT.splitlines(), 0.7)]
    words = graph_text.vocabulary(texts, 20, "'abcdefghijklmnopqrstuvwxyz")
    counts = word_ngrams.count(graph_text.numbered(texts, words), len(words), 3)
    orders = word_ngrams.smooth(counts, words, 0.1)
    for worth in ((0.0, 0.0), (0.5, 0.8)):
        model = word_ngrams.prune(orders, counts, words, worth)
        for history in ((), (0,), (2,), (2, 3), (3, 2), (1,)):
            total = sum(
                np.exp(word_ngrams.log_prob(model, history, word)) for word in range(1, len(words))
            )
            assert total == pytest.approx(1.0, abs=1e-6), (worth, history)
    assert len(orders[2].keys) > len(model.orders[2].keys) > 0


def least_cost(graph: Lexicon, text: str, tokens: Sequence[str]) -> float:
    """Of writing `text`, in nats, by following all arcs at once."""
    at = {lexicon.START: 0.0}

    def arcs(node: int) -> range:
        return range(graph.first[node], graph.first[node + 1])

    def fallen_back(found: dict[int, float]) -> dict[int, float]:
        todo = list(found)
        while todo:
            node = todo.pop()
            for arc in arcs(node):
                cost = found[node] + graph.cost[arc] / lexicon.COSTS_PER_NAT
                target = int(graph.target[arc])
                if graph.label[arc] == lexicon.EPSILON and cost < found.get(target, np.inf):
                    found[target] = cost
                    todo.append(target)
        return found

    letters = Alphabet(tokens)
    for token in letters.encode(text) + letters.between:
        after: dict[int, float] = {}
        for node, cost in fallen_back(at).items():
            for arc in arcs(node):
                if graph.label[arc] == token:
                    reached = cost + graph.cost[arc] / lexicon.COSTS_PER_NAT
                    target = int(graph.target[arc])
                    after[target] = min(reached, after.get(target, np.inf))
        at = after
    return min(cost for node, cost in fallen_back(at).items() if node < graph.roots)


@pytest.mark.parametrize("text", ["turn on the radio", "two minutes", "what is the time in london"])
def test_the_graph_costs_what_the_model_says(text: str, tokens: Sequence[str]) -> None:
    texts = [graph_text.Text(TEXT.splitlines(), 1.0)]
    words = graph_text.vocabulary(texts, 100, "abcdefghijklmnopqrstuvwxyz")
    counts = word_ngrams.count(graph_text.numbered(texts, words), len(words), 3)
    model = word_ngrams.prune(word_ngrams.smooth(counts, words, 0.1), counts, words, (0.0, 0.0))
    graph = lexicon_graph.build(model, None, tokens)
    numbers = [0, *(words.index(word) for word in text.split())]
    expected = -sum(
        word_ngrams.log_prob(model, numbers[max(0, at - 2) : at], numbers[at])
        for at in range(1, len(numbers))
    )
    # Costs are rounded; falling back though the longer history has the word may be cheaper.
    assert expected - 1.0 < least_cost(graph, text, tokens) < expected + 0.3


def test_what_is_written_is_read(
    made: lexicon_making.Made, tokens: Sequence[str], tmp_path: Path
) -> None:
    own = replace(made.lexicon, scales=Scales(0.5, 1.0, 2.0, 3.0))
    lexicon.write(own, tmp_path / "lexicon.npz")
    again = lexicon.read(tmp_path / "lexicon.npz")
    assert again.scales == own.scales and again.roots == own.roots and again.space == own.space
    for name in ("first", "label", "cost", "target"):
        np.testing.assert_array_equal(getattr(again, name), getattr(own, name))
    boosted = own_words.add(own, ["annika"], tokens)
    spelled = len(Alphabet(tokens).encode("annika"))
    assert len(boosted.label) == len(own.label) + spelled + 1
    assert boosted.nodes == own.nodes + spelled


def test_a_damaged_lexicon_is_one_line(
    made: lexicon_making.Made, tokens: Sequence[str], tmp_path: Path
) -> None:
    folder = planted(tmp_path / "pack", [scores("stop", tokens)], tokens)
    load(folder, made.lexicon)
    path = folder / lexicon.FILE
    whole = path.read_bytes()
    for content in (b"", b"no archive", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(ArtifactError, match=r"is no lexicon: .*again$"):
            load(folder, None)
    # sherpa-onnx follows arcs without looking where they lead.
    lexicon.write(replace(made.lexicon, target=made.lexicon.target + 10_000), path)
    with pytest.raises(ArtifactError, match="damaged lexicon"):
        load(folder, None)
    lexicon.write(replace(made.lexicon, space=2), path)
    with pytest.raises(ArtifactError, match="was made for other tokens"):
        load(folder, None)


def test_texts_and_weights(tmp_path: Path) -> None:
    path = tmp_path / "a=b.txt"
    path.write_text(TEXT)
    assert lexicon_making.parse(str(path)) == (str(path), 1.0)
    assert lexicon_making.parse(f"{path}=0.5") == (str(path), 0.5)
    assert lexicon_making.parse("requests=2") == ("requests", 2.0)
    for argument, said in (
        ("nowhere.txt", "no such file; name a text, or requests"),
        (f"{path}=0", "must be above 0"),
        (f"{path}=much", "must be above 0"),
    ):
        with pytest.raises(ConfigError, match=said):
            lexicon_making.parse(argument)


def test_words_beside_those_of_the_texts(tokens: Sequence[str], tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    (tmp_path / "words").write_text("Zebra\nzebra's\nmp\n")
    texts = [(str(tmp_path / "text.txt"), 1.0)]
    made = lexicon_making.make(Request(texts, tmp_path / "words", contexts=0), tokens)
    assert made.words == len(set(TEXT.split())) + 2
    assert least_cost(made.lexicon, "stop zebra", tokens) < 20


def test_the_command(
    tmp_path: Path, tokens: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    arguments = [str(tmp_path), "--text", str(tmp_path / "text.txt"), "--worth", "0.1"]
    assert lexicon_making.main(arguments) != 0
    assert "has no tokens.txt" in capsys.readouterr().err
    (tmp_path / "tokens.txt").write_text("".join(f"{t} {n}\n" for n, t in enumerate(tokens)))
    assert lexicon_making.main(arguments) == 0
    assert "MB unpacked" in capsys.readouterr().out
    usual = lexicon.read(tmp_path / lexicon.FILE).scales
    assert usual == Scales(blank=2.0 if "▁" in tokens else 3.0)
    assert lexicon_making.main([*arguments, "--word-cost", "0"]) == 0
    assert lexicon.read(tmp_path / lexicon.FILE).scales == replace(usual, word=0.0)
    assert lexicon.read(tmp_path / lexicon.FILE).nodes > 50
    foreign = "<blk> 0\n▁ 1\n▁th 2\ne 3\n"
    for content, message in ((foreign, "with ▁ alone and pieces"), ("a 0\n", "must be first")):
        (tmp_path / "tokens.txt").write_text(content)
        assert lexicon_making.main(arguments) != 0
        assert message in capsys.readouterr().err
    (tmp_path / "tokens.txt").write_text("".join(f"{t} {n}\n" for n, t in enumerate(tokens)))
    (tmp_path / "text.txt").write_text("12 34\n")
    assert lexicon_making.main(arguments) != 0
    assert capsys.readouterr().err.count("\n") == 1
