"""The daemon over real WebSockets on loopback: conversations, bad input, and its life."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import http.client
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import (
    EnergyVadModel,
    HumSpeech,
    ScriptedLanguageModel,
    ScriptedLanguageModelModel,
    ScriptedRecogniserModel,
)
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from edgevoice import calls, runfile, service_manager
from edgevoice.audio.wav import read_wav
from edgevoice.cli import main
from edgevoice.config import override
from edgevoice.daemon import Daemon, is_loopback
from edgevoice.errors import ArtifactError, DaemonError
from edgevoice.load_governor import LoadGovernor
from edgevoice.load_policy import LoadRules, Step
from edgevoice.session import Session
from edgevoice.settings import Settings
from edgevoice.stages import Cancelled, LanguageModel, LanguageModelModel, Message, never
from edgevoice.tapes import Tapes
from edgevoice.weights import Engines

SILENCE = b"\0" * 640
VOICE = (9000 * np.sin(np.arange(320) * 2 * np.pi * 150 / 16_000)).astype("<i2").tobytes()
LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen."


UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class OpenCounter:
    """Counts the conversations that are open on a language model."""

    def __init__(self, inner: LanguageModelModel) -> None:
        self._inner = inner
        self.open_now = 0

    def open(self) -> LanguageModel:
        stream = self._inner.open()
        self.open_now += 1
        close = stream.close

        def count_down() -> None:
            self.open_now -= 1
            close()

        stream.close = count_down  # type: ignore[method-assign]
        return stream

    def close(self) -> None:
        self._inner.close()


def fake_engines(heard: tuple[str, ...] = ("what is this", "and that")) -> Engines:
    # After an interruption the user's words reach the model with a note, so no key would fit.
    answers = ScriptedLanguageModelModel({"what is this": LONG}, otherwise="It is.")
    return Engines(
        vad=EnergyVadModel(),
        recogniser=ScriptedRecogniserModel(heard),
        end_of_turn=None,
        language_model=OpenCounter(answers),
        speech=HumSpeech(),
    )


class Served:
    """A daemon that listens."""

    def __init__(self, daemon: Daemon, engines: Engines, port: int) -> None:
        self.daemon = daemon
        self.port = port
        assert isinstance(engines.language_model, OpenCounter)
        self.counter = engines.language_model
        self.url = f"ws://127.0.0.1:{port}"

    async def status(self) -> dict[str, Any]:
        def ask() -> dict[str, Any]:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            connection.request("GET", "/status")
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
            return answer

        return await asyncio.to_thread(ask)

    async def until_sessions(self, count: int) -> None:
        for _ in range(500):
            if (await self.status())["sessions"] == count and (
                self.counter.open_now == count or count
            ):
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"never came to {count} sessions")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Daemons of the machine's user are none of these tests' business."""
    monkeypatch.setenv("EDGEVOICE_HOME", str(tmp_path))
    return tmp_path


@contextlib.asynccontextmanager
async def served(
    *changes: str,
    outbox_bytes: int = 256 * 1024,
    engines: Engines | None = None,
    record: Path | None = None,
    govern: Callable[[], LoadGovernor] | None = None,
) -> AsyncIterator[Served]:
    settings = override(Settings(), ["daemon.port=0", "turns.unjudged_wait_ms=200", *changes])
    lines: list[str] = []
    engines = engines or fake_engines()
    tapes = Tapes(record, settings) if record is not None else None
    daemon = Daemon(
        settings, lambda: engines, lines.append, outbox_bytes, tapes=tapes, govern=govern
    )
    task = asyncio.create_task(daemon.serve())
    while not lines:
        assert not task.done(), await task
        await asyncio.sleep(0.005)
    found = re.fullmatch(
        r"listening on ws://127\.0\.0\.1:(\d+) \(pid \d+\), ready in .* s", lines[0]
    )
    assert found, lines
    try:
        yield Served(daemon, engines, int(found[1]))
    finally:
        daemon.end()
        assert await asyncio.wait_for(task, 10.0), "not everything ended in time"


