"""The client of an OpenAI-compatible server, against a real HTTP server on loopback."""

from __future__ import annotations

import dataclasses
import socket
import threading
import time
from typing import Any

import pytest
from chat_server import ChatServer

from edgevoice.engines.language_model import load_language_model
from edgevoice.errors import ConfigError, EngineError
from edgevoice.settings import LanguageModelSettings
from edgevoice.stages import Message, never

ASK = [Message("system", "Be short."), Message("user", "Hello?")]
SCRIPT = {"Hello?": "Good morning, café ☕ and all."}


def answer(endpoint: str, cancelled: Any = never, **changes: Any) -> str:
    settings = dataclasses.replace(
        LanguageModelSettings(endpoint=endpoint, endpoint_model="tiny"), **changes
    )
    conversation = load_language_model(None, settings).open()
    return "".join(conversation.generate(ASK, cancelled))


def test_the_request_says_what_was_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARE_KEY", "sesame")
    with ChatServer(SCRIPT) as server:
        text = answer(
            server.endpoint, max_answer_tokens=33, temperature=0.5, api_key_env="SPARE_KEY"
        )
        assert text == SCRIPT["Hello?"]
        (asked,) = server.requests
        assert asked["path"] == "/v1/chat/completions"
        assert asked["messages"] == [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "Hello?"},
        ]
        assert (asked["model"], asked["max_tokens"], asked["temperature"]) == ("tiny", 33, 0.5)
        assert asked["stream"] is True
        assert server.headers[0]["Authorization"] == "Bearer sesame"


def test_a_missing_key_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPARE_KEY", raising=False)
    with pytest.raises(ConfigError, match="SPARE_KEY, which is not set"):
        answer("http://127.0.0.1:1/v1", api_key_env="SPARE_KEY")


@pytest.mark.parametrize("endpoint", ["localhost:80", "ftp://127.0.0.1/v1", "http://h:port/v1"])
def test_an_endpoint_that_is_no_url_is_refused(endpoint: str) -> None:
    with pytest.raises(ConfigError, match=r"language_model\.endpoint"):
        answer(endpoint)


def test_nobody_listening() -> None:
    with socket.socket() as spare:
        spare.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{spare.getsockname()[1]}/v1"
        with pytest.raises(EngineError, match="refused; is the server running there"):
            answer(endpoint)


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, b'{"error": {"message": "Incorrect API key"}}', "HTTP 401.*: Incorrect API key$"),
        (404, b'{"detail": "model not found"}', "HTTP 404.*: model not found$"),
        (500, b"<html>\n oops </html>", "HTTP 500.*: <html> oops </html>$"),
        (503, b'{"error": "loading"}', "HTTP 503.*: loading$"),
    ],
)
def test_http_errors_carry_the_servers_words(status: int, body: bytes, said: str) -> None:
    with ChatServer({}, status=status, body=body) as server:
        with pytest.raises(EngineError, match=said) as caught:
            answer(server.endpoint)
        assert "\n" not in str(caught.value)


def test_an_answer_that_is_no_stream() -> None:
    page = ChatServer({}, body=b"<html></html>", content_type="text/html")
    said = "'text/html', text/event-stream was expected"
    with page as server, pytest.raises(EngineError, match=said):
        answer(server.endpoint)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"data: {broken", "not a chat completion chunk: '{broken'"),
        (b"data: [1]", "not a chat completion chunk"),
        (b'data: {"choices": 3}', "not a chat completion chunk"),
        (b'data: {"error": {"message": "out of memory"}}', ": out of memory$"),
        (b'data: {"choices": [{"delta": {"content": "Go"}}]}', "broke off before"),
    ],
)
def test_broken_streams(line: bytes, said: str) -> None:
    with ChatServer({}, raw=[line]) as server, pytest.raises(EngineError, match=said):
        answer(server.endpoint)


def test_a_stream_that_stalls_ends_at_the_timeout() -> None:
    first = b'data: {"choices": [{"delta": {"content": "Go"}}]}'
    with ChatServer({}, raw=[first], stalls=True) as server:
        settings = LanguageModelSettings(endpoint=server.endpoint, timeout_s=1.0)
        pieces = load_language_model(None, settings).open().generate(ASK)
        assert next(pieces) == "Go"
        with pytest.raises(EngineError, match="nothing came for 1 s"):
            next(pieces)
        assert server.hung_up.wait(10)


def test_a_cancel_hangs_up_on_a_silent_server() -> None:
    with ChatServer({}, raw=[], stalls=True) as server:
        cancel = threading.Event()
        threading.Timer(0.1, cancel.set).start()
        begun = time.monotonic()
        assert answer(server.endpoint, cancel.is_set) == ""
        assert time.monotonic() - begun < 5  # the timeout is 30
        assert server.hung_up.wait(10)


def test_tokens_are_estimated_at_four_characters() -> None:
    conversation = load_language_model(
        None, LanguageModelSettings(endpoint="http://127.0.0.1:1/v1")
    ).open()
    assert conversation.count_tokens([Message("user", "x" * 40)]) == 14
    assert conversation.prefill(ASK) == 0


def test_neither_weights_nor_endpoint() -> None:
    with pytest.raises(ConfigError, match="no language model"):
        load_language_model(None, LanguageModelSettings())
