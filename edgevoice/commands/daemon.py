"""Serve conversations over a WebSocket on loopback, and look after the process that does.

Exit codes of `status` and `stop` follow the init scripts' (LSB): 0 it runs (or was stopped), 3 it
does not run.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import http.client
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgevoice import config, runfile
from edgevoice.commands import settings_options
from edgevoice.errors import EXIT_FAILURE, EXIT_OK, DaemonError
from edgevoice.read_ahead import read_ahead
from edgevoice.settings import Settings

if TYPE_CHECKING:
    from edgevoice.weights import Engines

HELP = "serve conversations over a WebSocket"
EXIT_NOT_RUNNING = 3

_STOP_TIMEOUT_S = 10.0
_POLL_S = 0.05


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `run`, `status` and `stop`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    serve = actions.add_parser("run", help="serve until SIGTERM or Ctrl-C")
    serve.add_argument("--port", type=int, help="0 picks a free one (default: daemon.port)")
    serve.add_argument("--host", help="address to bind (default: daemon.host)")
    serve.add_argument(
        "--record",
        type=Path,
        metavar="DIR",
        help="keep each session's voices, events and evidence in a folder of DIR",
    )
    settings_options.add_all(serve)
    status = actions.add_parser("status", help="how the running daemon is")
    status.add_argument("--json", action="store_true", help="one JSON object")
    stop = actions.add_parser("stop", help="end the running daemon")
    for action in (status, stop):
        action.add_argument("--port", type=int, help="which daemon, where several run")
        settings_options.add_config(action)
        settings_options.add_set(action)


def run(arguments: argparse.Namespace) -> int:
    """Run the chosen action."""
    if arguments.action == "run":
        return _run(arguments, settings_options.read(arguments))
    settings = config.override(config.load(arguments.config), arguments.set)
    match arguments.action:
        case "status":
            return _status(arguments, settings)
        case _:
            return _stop(arguments, settings)


def _run(arguments: argparse.Namespace, settings: Settings) -> int:
    read_ahead(settings)  # before the imports that wait for the disk
    from edgevoice.audio.cleaning import clean_caller
    from edgevoice.daemon import Daemon
    from edgevoice.load_governor import LoadGovernor
    from edgevoice.load_policy import rules
    from edgevoice.loading import cheaper, load_engines
    from edgevoice.tapes import Tapes

    changes = {k: v for k in ("host", "port") if (v := getattr(arguments, k)) is not None}
    checked = config.parse({"daemon": changes}, "command line").daemon
    settings = dataclasses.replace(
        settings,
        daemon=dataclasses.replace(settings.daemon, **{k: getattr(checked, k) for k in changes}),
    )
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    clean_caller(settings.audio)  # what is missing is said before seconds of loading
    spare = cheaper(settings)

    def load() -> Engines:
        engines = load_engines(settings)
        # What is there now stays: the collector, which runs after each session, need not look
        # through it again, which would take 30 ms of everybody's time.
        gc.collect()
        gc.freeze()
        return engines

    daemon = Daemon(
        settings,
        load,
        lambda line: print(line, flush=True),
        tapes=Tapes(arguments.record, settings) if arguments.record is not None else None,
        govern=lambda: LoadGovernor(rules(settings), spare),
    )
    if daemon.run():
        return EXIT_OK
    # Native code still runs on a session's thread; leaving the interpreter under it would crash.
    print("edgevoice: a session did not end in time", file=sys.stderr, flush=True)
    os._exit(EXIT_OK)


def _status(arguments: argparse.Namespace, settings: Settings) -> int:
    daemon = runfile.find(arguments.port, settings.daemon.port)
    if daemon is None:
        return _not_running(arguments)
    status = _ask(daemon)
    if arguments.json:
        print(json.dumps(status))
        return EXIT_OK
    models = ", ".join(name for name in status["models"].values() if name)
    print(f"running: pid {status['pid']}, ws://{status['host']}:{status['port']}")
    print(f"uptime: {status['uptime_s']:.0f} s")
    print(
        f"sessions: {status['sessions']} of {status['max_sessions']}, "
        f"{status['sessions_served']} served"
    )
    print(f"models: {models}")
    if status["load"] is not None:
        from edgevoice.load_governor import described

        print(f"load: {described(status['load'])}")
    if "rss_mb" in status:
        print(f"memory: {status['rss_mb']:.0f} MB, peak {status['peak_rss_mb']:.0f} MB")
    return EXIT_OK


def _stop(arguments: argparse.Namespace, settings: Settings) -> int:
    daemon = runfile.find(arguments.port, settings.daemon.port)
    if daemon is None:
        return _not_running(arguments)
    os.kill(daemon.pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    while time.monotonic() < deadline:
        if daemon not in runfile.running():
            print(f"stopped: pid {daemon.pid}, port {daemon.port}")
            return EXIT_OK
        time.sleep(_POLL_S)
    print(
        f"edgevoice: daemon pid {daemon.pid} did not end within {_STOP_TIMEOUT_S:.0f} s; "
        f"`kill -9 {daemon.pid}` ends it by force",
        file=sys.stderr,
    )
    return EXIT_FAILURE


def _not_running(arguments: argparse.Namespace) -> int:
    where = "" if arguments.port is None else f" on port {arguments.port}"
    if getattr(arguments, "json", False):
        print(json.dumps({"running": False}))
    print(f"edgevoice: no daemon runs{where}; `edgevoice daemon run` starts one", file=sys.stderr)
    return EXIT_NOT_RUNNING


def _ask(daemon: runfile.Running) -> dict[str, Any]:
    # Not urllib: it would honour http_proxy, and this must stay on this machine.
    connection = http.client.HTTPConnection(daemon.host, daemon.port, timeout=5.0)
    try:
        connection.request("GET", "/status")
        status: dict[str, Any] = json.loads(connection.getresponse().read())
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise DaemonError(
            f"daemon pid {daemon.pid} does not answer on port {daemon.port} (it may still be "
            f"loading): {error}"
        ) from error
    finally:
        connection.close()
    return status
