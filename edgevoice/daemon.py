"""Serves conversations over a WebSocket, all on one copy of the weights.

Owns the port, who may call, how many at once, and the daemon's own beginning and end; a call is
:class:`edgevoice.calls.Call`, its messages are :mod:`edgevoice.protocols.pcm`.

Who may call: the daemon binds to loopback unless told otherwise. A web page that the user happens
to visit can open a WebSocket to loopback, too, and must not get a microphone assistant to talk to:
a request whose ``Origin`` is not itself a loopback address is refused. Programs send no Origin.

``GET /status`` on the same port answers with JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import http
import ipaddress
import json
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio import server
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from edgevoice import __version__, runfile, service_manager
from edgevoice.calls import OUTBOX_BYTES, Call
from edgevoice.errors import DaemonError
from edgevoice.events import ErrorNotice
from edgevoice.load_governor import LoadGovernor
from edgevoice.protocols import pcm
from edgevoice.settings import Settings
from edgevoice.tapes import Tapes
from edgevoice.weights import Engines

STATUS_PATH = "/status"

_TRANSPORT_BYTES = 16 << 20
"""A message up to here is read whole, refused by :class:`Call` with an error and the session goes
on. Beyond it the connection is reset under the sender, who seldom gets to see why."""

_END_TIMEOUT_S = 4.5
_CLOSE_TIMEOUT_S = 2.0

log = logging.getLogger("edgevoice.daemon")


class Daemon:
    """One process's server.

    Args:
        settings: The configuration; ``settings.daemon`` says where to listen.
        load: Loads the weights; called once, after the port is known to be free.
        say: Takes the line that tells where the daemon listens, once it does.
        outbox_bytes: What may wait for a client that does not read.
        tapes: Keeps a recording of every session, if given.
        govern: Begins to watch the load, once the weights are loaded; nobody does, if not given.
    """

    def __init__(
        self,
        settings: Settings,
        load: Callable[[], Engines],
        say: Callable[[str], None],
        outbox_bytes: int = OUTBOX_BYTES,
        *,
        tapes: Tapes | None = None,
        govern: Callable[[], LoadGovernor] | None = None,
    ) -> None:
        self._settings = settings
        self._load = load
        self._say = say
        self._outbox_bytes = outbox_bytes
        self._tapes = tapes
        self._govern = govern
        self._governor: LoadGovernor | None = None
        self._calls: set[Call] = set()
        self._served = 0
        self._started = time.time()
        self._address = ("", 0)
        self._engines: Engines | None = None
        self._ending = asyncio.Event()

    def run(self) -> bool:
        """Serve until SIGTERM or SIGINT.

        Returns whether everything ended in time; if not, native code still runs on some thread
        and the process should leave without waiting for it.

        Raises:
            DaemonError: The port cannot be had.
            ArtifactError: An artifact is missing or broken.
        """
        return asyncio.run(self.serve())

    def end(self) -> None:
        """End soon; on the event loop's thread."""
        self._ending.set()

    async def serve(self) -> bool:
        """Do what :meth:`run` does, on the event loop that runs."""
        began = time.monotonic()
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ValueError, RuntimeError):  # Not the main thread: a test.
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self.end)
        with contextlib.closing(_bind(self._settings.daemon.host, self._settings.daemon.port)) as s:
            host, port = s.getsockname()[:2]
            self._address = (host, port)
            if not is_loopback(host):
                log.warning("listening on %s: anyone who reaches this address can call", host)
            claim = runfile.Running(os.getpid(), host, port, self._started)
            with runfile.RunFile.claim(claim):
                if not await self._load_engines():
                    return True
                return await self._listen(s, began)

    async def _load_engines(self) -> bool:
        """Load the weights off the loop; return False if the daemon was told to end meanwhile."""
        loading = asyncio.get_running_loop().run_in_executor(None, self._load)
        ending = asyncio.create_task(self._ending.wait())
        await asyncio.wait((loading, ending), return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()
        self._engines = await loading
        if self._ending.is_set():
            self._engines.close()
            return False
        if self._govern is not None:
            self._governor = self._govern()
        return True

    async def _listen(self, bound: socket.socket, began: float) -> bool:
        host, port = self._address
        try:
            listener = await server.serve(
                self._answer,
                sock=bound,
                process_request=self._screen,
                compression=None,  # Speech does not shrink, and deflate costs a frame's time.
                max_size=max(_TRANSPORT_BYTES, self._settings.daemon.max_message_bytes),
                close_timeout=_CLOSE_TIMEOUT_S,
                logger=_quiet_logger(),
            )
        except OSError as error:
            raise DaemonError(runfile.in_use(port)) from error
        shown = f"[{host}]" if ":" in host else host
        self._say(
            f"listening on ws://{shown}:{port} (pid {os.getpid()}), "
            f"ready in {time.monotonic() - began:.1f} s"
        )
        service_manager.notify("READY=1")
        watchdog = asyncio.create_task(service_manager.keep_watchdog())
        await self._ending.wait()
        watchdog.cancel()
        service_manager.notify("STOPPING=1")
        calls = list(self._calls)
        for call in calls:
            call.hang_up()
        # Not yet a single close frame is sent: every call ends itself, with its reason.
        listener.close(close_connections=False)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(listener.wait_closed(), _END_TIMEOUT_S)
        clean = all(call.ended for call in calls)
        if clean and self._governor is not None:
            self._governor.close()
        if clean and self._engines is not None:
            self._engines.close()
        return clean

    # ---------------------------------------------------------------- requests

    def _screen(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answer what is not a call; None lets the WebSocket open."""
        origin = request.headers.get("Origin")
        if origin is not None and not _is_local_origin(origin):
            log.warning("refused a page of origin %s", ascii(origin[:100]))
            return connection.respond(
                http.HTTPStatus.FORBIDDEN, "pages of other origins may not call this daemon\n"
            )
        path = urlsplit(request.path).path
        if path == STATUS_PATH:
            response = connection.respond(http.HTTPStatus.OK, json.dumps(self.status()) + "\n")
            del response.headers["Content-Type"]
            response.headers["Content-Type"] = "application/json"
            return response
        if path != "/":
            return connection.respond(
                http.HTTPStatus.NOT_FOUND, f"call ws://HOST:PORT/, or GET {STATUS_PATH}\n"
            )
        return None

    async def _answer(self, connection: ServerConnection) -> None:
        limit = self._settings.daemon.max_sessions
        if self._engines is None or len(self._calls) >= limit or self._ending.is_set():
            busy = f"all {limit} sessions are taken; try later, or raise daemon.max_sessions"
            log.warning("refused a caller: %s", busy)
            await connection.send(pcm.encode_notice(ErrorNotice(0.0, busy, fatal=True)))
            await connection.close(pcm.CloseCode.TRY_LATER, busy)
            return
        self._served += 1
        call = Call(
            self._served,
            connection,
            self._engines,
            self._settings,
            self._outbox_bytes,
            tapes=self._tapes,
            governor=self._governor,
        )
        self._calls.add(call)
        try:
            await call.hold()
        finally:
            self._calls.discard(call)
            # A session and what it made refer to each other in circles, megabytes of it native
            # and unknown to the collector, which would let eight of them pile up before it ran.
            gc.collect()

    def status(self) -> dict[str, Any]:
        """Return what ``GET /status`` answers with."""
        settings = self._settings
        host, port = self._address
        return {
            "version": __version__,
            "pid": os.getpid(),
            "host": host,
            "port": port,
            "uptime_s": round(time.time() - self._started, 1),
            "sessions": len(self._calls),
            "max_sessions": settings.daemon.max_sessions,
            "sessions_served": self._served,
            "models": {
                "end_of_turn": "",
                "language_model": settings.language_model.endpoint,
                **{stage.replace("-", "_"): name for stage, name in settings.artifacts().items()},
            },
            "load": self._governor.status() if self._governor is not None else None,
            **_memory_mb(),
        }


def is_loopback(host: str) -> bool:
    """Whether ``host``, a name or an address, is this machine and nobody else's way in."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_local_origin(origin: str) -> bool:
    try:
        return is_loopback(urlsplit(origin).hostname or "")
    except ValueError:
        return False


def _bind(host: str, port: int) -> socket.socket:
    """Take the port without listening yet: nobody shall call before the weights are there."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise DaemonError(f"cannot bind to {host!r}: {error.strerror or error}") from error
    try:
        # Else a port stays taken for a minute after a daemon with open calls has ended.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise DaemonError(runfile.in_use(port)) from error
        raise DaemonError(f"cannot bind to {host}:{port}: {error.strerror or error}") from error
    return bound


def _quiet_logger() -> logging.Logger:
    """Return the logger for the WebSocket library: one line for a bad request, no traceback."""

    def one_line(record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1] is not None:
            record.msg = f"{record.getMessage()}: {record.exc_info[1]}"
            record.args = ()
            record.exc_info = None
        return True

    logger = logging.getLogger("edgevoice.daemon.websocket")
    logger.setLevel(logging.WARNING)
    if not logger.filters:
        logger.addFilter(one_line)
    return logger


def _memory_mb() -> dict[str, float]:
    """Resident memory now and at its peak, where the system tells (Linux)."""
    names = {"VmRSS": "rss_mb", "VmHWM": "peak_rss_mb"}
    found: dict[str, float] = {}
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii") as lines:
        for line in lines:
            key, _, value = line.partition(":")
            if key in names:
                found[names[key]] = round(int(value.split()[0]) / 1024, 1)
    return found
