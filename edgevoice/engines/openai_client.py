"""Answers from any OpenAI-compatible server (vLLM, llama-server...), for who outgrows the device.

Speaks ``POST {endpoint}/chat/completions`` with ``stream: true`` over the standard library's HTTP
client. Goes nowhere but to the endpoint that the user configured; proxies and redirects are not
followed. Repetition penalties are not part of that protocol, so the setting is not sent.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import os
import queue
import socket
import threading
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from typing import Any, Final

from edgevoice.errors import ConfigError, EngineError
from edgevoice.settings import LanguageModelSettings
from edgevoice.stages import Cancelled, Ending, Message, never

CHARACTERS_PER_TOKEN = 4
_TOKENS_PER_MESSAGE = 4
_POLL_S = 0.02  # how late a cancel is noticed while the server is silent
_BODY_LIMIT = 1 << 16
_LINE_LIMIT = 1 << 20
_END: Final = None


class OpenAiModel:
    """The configured server. Nothing is connected before the first answer."""

    def __init__(self, settings: LanguageModelSettings) -> None:
        """Check the endpoint.

        Raises:
            ConfigError: It is no http(s) URL, or the key's environment variable is not set.
        """
        url = urllib.parse.urlsplit(settings.endpoint)
        try:
            self.port = url.port
        except ValueError as error:
            raise ConfigError(f"language_model.endpoint {settings.endpoint!r}: {error}") from error
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ConfigError(
                f"language_model.endpoint {settings.endpoint!r} is not a server's base URL; "
                "write one like http://127.0.0.1:8080/v1"
            )
        self.secure = url.scheme == "https"
        self.host = url.hostname
        self.path = f"{url.path.rstrip('/')}/chat/completions"
        self.settings = settings
        self.headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        if settings.api_key_env:
            key = os.environ.get(settings.api_key_env)
            if not key:
                raise ConfigError(
                    f"language_model.api_key_env names {settings.api_key_env}, which is not set; "
                    "export it, or set api_key_env = ''"
                )
            self.headers["Authorization"] = f"Bearer {key}"

    def open(self) -> OpenAiConversation:
        """Start a conversation: the server keeps no state of ours, so this costs nothing."""
        return OpenAiConversation(self)

    def close(self) -> None:
        """Nothing to free."""


class OpenAiConversation:
    """Implements :class:`edgevoice.stages.LanguageModel`; every answer is one request."""

    def __init__(self, model: OpenAiModel) -> None:
        self._model = model
        self._open = True
        self.context_tokens = model.settings.context_tokens

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Estimate at 4 characters a token and 4 tokens a message: the server's tokenizer is its
        own affair.
        """
        return sum(
            _TOKENS_PER_MESSAGE + math.ceil(len(m.content) / CHARACTERS_PER_TOKEN) for m in messages
        )

    def prefill(self, messages: Sequence[Message], cancelled: Cancelled = never) -> int:
        """Do nothing and return 0: the protocol has no request that only reads."""
        return 0

    def ending(self, messages: Sequence[Message], cancelled: Cancelled = never) -> Ending | None:
        """Return None: a server would have to be asked, and that takes longer than the wait."""
        return None

    def begin(self, messages: Sequence[Message], cancelled: Cancelled = never) -> Ending | None:
        """Return None, as :meth:`ending`."""
        return None

    def generate(self, messages: Sequence[Message], cancelled: Cancelled = never) -> Iterator[str]:
        """Yield the server's answer as it streams; a cancel or ``close()`` hangs up.

        Raises:
            EngineError: No connection, an HTTP error (with the server's own words), a stream that
                stalls for ``timeout_s``, breaks off or is not what the protocol says.
        """
        if not self._open:
            raise EngineError("this conversation is closed; open another")
        if cancelled():
            return
        request = _Request(self._model, messages)
        try:
            while (data := request.next_event(cancelled)) is not _END:
                if text := _text_of(data, self._model.settings.endpoint):
                    yield text
                if cancelled():
                    return
        finally:
            request.hang_up()

    def close(self) -> None:
        """End the conversation. May be called more than once."""
        self._open = False


