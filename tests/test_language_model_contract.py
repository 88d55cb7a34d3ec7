"""What every language model must do: both local engines, the client of a server, and the fake."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny_llm
from chat_server import ChatServer
from fakes import ScriptedLanguageModelModel

from edgevoice.engines import gguf, onnx_llm
from edgevoice.engines.language_model import load_language_model
from edgevoice.errors import EngineError
from edgevoice.settings import LanguageModelSettings
from edgevoice.stages import LanguageModel, LanguageModelModel, Message

SYSTEM = Message("system", LanguageModelSettings().system_prompt)
FRANCE = [SYSTEM, Message("user", "What is the capital of France?")]
WEEK = [SYSTEM, Message("user", "How many days are there in a week?")]
SCRIPT = {
    FRANCE[1].content: "The capital of France is Paris.",
    WEEK[1].content: "There are seven days in a week.",
}
SETTINGS = LanguageModelSettings(context_tokens=512, threads=1, max_answer_tokens=24)


@pytest.fixture(scope="module", params=["gguf", "onnx", "server", "fake"])
def model(
    request: pytest.FixtureRequest,
    artifact: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[LanguageModelModel]:
    if request.param == "gguf":
        real = gguf.load(artifact(SETTINGS.model), SETTINGS)
        yield real
        real.close()
    elif request.param == "onnx":
        folder = tiny_llm.publish_answering(tmp_path_factory.mktemp("onnx") / "tiny")
        built = onnx_llm.load(folder, SETTINGS)
        yield built
        built.close()
    elif request.param == "server":
        with ChatServer(SCRIPT) as server:
            settings = LanguageModelSettings(endpoint=server.endpoint, context_tokens=512)
            yield load_language_model(None, settings)
    else:
        yield ScriptedLanguageModelModel(SCRIPT)


@pytest.fixture
def conversation(model: LanguageModelModel) -> Iterator[LanguageModel]:
    opened = model.open()
    yield opened
    opened.close()


def test_the_answer_comes_in_pieces(conversation: LanguageModel) -> None:
    pieces = list(conversation.generate(FRANCE))
    assert len(pieces) > 3
    assert all(pieces)
    assert "Paris" in "".join(pieces)


def test_the_same_question_has_the_same_answer(conversation: LanguageModel) -> None:
    first = "".join(conversation.generate(FRANCE))
    "".join(conversation.generate(WEEK))
    assert "".join(conversation.generate(FRANCE)) == first


def test_prefilling_does_not_change_the_answer(model: LanguageModelModel) -> None:
    plain, fed = model.open(), model.open()
    for partial in ("What", "What is the cap", "What is the capital of France?"):
        fed.prefill([SYSTEM, Message("user", partial)])
    assert list(fed.generate(FRANCE)) == list(plain.generate(FRANCE))
    plain.close()
    fed.close()


def test_what_was_read_is_not_read_again(conversation: LanguageModel) -> None:
    conversation.prefill(FRANCE)
    assert conversation.prefill(FRANCE) == 0


def test_an_ending_has_a_probability_or_cannot_be_judged(conversation: LanguageModel) -> None:
    texts = ("What is the capital of France?", "What is the capital of.")
    judged = [conversation.ending([Message("user", text)]) for text in texts]
    assert len({ending is None for ending in judged}) == 1, "a model can judge, or it cannot"
    assert all(0.0 <= ending.probability <= 1.0 for ending in judged if ending)
    assert conversation.ending([Message("user", "Hello there you.")], lambda: True) is None
    assert conversation.begin([Message("user", "Hello there you.")], lambda: True) is None


def test_an_answer_that_is_begun_is_judged_by_the_same_words(model: LanguageModelModel) -> None:
    begun, judged = model.open(), model.open()
    beside = begun.begin(FRANCE), judged.ending(FRANCE)
    assert (beside[0] is None) == (beside[1] is None)
    if beside[0] is not None and beside[1] is not None:
        # A larger batch rounds otherwise.
        assert beside[0].probability == pytest.approx(beside[1].probability, rel=0.1)
        assert beside[0].evaluated_tokens >= beside[1].evaluated_tokens
    assert list(begun.generate(FRANCE)) == list(judged.generate(FRANCE))
    begun.close()
    judged.close()


def test_trained_weights_tell_a_message_that_is_over(artifact: Callable[[str], Path]) -> None:
    trained = gguf.load(artifact(SETTINGS.model), SETTINGS)
    conversation = trained.open()
    over = conversation.ending([Message("user", "What is the capital of France?")])
    cut = conversation.ending([Message("user", "What is the capital of.")])
    conversation.close()
    trained.close()
    assert over and cut
    assert cut.probability < 0.06
    assert over.probability > 0.1


def test_judging_an_ending_changes_nothing_and_costs_no_reading(model: LanguageModelModel) -> None:
    asked = [Message("user", "What is the capital of France?")]
    plain, judging = model.open(), model.open()
    read = plain.prefill(asked)
    judged = judging.ending(asked)
    ahead = judged.evaluated_tokens if judged else 0
    assert ahead + judging.prefill(asked) <= read + 1
    assert list(judging.generate(asked)) == list(plain.generate(asked))
    plain.close()
    judging.close()


def test_a_cancel_before_the_start_gives_nothing(conversation: LanguageModel) -> None:
    assert list(conversation.generate(FRANCE, lambda: True)) == []
    assert conversation.prefill(FRANCE, lambda: True) == 0


def test_a_cancel_stops_within_one_piece(conversation: LanguageModel) -> None:
    pieces: list[str] = []
    for piece in conversation.generate(FRANCE, lambda: len(pieces) == 2):
        pieces.append(piece)
    assert len(pieces) == 2


def test_an_answer_closed_early_leaves_the_next_one_whole(conversation: LanguageModel) -> None:
    answer = iter(conversation.generate(WEEK))
    next(answer)
    answer.close()  # type: ignore[attr-defined]
    assert "Paris" in "".join(conversation.generate(FRANCE))


def test_counts_grow_with_the_messages(conversation: LanguageModel) -> None:
    assert 0 < conversation.count_tokens([SYSTEM]) < conversation.count_tokens(FRANCE)
    assert conversation.count_tokens(FRANCE) < conversation.context_tokens


def test_two_conversations_do_not_mix(model: LanguageModelModel) -> None:
    left, right = model.open(), model.open()
    answers: dict[str, str] = {"left": "", "right": ""}
    streams = {"left": left.generate(FRANCE), "right": right.generate(WEEK)}
    while streams:
        for name, stream in list(streams.items()):
            piece = next(stream, None)
            if piece is None:
                del streams[name]
            else:
                answers[name] += piece
    assert answers["left"] == "".join(left.generate(FRANCE))
    assert answers["right"] == "".join(right.generate(WEEK))
    assert answers["left"] != answers["right"]
    left.close()
    right.close()


def test_a_closed_conversation_says_so(model: LanguageModelModel) -> None:
    closed = model.open()
    closed.close()
    closed.close()
    with pytest.raises(EngineError, match="closed"):
        list(closed.generate(FRANCE))