class Client:
    """A caller that talks in real time and keeps what it is told."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.told: list[dict[str, Any]] = []
        self.audio_bytes = 0
        self.voice = asyncio.Event()
        self.changed = asyncio.Condition()
        self.reader = asyncio.create_task(self._read())
        self.talker = asyncio.create_task(self._talk())

    async def _talk(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self.socket.send(VOICE if self.voice.is_set() else SILENCE)
                await asyncio.sleep(0.02)

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for message in self.socket:
                async with self.changed:
                    if isinstance(message, bytes):
                        self.audio_bytes += len(message)
                    else:
                        self.told.append(json.loads(message))
                    self.changed.notify_all()

    async def say(self, seconds: float = 0.6) -> None:
        self.voice.set()
        await asyncio.sleep(seconds)
        self.voice.clear()

    async def wait(self, **wanted: object) -> dict[str, Any]:
        def found() -> dict[str, Any] | None:
            return next((m for m in self.told if wanted.items() <= m.items()), None)

        async with self.changed:
            await asyncio.wait_for(self.changed.wait_for(lambda: found() is not None), 10.0)
        message = found()
        assert message is not None
        return message

    async def wait_for_audio(self, count: int) -> None:
        async with self.changed:
            await asyncio.wait_for(self.changed.wait_for(lambda: self.audio_bytes >= count), 10.0)

    def kinds(self) -> list[str]:
        return [m["type"] for m in self.told]


@contextlib.asynccontextmanager
async def calling(url: str) -> AsyncIterator[Client]:
    async with connect(url) as socket:
        client = Client(socket)
        try:
            yield client
        finally:
            client.talker.cancel()
            client.reader.cancel()


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 60.0))


# --------------------------------------------------------------------------- conversations


def test_a_question_is_heard_and_answered() -> None:
    async def scenario() -> None:
        async with served() as daemon, calling(daemon.url) as client:
            await client.wait(type="state", state="listening")
            await client.say()
            heard = await client.wait(type="transcript", role="user", final=True)
            assert heard["text"] == "what is this"
            said = await client.wait(type="transcript", role="agent", final=True)
            assert (said["text"], said["interrupted"]) == (LONG, False)
            # Two chunks of 100 ms a word; the client has all of it when the answer is over.
            assert client.audio_bytes == 2 * 1600 * 2 * len(LONG.split())
            metrics = await client.wait(type="metrics", turn=1)
            assert metrics["spans_ms"]["first_sound"] >= metrics["spans_ms"]["endpoint"] > 0
            assert client.told[0]["type"] == "ready"
            assert client.told[0]["sample_rate"] == 16_000
            await client.wait(type="decision", decision="answer_finished")
            async with client.changed:
                await client.changed.wait_for(lambda: client.told[-1]["type"] == "state")
            states = [m["state"] for m in client.told if m["type"] == "state"]
            assert states == [
                "listening", "user_speaking", "endpointing", "thinking", "speaking", "listening",
            ]  # fmt: skip
            assert "clear" not in client.kinds()

    run(scenario)


def test_speech_over_the_agent_stops_it_and_history_keeps_what_was_heard() -> None:
    async def scenario() -> None:
        async with served() as daemon, calling(daemon.url) as client:
            await client.wait(type="state", state="listening")
            await client.say()
            await client.wait_for_audio(32_000)
            await client.say(1.0)
            await client.wait(type="clear")
            cut = await client.wait(type="transcript", role="agent", final=True)
            assert cut["interrupted"]
            assert LONG.startswith(cut["text"])
            assert len(cut["text"]) < len(LONG)
            audio_then = client.audio_bytes
            second = await client.wait(type="transcript", role="user", text="and that", final=True)
            assert second["at_ms"] > cut["at_ms"]
            await client.wait(type="transcript", role="agent", text="It is.", final=True)
            assert client.audio_bytes - audio_then == 2 * 1600 * 2 * 2
            stops = [m for m in client.told if m.get("decision") == "interrupted"]
            assert len(stops) == 1

    run(scenario)


def test_a_user_who_goes_on_before_the_answer_has_each_word_told_once() -> None:
    class LateModel(ScriptedLanguageModel):
        """Has no answer to half a question."""

        def generate(
            self, messages: Sequence[Message], cancelled: Cancelled = never
        ) -> Iterator[str]:
            while "and that" not in messages[-1].content and not cancelled():
                time.sleep(0.005)
            yield from super().generate(messages, cancelled)

    class LateModelModel(ScriptedLanguageModelModel):
        def open(self) -> ScriptedLanguageModel:
            return LateModel({"what is this and that": "Both are."})

    async def scenario() -> None:
        engines = dataclasses.replace(
            fake_engines(), language_model=OpenCounter(LateModelModel({}))
        )
        async with served(engines=engines) as daemon, calling(daemon.url) as client:
            await client.wait(type="state", state="listening")
            await client.say()
            await client.wait(type="state", state="thinking")
            await client.say()
            await client.wait(type="transcript", role="agent", text="Both are.", final=True)
            told = [m for m in client.told if m["type"] == "transcript" and m["role"] == "user"]
            assert [m["text"] for m in told if m["final"]] == ["what is this", "and that"]

    run(scenario)


def test_doing_less_under_load_is_told_to_callers_and_in_the_status() -> None:
    load = LoadRules((Step.SPECULATION,), response_budget_ms=1.0, missed_turns=1)

    async def scenario() -> None:
        governors: list[LoadGovernor] = []

        def govern() -> LoadGovernor:
            governors.append(LoadGovernor(load, read=lambda: None))
            return governors[0]

        async with served(govern=govern) as daemon:
            assert (await daemon.status())["load"]["taken"] == []
            async with calling(daemon.url) as client:
                await client.wait(type="state", state="listening")
                await client.say()
                told = await client.wait(type="load", direction="down", step="speculation")
                assert told["taken"] == ["speculation"]
                assert told["figure"] == "response_ms"
                assert told["value"] > told["bound"] == 1.0
                status = (await daemon.status())["load"]
                assert status["taken"] == ["speculation"]
                assert status["latest"][0]["detail"] == told["detail"]
            # It is the device's business, not one caller's.
            async with calling(daemon.url) as other:
                await other.wait(type="load", direction="down", step="speculation")
        assert "edgevoice-load" not in [thread.name for thread in threading.enumerate()]

    run(scenario)


def test_a_session_that_has_ended_leaves_no_memory_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions: list[weakref.ref[Session]] = []

    class Watched(Session):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            sessions.append(weakref.ref(self))

    async def scenario() -> None:
        async with served() as daemon:
            for _ in range(2):
                async with calling(daemon.url) as client:
                    await client.wait(type="state", state="listening")
                    await client.say()
                    await client.wait_for_audio(3200)
                await daemon.until_sessions(0)
            assert [session() for session in sessions] == [None, None]

    monkeypatch.setattr(calls, "Session", Watched)
    # The collector would come by some day; that is too late.
    gc.disable()
    try:
        run(scenario)
    finally:
        gc.enable()


def test_a_client_chooses_its_rate() -> None:
    async def scenario() -> None:
        async with served() as daemon, connect(daemon.url) as client:
            await client.send(json.dumps({"type": "start", "sample_rate": 48_000}))
            ready = []
            while len(ready) < 2:
                message = json.loads(await client.recv())
                ready += [message] if message["type"] == "ready" else []
            assert [m["sample_rate"] for m in ready] == [16_000, 48_000]
            voice = (9000 * np.sin(np.arange(960) * 2 * np.pi * 150 / 48_000)).astype("<i2")
            audio, over = 0, False

            async def talk() -> None:
                for n in range(500):
                    await client.send(voice.tobytes() if n < 30 else b"\0" * 1920)
                    await asyncio.sleep(0.02)

            talking = asyncio.create_task(talk())
            while not over:
                message = await client.recv()
                if isinstance(message, bytes):
                    audio += len(message)
                else:
                    told = json.loads(message)
                    over = told["type"] == "metrics"
            talking.cancel()
            # The filter's last samples follow when the playout has run dry.
            assert abs(audio - 3 * 2 * 1600 * 2 * len(LONG.split())) < 3 * 2 * 800

    run(scenario)


def test_speech_in_one_large_message_is_all_heard() -> None:
    async def scenario() -> None:
        # 6 s, three times what the queue holds.
        async with served("audio.queue_ms=2000") as daemon, connect(daemon.url) as client:
            await client.send(VOICE * 30 + SILENCE * 270)
            while True:
                message = await asyncio.wait_for(client.recv(), 10.0)
                if isinstance(message, str):
                    told = json.loads(message)
                    if told["type"] == "transcript" and told["final"]:
                        break
            assert told["text"] == "what is this"

    run(scenario)


def test_sessions_share_the_weights_and_one_too_many_is_refused() -> None:
    async def scenario() -> None:
        async with served("daemon.max_sessions=2") as daemon:
            async with calling(daemon.url) as one, calling(daemon.url) as two:
                await one.wait(type="state", state="listening")
                await two.wait(type="state", state="listening")
                await asyncio.gather(one.say(), two.say())
                for client in (one, two):
                    await client.wait(type="transcript", role="user", text="what is this")
                async with connect(daemon.url) as third:
                    told = json.loads(await third.recv())
                    assert (told["type"], told["fatal"]) == ("error", True)
                    assert "all 2 sessions are taken" in told["message"]
                    with pytest.raises(ConnectionClosed) as closed:
                        await third.recv()
                    assert closed.value.rcvd is not None
                    assert closed.value.rcvd.code == 1013
            await daemon.until_sessions(0)
            async with calling(daemon.url) as again:
                await again.wait(type="state", state="listening")
            status = await daemon.status()
            assert status["sessions_served"] == 3

    run(scenario)


def test_a_client_that_vanishes_in_the_middle_of_an_answer_leaves_nothing_behind() -> None:
    async def scenario() -> None:
        async with served() as daemon:
            for _ in range(2):
                async with calling(daemon.url) as client:
                    await client.wait(type="state", state="listening")
                    assert daemon.counter.open_now == 1
                    await client.say()
                    await client.wait_for_audio(3200)
                    client.socket.transport.abort()
                await daemon.until_sessions(0)
                assert daemon.counter.open_now == 0
            left = [t.name for t in threading.enumerate() if t.name.startswith("edgevoice")]
            assert left == []

    run(scenario)


def test_stop_ends_the_session() -> None:
    async def scenario() -> None:
        async with served() as daemon, connect(daemon.url) as client:
            await client.send('{"type": "stop"}')
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    await client.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1000

    run(scenario)


# --------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (b"\x01\x02\x03", "3 bytes"),
        ("hello", "not JSON"),
        ("[1]", "must be a JSON object"),
        ('{"type": "dance"}', "unknown message type"),
        ('{"sample_rate": 5}', "from 8000 to 48000"),
    ],
)
def test_a_bad_message_gives_one_error_and_the_session_goes_on(
    message: str | bytes, words: str
) -> None:
    async def scenario() -> None:
        async with served() as daemon, calling(daemon.url) as client:
            await client.wait(type="state", state="listening")
            await client.socket.send(message)
            error = await client.wait(type="error")
            assert words in error["message"]
            assert error["fatal"] is False
            await client.say()
            await client.wait(type="transcript", role="user", text="what is this")
            assert client.kinds().count("error") == 1

    run(scenario)


def test_start_after_audio_is_an_error_event() -> None:
    async def scenario() -> None:
        async with served() as daemon, calling(daemon.url) as client:
            await asyncio.sleep(0.1)
            await client.socket.send('{"type": "start", "sample_rate": 8000}')
            assert "start came after audio" in (await client.wait(type="error"))["message"]

    run(scenario)


@pytest.mark.parametrize("message", [b"\0" * 10_000_000, " " * 10_000_000])
def test_a_message_that_is_too_large_is_refused_and_the_session_goes_on(
    message: str | bytes,
) -> None:
    async def scenario() -> None:
        async with served() as daemon, calling(daemon.url) as client:
            await client.wait(type="state", state="listening")
            await client.socket.send(message)
            error = await client.wait(type="error")
            assert "message of 10000000 bytes" in error["message"]
            assert "at most 1048576" in error["message"]
            await client.say()
            await client.wait(type="transcript", role="user", text="what is this")

    run(scenario)


def test_a_message_that_is_far_too_large_ends_the_session() -> None:
    async def scenario() -> None:
        async with served() as daemon:
            with socket.create_connection(("127.0.0.1", daemon.port)) as raw:
                raw.sendall(UPGRADE)
                assert (await asyncio.to_thread(raw.recv, 4096)).startswith(b"HTTP/1.1 101")
                # The head of a binary frame that announces 17 MiB.
                raw.sendall(b"\x82\xff" + (17 << 20).to_bytes(8) + b"\0\0\0\0")
                told = await asyncio.to_thread(lambda: b"".join(iter(lambda: raw.recv(4096), b"")))
            close = told[told.rindex(b"\x88") :]
            assert int.from_bytes(close[2:4]) == 1009
            assert b"exceeds limit" in close
            await daemon.until_sessions(0)

    run(scenario)


def test_a_client_that_does_not_read_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "edgevoice.daemon")

    async def scenario() -> None:
        async with served(outbox_bytes=16_000) as daemon:
            with socket.socket() as raw:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
                await asyncio.to_thread(raw.connect, ("127.0.0.1", daemon.port))
                raw.sendall(UPGRADE)
                # Each of these is answered by an error of some 100 bytes; nobody reads them.
                bad = b"\x81\x85\0\0\0\0hello" * 500
                raw.settimeout(0.5)
                with contextlib.suppress(OSError):
                    for _ in range(100):
                        await asyncio.to_thread(raw.sendall, bad)
                        if (
                            daemon.counter.open_now == 0
                            and (await daemon.status())["sessions"] == 0
                        ):
                            break
                await daemon.until_sessions(0)

    run(scenario)
    assert "client does not read" in caplog.text


def test_what_is_not_websocket_is_answered_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def scenario() -> None:
        async with served() as daemon:

            def send(data: bytes) -> bytes:
                with socket.create_connection(("127.0.0.1", daemon.port), timeout=5) as raw:
                    raw.sendall(data)
                    if not data.startswith(b"GET"):
                        raw.shutdown(socket.SHUT_WR)
                    return b"".join(iter(lambda: raw.recv(4096), b""))

            for data in (
                b"\x16\x03\x01\x02\0\x01\0",
                b"GARBAGE\r\n\r\n",
                b"GET / HTTP/9\r\n\r\n",
                b"",
            ):
                await asyncio.to_thread(send, data)
            plain = await asyncio.to_thread(send, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert plain.startswith(b"HTTP/1.1 426")
            other = await asyncio.to_thread(send, b"GET /nope HTTP/1.1\r\nHost: x\r\n\r\n")
            assert other.startswith(b"HTTP/1.1 404")
            async with calling(daemon.url) as client:
                await client.wait(type="ready")

    run(scenario)
    ours = [r for r in caplog.records if r.name.startswith("edgevoice")]
    assert all(r.exc_info is None and "\n" not in r.getMessage() for r in ours)
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (None, True),
        ("http://localhost:3000", True),
        ("http://127.0.0.1:8000", True),
        ("http://[::1]:8000", True),
        ("https://example.com", False),
        ("http://127.0.0.1.example.com", False),
        ("http://[::1", False),
        ("null", False),
    ],
)
def test_pages_of_other_origins_are_refused(origin: str | None, allowed: bool) -> None:
    async def scenario() -> None:
        async with served() as daemon:
            headers = {} if origin is None else {"Origin": origin}
            if allowed:
                async with connect(daemon.url, additional_headers=headers) as client:
                    assert json.loads(await client.recv())["type"] == "ready"
                return
            with pytest.raises(InvalidStatus) as refused:
                async with connect(daemon.url, additional_headers=headers):
                    pass
            assert refused.value.response.status_code == 403

    run(scenario)


def test_a_session_that_cannot_start_says_so_and_the_daemon_goes_on() -> None:
    class BrokenModel(ScriptedLanguageModelModel):
        def open(self) -> Any:
            raise ArtifactError("no room for another context")

    async def scenario() -> None:
        async with served() as daemon:
            good = daemon.daemon._engines
            assert good is not None
            daemon.daemon._engines = dataclasses.replace(good, language_model=BrokenModel({}))
            async with connect(daemon.url) as client:
                told = [json.loads(await client.recv()) for _ in range(2)]
                assert told[1]["type"] == "error"
                assert told[1]["message"] == "no room for another context"
                with pytest.raises(ConnectionClosed) as closed:
                    await client.recv()
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1011
            daemon.daemon._engines = good
            async with calling(daemon.url) as client:
                await client.wait(type="state", state="listening")

    run(scenario)


# --------------------------------------------------------------------------- life


def test_an_ending_daemon_says_goodbye_to_its_callers() -> None:
    async def scenario() -> None:
        async with served() as daemon, calling(daemon.url) as client:
            await client.wait(type="state", state="listening")
            await client.say()
            await client.wait_for_audio(3200)
            daemon.daemon.end()
            await client.wait(type="state", state="closed")
            await client.reader
            assert client.socket.close_code == 1001
            assert client.told[-1]["state"] == "closed"
        assert runfile.running() == []

    run(scenario)


def test_the_port_of_another_daemon_is_refused_by_name() -> None:
    async def scenario() -> None:
        async with served() as daemon:
            settings = override(Settings(), [f"daemon.port={daemon.port}"])
            second = Daemon(settings, lambda: pytest.fail("loaded before it had the port"), print)
            with pytest.raises(DaemonError) as refused:
                await second.serve()
            assert str(refused.value).startswith(
                f"port {daemon.port} is in use by edgevoice daemon pid {os.getpid()}; "
            )

    run(scenario)


def test_the_port_of_another_program_is_refused() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        daemon = Daemon(override(Settings(), [f"daemon.port={port}"]), fake_engines, print)
        with pytest.raises(DaemonError, match="by another program"):
            daemon.run()


def test_weights_that_do_not_load_free_the_port() -> None:
    def fail() -> Engines:
        raise ArtifactError("truncated")

    with pytest.raises(ArtifactError, match="truncated"):
        Daemon(override(Settings(), ["daemon.port=0"]), fail, print).run()
    assert runfile.running() == []


def test_a_host_that_is_no_address_is_refused() -> None:
    settings = override(Settings(), ["daemon.host='256.1.1.1'", "daemon.port=0"])
    with pytest.raises(DaemonError, match=re.escape("cannot bind to '256.1.1.1'")):
        Daemon(settings, fake_engines, print).run()


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True),
     ("0.0.0.0", False), ("192.168.1.2", False), ("example.com", False), ("", False)],
)  # fmt: skip
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(path)
        receiver.settimeout(5.0)

        async def scenario() -> None:
            async with served():
                assert receiver.recv(100) == b"READY=1"

        run(scenario)
        assert receiver.recv(100) == b"STOPPING=1"


def test_systemds_watchdog_hears_that_the_loop_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "100000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.setblocking(False)

        async def scenario() -> None:
            async with served():
                loop = asyncio.get_running_loop()
                told = [await loop.sock_recv(receiver, 100) for _ in range(3)]
                assert told == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
                # A loop that hangs says nothing, however long it takes.
                time.sleep(0.2)
                with pytest.raises(BlockingIOError):
                    receiver.recv(100)

        run(scenario)


@pytest.mark.parametrize(
    ("pid", "microseconds", "expected"),
    [(os.getpid(), "30000000", 30.0), (1, "30000000", 0.0), (os.getpid(), "soon", 0.0)],
)
def test_the_watchdog_may_be_meant_for_another(
    pid: int, microseconds: str, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_PID", str(pid))
    monkeypatch.setenv("WATCHDOG_USEC", microseconds)
    assert service_manager.watchdog_s() == expected


def test_stale_run_files_deceive_nobody(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stale = home / "run" / "daemon-9999.json"
    stale.parent.mkdir()
    # The process number is taken, but not by a daemon.
    stale.write_text(json.dumps({"pid": os.getpid(), "host": "x", "port": 9999, "started": 1.0}))
    assert main(["daemon", "status"]) == 3
    assert main(["daemon", "stop", "--port", "9999"]) == 3
    assert "no daemon runs on port 9999" in capsys.readouterr().err
    assert not stale.exists()


def test_the_daemon_that_is_meant_is_found(home: Path) -> None:
    def claim(port: int) -> runfile.RunFile:
        return runfile.RunFile.claim(runfile.Running(os.getpid(), "127.0.0.1", port, 1.0))

    with claim(5001):
        found = runfile.find(None, 8765)
        assert found is not None
        assert found.port == 5001
        assert runfile.find(5002, 8765) is None
        with claim(5002):
            with pytest.raises(DaemonError, match="ports 5001, 5002; name one with --port"):
                runfile.find(None, 8765)
            assert runfile.find(None, 5002) == runfile.find(5002, 8765)
        with pytest.raises(DaemonError, match="in use by edgevoice daemon"):
            claim(5001)
    assert runfile.running() == []


SCRIPT = """
import sys
from edgevoice import loading
sys.path.insert(0, sys.argv[1])
from test_daemon import fake_engines
loading.load_engines = lambda settings: fake_engines()
from edgevoice.cli import main
# No models are here, and none is to be kept ready for a device under load.
sys.exit(main(["daemon", "run", "--port", "0", "--set", "recogniser.first_pass=''"]))
"""


@pytest.mark.parametrize("ending", ["SIGTERM", "SIGINT", "stop"])
def test_the_commands_run_and_end_a_process(
    ending: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(Path(__file__).parent)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("listening on ws://127.0.0.1:")
        assert main(["daemon", "status", "--json"]) == 0
        status = json.loads(capsys.readouterr().out)
        assert (status["pid"], status["sessions"]) == (process.pid, 0)
        assert main(["daemon", "status"]) == 0
        shown = capsys.readouterr().out
        assert f"running: pid {process.pid}" in shown
        assert "load: nothing is left out; 2 steps are possible" in shown

        async def talk_while_it_ends() -> None:
            async with calling(f"ws://127.0.0.1:{status['port']}") as client:
                await client.wait(type="state", state="listening")
                await client.say()
                await client.wait_for_audio(3200)
                if ending == "stop":
                    assert await asyncio.to_thread(main, ["daemon", "stop"]) == 0
                else:
                    process.send_signal(getattr(signal, ending))
                await client.wait(type="state", state="closed")

        run(talk_while_it_ends)
        begun = time.monotonic()
        _, errors = process.communicate(timeout=10)
        assert time.monotonic() - begun < 5.0
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert "session 1 started" in errors
    assert "session 1 ended: daemon ends" in errors
    assert "Traceback" not in errors
    assert main(["daemon", "status"]) == 3


# --------------------------------------------------------------------------- the default bundle


@pytest.mark.bundle
def test_voicebench_is_understood_and_answered(
    artifact: Callable[[str], Path], tmp_path: Path
) -> None:
    """voicebench as it is published asks the default bundle a question that flite speaks."""
    from voicebench.adapters import create_adapter
    from voicebench.metrics import analyze
    from voicebench.runner import run as hold
    from voicebench.scenario import AudioSpec, Scenario, StartRule, Turn

    from edgevoice.loading import load_engines
    from edgevoice.store import Store

    wav = tmp_path / "question.wav"
    text = "How many days are there in a week?"
    subprocess.run(["flite", "-voice", "rms", "-t", text, "-o", str(wav)], check=True)
    store = Store(artifact("silero-vad").parent)
    settings = override(Settings(), ["daemon.port=0"])

    async def scenario() -> None:
        lines: list[str] = []
        daemon = Daemon(settings, lambda: load_engines(settings, store), lines.append)
        task = asyncio.create_task(daemon.serve())
        while not lines:
            assert not task.done(), await task
            await asyncio.sleep(0.05)
        url = re.findall(r"ws://\S+:\d+", lines[0])[0]
        question = Turn(
            id="question",
            audio=AudioSpec(file=wav),
            start=StartRule("session_start", 500.0),
            text=text,
            response_timeout_ms=8000.0,
        )
        plan = Scenario("one question", (question,), tail_ms=8000.0, max_duration_ms=20_000.0)
        adapter = create_adapter("websocket", {"url": url, "start_message": {"type": "start"}})
        turn = analyze(await hold(plan, adapter)).turns[0]
        daemon.end()
        assert await task
        assert turn.responded
        assert not turn.talk_over
        assert turn.wer is not None
        assert turn.wer <= 0.15

    run(scenario)


# --------------------------------------------------------------------------- recordings


def test_each_session_is_recorded_with_what_its_caller_heard(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(record=tmp_path / "tapes") as server:
            async with calling(server.url) as client:
                await asyncio.sleep(0.2)
                await client.say()
                await client.wait_for_audio(16_000)
            await server.until_sessions(0)

    run(scenario)
    (tape,) = (tmp_path / "tapes").iterdir()
    user, agent = (read_wav(tape / name)[0] for name in ("user.wav", "agent.wav"))
    assert user.size == agent.size
    assert (np.abs(user) > 0.1).sum() > 4000
    # What went out at once went on the track at once: it sounds without a gap of its own.
    loud = np.flatnonzero(np.abs(agent) > 0.05)
    assert loud.size > 4000
    assert np.diff(loud).max() < 1600
    kinds = [json.loads(line)["kind"] for line in (tape / "events.jsonl").open()]
    assert {"SpeechStarted", "DecisionNotice", "TranscriptNotice"} <= set(kinds)
