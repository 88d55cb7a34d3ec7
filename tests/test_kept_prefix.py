"""What the local engines share: llama.cpp on SmolLM2-135M, ONNX on a model built by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import tiny_llm

from edgevoice.engines import gguf, onnx_llm
from edgevoice.engines.gguf import GgufModel
from edgevoice.engines.kept_prefix import PREFILL_BATCH_TOKENS, KeptPrefixConversation
from edgevoice.engines.language_model import load_language_model
from edgevoice.engines.onnx_llm import OnnxModel
from edgevoice.errors import EngineError
from edgevoice.settings import LanguageModelSettings
from edgevoice.stages import Message

SETTINGS = LanguageModelSettings(context_tokens=512, threads=1, max_answer_tokens=24)
SYSTEM = Message("system", SETTINGS.system_prompt)
FRANCE = [SYSTEM, Message("user", "What is the capital of France?")]
Load = Callable[[Path, LanguageModelSettings], GgufModel | OnnxModel]


@pytest.fixture(scope="module", params=["gguf", "onnx"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def load(engine: str) -> Load:
    return gguf.load if engine == "gguf" else onnx_llm.load


@pytest.fixture(scope="module")
def folder(
    engine: str, artifact: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    if engine == "gguf":
        return artifact(SETTINGS.model)
    return tiny_llm.publish_answering(tmp_path_factory.mktemp("onnx") / "tiny")


@pytest.fixture(scope="module")
def model(folder: Path, load: Load) -> Iterator[GgufModel | OnnxModel]:
    loaded = load(folder, SETTINGS)
    yield loaded
    loaded.close()


@pytest.fixture
def conversation(model: GgufModel | OnnxModel) -> Iterator[KeptPrefixConversation]:
    opened = model.open()
    yield opened
    opened.close()


def test_a_cancel_inside_a_long_prefill_stops_at_the_next_batch(
    conversation: KeptPrefixConversation,
) -> None:
    long = [SYSTEM, Message("user", "one two three four five " * 8)]
    asked = 0

    def third_time() -> bool:
        nonlocal asked
        asked += 1
        return asked == 3

    assert conversation.prefill(long, third_time) == 2 * PREFILL_BATCH_TOKENS
    rest = conversation.count_tokens(long) - 2 * PREFILL_BATCH_TOKENS
    assert conversation.prefill(long) == rest


def test_a_cancel_stops_before_the_next_token(
    conversation: KeptPrefixConversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[list[int]] = []
    decode = conversation._decode

    def counted(tokens: list[int]) -> None:  # an answer's tokens one by one
        decoded.append(tokens)
        decode(tokens)

    conversation.prefill(FRANCE)
    monkeypatch.setattr(conversation, "_decode", counted)
    pieces: list[str] = []
    for piece in conversation.generate(FRANCE, lambda: len(pieces) >= 3):
        pieces.append(piece)
    assert len(pieces) == 3
    assert len(decoded) == 2


def test_the_batch_with_the_last_word_takes_what_follows(
    conversation: KeptPrefixConversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation.prefill([SYSTEM])
    read: list[int] = []
    decode = conversation._decode

    def counted(tokens: list[int], back: int = 0) -> None:
        read.append(len(tokens))
        decode(tokens, back)

    monkeypatch.setattr(conversation, "_decode", counted)
    turn = [SYSTEM, Message("user", "France?")]
    judged = conversation.begin(turn)
    assert judged is not None
    assert read[0] == min(PREFILL_BATCH_TOKENS, judged.evaluated_tokens)
    conversation.prefill(turn)
    assert len(read) == math.ceil(sum(read) / PREFILL_BATCH_TOKENS)


def test_an_overflow_is_an_error_with_both_numbers(conversation: KeptPrefixConversation) -> None:
    long = [Message("user", "word " * 600)]
    count = conversation.count_tokens(long)
    with pytest.raises(EngineError, match=f"{count} tokens .* context of 512"):
        conversation.prefill(long)
    with pytest.raises(EngineError, match=f"{count} tokens"):
        next(iter(conversation.generate(long)))
    assert "Paris" in "".join(conversation.generate(FRANCE))


def test_weights_outlive_their_owner_while_a_conversation_is_open(folder: Path, load: Load) -> None:
    model = load(folder, SETTINGS)
    conversation = model.open()
    model.close()
    model.close()
    assert "Paris" in "".join(conversation.generate(FRANCE))
    conversation.close()
    with pytest.raises(EngineError, match="closed"):
        model.open()


def test_the_factory_probes_and_then_loads_the_artifact(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEVOICE_HOME", str(tmp_path))
    model = load_language_model(folder, SETTINGS)
    assert len(list((tmp_path / "cache" / "loadable").iterdir())) == 1
    conversation = model.open()
    assert "Paris" in "".join(conversation.generate(FRANCE))
    conversation.close()
    model.close()


def test_an_answer_is_templated_once_with_its_mark_and_once_without(
    model: GgufModel | OnnxModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation = model.open()
    templated: list[str] = []
    prompt = conversation._vocabulary.prompt

    def counted(messages: Sequence[Message]) -> list[int]:
        templated.append(messages[-1].content)
        return prompt(messages)

    monkeypatch.setattr(conversation._vocabulary, "prompt", counted)
    conversation.ending([Message("user", "Hello.")])  # what the template puts behind is known now
    templated.clear()
    for asked in (FRANCE[1].content, "What is the capital of Spain?"):
        turn = [SYSTEM, Message("user", asked)]
        count = conversation.count_tokens(turn)
        assert conversation.ending(turn)
        conversation.prefill(turn)
        assert conversation.count_tokens(turn) == count == len(prompt(turn))
        list(conversation.generate(turn))
        assert templated == [asked, asked.rstrip("?")]
        templated.clear()
    conversation.close()