class _Request:
    """One request in flight. Its thread blocks on the socket so that a cancel need not."""

    def __init__(self, model: OpenAiModel, messages: Sequence[Message]) -> None:
        self._model = model
        settings = model.settings
        kind = http.client.HTTPSConnection if model.secure else http.client.HTTPConnection
        self._connection = kind(model.host, model.port, timeout=settings.timeout_s)
        self._body = json.dumps(
            {
                "model": settings.endpoint_model,
                "messages": [{"role": m.role, "content": m.content} for m in messages],
                "stream": True,
                "max_tokens": settings.max_answer_tokens,
                "temperature": settings.temperature,
                "top_p": settings.top_p,
            }
        )
        # Bounded by max_tokens of the server; a slow reader must not lose pieces.
        self._events: queue.Queue[str | EngineError | None] = queue.Queue()
        self._hung_up = threading.Event()
        self._socket: socket.socket | None = None
        threading.Thread(target=self._run, name="openai-client", daemon=True).start()

    def next_event(self, cancelled: Cancelled) -> str | None:
        """Return the next event's data, None at the end or when cancelled."""
        timeout_s = self._model.settings.timeout_s
        deadline = time.monotonic() + timeout_s
        while not cancelled():
            with contextlib.suppress(queue.Empty):
                event = self._events.get(timeout=_POLL_S)
                if isinstance(event, EngineError):
                    raise event
                return event
            # Comments that keep a connection alive reset the socket's own timeout, not this one.
            if time.monotonic() > deadline:
                raise EngineError(self._stalled())
        return _END

    def hang_up(self) -> None:
        """Close the socket, which wakes the thread that reads from it."""
        self._hung_up.set()
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        try:
            self._stream()
        except EngineError as error:
            self._events.put(error)
        except TimeoutError:
            self._events.put(EngineError(self._stalled()))
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            self._events.put(
                EngineError(
                    f"{self._model.settings.endpoint}: {reason}; is the server running there?"
                )
            )
        finally:
            self._connection.close()

    def _stream(self) -> None:
        endpoint = self._model.settings.endpoint
        self._connection.connect()
        # Kept here, since a response that ends with its connection takes the socket with it.
        self._socket = self._connection.sock
        if self._hung_up.is_set():  # before there was a socket to shut
            return
        self._connection.request("POST", self._model.path, self._body, self._model.headers)
        response = self._connection.getresponse()
        if response.status != http.client.OK:
            said = _reason(response.read(_BODY_LIMIT))
            raise EngineError(f"{endpoint}: HTTP {response.status} {response.reason}: {said}")
        if "event-stream" not in (kind := response.getheader("Content-Type", "")):
            raise EngineError(
                f"{endpoint}: the answer is {kind!r}, text/event-stream was expected; "
                "is this an OpenAI-compatible server that can stream?"
            )
        while line := response.readline(_LINE_LIMIT):
            field, _, value = line.decode("utf-8", "replace").strip().partition(":")
            if field != "data":
                continue  # comments, event names, blank lines
            if value.strip() == "[DONE]":
                self._events.put(_END)
                return
            self._events.put(value.strip())
        raise EngineError(f"{endpoint}: the stream broke off before its [DONE]")

    def _stalled(self) -> str:
        settings = self._model.settings
        return (
            f"{settings.endpoint}: nothing came for {settings.timeout_s:g} s; "
            "the server is stuck, or language_model.timeout_s is too short for it"
        )


def _text_of(data: str, endpoint: str) -> str:
    """Take the new text out of one ``chat.completion.chunk``; "" where it brings none."""
    try:
        chunk: Any = json.loads(data)
        if "error" in chunk:
            raise EngineError(f"{endpoint}: {_reason(data.encode())}")
        choices = chunk["choices"]
        text = (choices[0].get("delta") or {}).get("content") if choices else ""
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise EngineError(
            f"{endpoint}: not a chat completion chunk: {data[:80]!r} ({type(error).__name__})"
        ) from error
    return text if isinstance(text, str) else ""


def _reason(body: bytes) -> str:
    """Find a server's own words in an error body: JSON of several shapes, or text."""
    text = body.decode("utf-8", "replace").strip()
    with contextlib.suppress(ValueError):
        found: Any = json.loads(text)
        for key in ("error", "message", "detail"):
            if isinstance(found, dict) and found.get(key):
                found = found[key]
        text = found if isinstance(found, str) else json.dumps(found)
    return " ".join(text.split())[:200] or "no further words"
