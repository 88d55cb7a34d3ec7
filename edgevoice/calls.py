"""One client's call to the daemon: a session on a thread, and a WebSocket to bring it audio.

Owns the life of that session and what bad messages mean for it. Leaves the wire format to
:mod:`edgevoice.protocols.pcm`, and who may call to :mod:`edgevoice.daemon`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
import time

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from edgevoice.audio.cleaning import clean_caller
from edgevoice.audio.socket_port import SocketSink, SocketSource
from edgevoice.errors import AudioError, EdgevoiceError, ProtocolError
from edgevoice.events import ClearNotice, ErrorNotice, Notice, StateNotice, TranscriptNotice
from edgevoice.frames import SAMPLE_RATE_HZ
from edgevoice.load_governor import LoadGovernor
from edgevoice.outbox import Outbox
from edgevoice.protocols import pcm
from edgevoice.session import Session
from edgevoice.settings import Settings
from edgevoice.stages import EchoCanceller
from edgevoice.tape import Tape
from edgevoice.tapes import Tapes
from edgevoice.weights import Engines

OUTBOX_BYTES = 256 * 1024
"""8 s of audio: a client that is so far behind does not converse."""

_SOCKET_BUFFER_BYTES = 64 * 1024
"""Else the kernel lets megabytes wait, more than a minute of speech, before anyone notices."""

_REASON_BYTES = 123
"""What fits into a close frame (RFC 6455, section 5.5)."""

_ROOM_POLL_S = 0.01
_END_TIMEOUT_S = 3.0

log = logging.getLogger("edgevoice.daemon")


class Call:
    """One client's session.

    Args:
        number: Of the session, for the client and the log.
        connection: Accepted already; closed by :meth:`hold`.
        engines: Shared weights.
        settings: The configuration.
        outbox_bytes: What may wait for a client that does not read.
        tapes: Keeps a recording of the session, if given.
        governor: Says when to do less, if given.
    """

    def __init__(
        self,
        number: int,
        connection: ServerConnection,
        engines: Engines,
        settings: Settings,
        outbox_bytes: int = OUTBOX_BYTES,
        *,
        tapes: Tapes | None = None,
        governor: LoadGovernor | None = None,
    ) -> None:
        self.number = number
        self._connection = connection
        self._engines = engines
        self._settings = settings
        self._tapes = tapes
        self._governor = governor
        self._loop = asyncio.get_running_loop()
        self._outbox = Outbox(outbox_bytes)
        self._source = SocketSource(settings.audio.queue_ms)
        self._sink = SocketSink(
            lambda samples: self._outbox.put(pcm.encode_audio(samples)),
            lambda: self._outbox.put(pcm.encode_notice(ClearNotice(self._now_ms()))),
        )
        self._session_ended = asyncio.Event()
        self._hanging_up = asyncio.Event()
        self._failure = ""
        self._session: Session | None = None
        self._started = time.monotonic()
        self._turns = 0
        # A daemon thread: native code that hangs must not keep the process alive.
        self._thread = threading.Thread(
            target=self._converse, name=f"edgevoice-session-{number}", daemon=True
        )

    @property
    def ended(self) -> bool:
        """Whether the session has come to its end, and uses no weights any more."""
        return self._session_ended.is_set()

    def hang_up(self) -> None:
        """End the call from the daemon's side; on the event loop's thread."""
        self._hanging_up.set()

    async def hold(self) -> None:
        """Hold the conversation until either side ends it, then clean up."""
        self._bound_socket()
        log.info("session %d started: %s", self.number, self._peer())
        self._outbox.put(pcm.encode_ready(self.number, SAMPLE_RATE_HZ))
        self._thread.start()
        sending = asyncio.create_task(self._send())
        code, reason = await self._until_over(sending)
        await self._end_session()
        if code == pcm.CloseCode.GOING_AWAY:
            self._tell(StateNotice(self._now_ms(), "closed"))
        self._outbox.close()
        if code != pcm.CloseCode.NOT_READING:
            with contextlib.suppress(TimeoutError, ConnectionClosed):
                await asyncio.wait_for(asyncio.shield(sending), _END_TIMEOUT_S)
        sending.cancel()
        await self._connection.close(code, _short(reason))
        if self.ended:
            self._session = None
        log.info(
            "session %d ended: %s; %.1f s, turns: %d, lost frames: %d",
            self.number,
            reason,
            time.monotonic() - self._started,
            self._turns,
            self._source.dropped_frames,
        )

    async def _until_over(self, sending: asyncio.Task[None]) -> tuple[pcm.CloseCode, str]:
        """Return how the call is to be closed, once it is over."""
        receiving = asyncio.create_task(self._receive())
        overflow = asyncio.create_task(self._outbox.overflowed.wait())
        ended = asyncio.create_task(self._session_ended.wait())
        going = asyncio.create_task(self._hanging_up.wait())
        tasks = (receiving, overflow, ended, going, sending)
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in (overflow, ended, going):
            task.cancel()
        try:
            if self._outbox.overflowed.is_set():
                waiting = self._outbox.waiting_bytes // 1024
                return pcm.CloseCode.NOT_READING, f"client does not read: {waiting} KiB wait"
            if receiving.done():
                return pcm.CloseCode.DONE, receiving.result()
            if self._session_ended.is_set():
                return pcm.CloseCode.FAILED, self._failure or "session ended"
            if self._hanging_up.is_set():
                return pcm.CloseCode.GOING_AWAY, "daemon ends"
            return pcm.CloseCode.DONE, "client vanished"
        finally:
            receiving.cancel()

    # ---------------------------------------------------------------- on the event loop

    async def _receive(self) -> str:
        """Take messages until the client stops; return in a few words how it did."""
        try:
            async for message in self._connection:
                try:
                    self._check_size(message)
                    if isinstance(message, bytes):
                        await self._take_audio(message)
                    elif self._obey(pcm.decode_command(message)):
                        return "client stopped"
                except ProtocolError as error:
                    log.warning("session %d: %s", self.number, error)
                    self._tell(ErrorNotice(self._now_ms(), str(error)))
        except ConnectionClosed as closed:
            if closed.sent is not None and not closed.rcvd_then_sent:
                return f"{closed.sent.code} {closed.sent.reason}".strip()
            return "client vanished"
        return "client left"

    def _check_size(self, message: str | bytes) -> None:
        limit = self._settings.daemon.max_message_bytes
        if len(message) > limit:
            raise ProtocolError(
                f"message of {len(message)} bytes: at most {limit} are taken; send audio in "
                "smaller pieces, or raise daemon.max_message_bytes"
            )

    async def _take_audio(self, message: bytes) -> None:
        for piece in self._source.pieces(pcm.decode_audio(message)):
            while not self._source.has_room:
                # Not reading on is what makes a client that is faster than speech wait.
                await asyncio.sleep(_ROOM_POLL_S)
            self._source.feed(piece)

    def _obey(self, command: pcm.Command) -> bool:
        """Do what the client asks; return whether it asked for the end."""
        if isinstance(command, pcm.Stop):
            return True
        if self._source.started:
            raise ProtocolError("start came after audio; send it first, or leave it out")
        self._source.set_rate(command.sample_rate_hz)
        self._sink.set_rate(command.sample_rate_hz)
        self._outbox.put(pcm.encode_ready(self.number, command.sample_rate_hz))
        return False

    async def _send(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            while (message := await self._outbox.next()) is not None:
                await self._connection.send(message)
                self._outbox.sent(message)

    async def _end_session(self) -> None:
        if self._session is not None:
            self._session.stop()
        self._source.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._session_ended.wait(), _END_TIMEOUT_S)

    def _bound_socket(self) -> None:
        sock = self._connection.transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER_BYTES)

    def _peer(self) -> str:
        address = self._connection.remote_address
        return f"{address[0]}:{address[1]}" if address else "unknown"

    # ---------------------------------------------------------------- on the session's thread

    def _converse(self) -> None:
        try:
            canceller = clean_caller(self._settings.audio)
            self._session = Session(
                self._engines,
                self._settings,
                self._source,
                self._sink,
                self._watch,
                echo_canceller=canceller,
                tape=self._begin_tape(canceller),
                governor=self._governor,
            )
            self._session.run()
        except EdgevoiceError as error:
            self._fail(str(error))
        except Exception as error:
            log.exception("session %d failed", self.number)
            self._fail(f"session failed: {error!r}")
        finally:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._session_ended.set)

    def _begin_tape(self, canceller: EchoCanceller | None) -> Tape | None:
        if self._tapes is None:
            return None
        try:
            return self._tapes.begin(canceller)
        except AudioError as error:
            log.warning("session %d is not recorded: %s", self.number, error)
            return None

    def _fail(self, message: str) -> None:
        self._failure = message
        self._tell(ErrorNotice(self._now_ms(), message, fatal=True))

    def _watch(self, notice: Notice) -> None:
        if isinstance(notice, ClearNotice):
            return  # The sink has said so, in its place between the audio before and after.
        if isinstance(notice, TranscriptNotice) and notice.role == "user" and notice.final:
            self._turns += 1
        self._tell(notice)

    def _tell(self, notice: Notice) -> None:
        self._outbox.put(pcm.encode_notice(notice))

    def _now_ms(self) -> float:
        session = self._session
        return round(session.now_ms(), 1) if session is not None else 0.0


def _short(reason: str) -> str:
    return reason.encode()[:_REASON_BYTES].decode(errors="ignore")
