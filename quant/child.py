"""Runs one function in a fresh interpreter: native code may abort, and its memory is its own.

Owns the child, what crosses to it and back (JSON, with paths), its progress, and its verdict when
it does not come back. What the function does is its module's business.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import select
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from edgevoice.engines.probe import ending, last_line
from edgevoice.errors import EdgevoiceError, ExportError

_DELIBERATE = 3  # the child's exit status when the function raised an EdgevoiceError
_PATH = "$path"
_BEAT_S = 0.5
_REPORT: list[TextIO] = []  # in a child, where its progress goes


def run(
    function: str,
    arguments: Mapping[str, Any],
    what: str,
    *,
    timeout_s: float | None = None,
    advance: Callable[[int], object] = int,
) -> Any:
    """Call ``function`` (``module:function``) with keyword ``arguments`` in a child process.

    Args:
        function: What to call.
        arguments: Plain JSON values and paths.
        what: Begins the error message: "measuring int8".
        timeout_s: The child is ended after that; None: it may take as long as it takes.
        advance: Called with what the child passes to :func:`advance`, and with 0 now and then, so
            that a bar shows that time passes.

    Returns:
        What the function returned, as JSON has it.

    Raises:
        ExportError: It raised, crashed, was killed or did not come to an end; one line.
    """
    deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
    said: dict[str, Any] = {}
    # Files without a name: what a killed process leaves of them is nothing. A pipe would fill up.
    with tempfile.TemporaryFile() as request, tempfile.TemporaryFile() as log:
        asked = {"function": function, "arguments": dict(arguments)}
        request.write(json.dumps(asked, default=_pack).encode())
        request.seek(0)
        # Native code prints to stdout as it likes; the answer has a descriptor of its own.
        answer, end = os.pipe()
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "edgevoice.quant.child", str(end)],
                stdin=request,
                stdout=log,
                stderr=log,
                pass_fds=(end,),
                # ggml would start a debugger on itself to print a backtrace.
                env={**os.environ, "GGML_NO_BACKTRACE": "1"},
            )
        finally:
            os.close(end)
        with open(answer, "rb", buffering=0) as report, process:
            try:
                for line in _lines(report, deadline_s):
                    came = json.loads(line) if line else {"advance": 0}
                    if "advance" in came:
                        advance(came["advance"])
                    else:  # a child that takes its time to end is silent after its answer
                        said = came
                process.wait(None if deadline_s is None else max(deadline_s - time.monotonic(), 0))
            except (TimeoutError, subprocess.TimeoutExpired) as error:
                raise ExportError(f"{what} did not end within {timeout_s:g} s") from error
            finally:  # also on Ctrl-C: nothing of ours runs on
                if process.poll() is None:
                    process.kill()
        log.seek(0)
        last = last_line(log.read())
    if process.returncode == _DELIBERATE:
        raise ExportError(f"{what} failed: {said['error']}")
    if process.returncode != 0:
        raise ExportError(f"{what} {ending(process.returncode)}{': ' + last if last else ''}")
    return said["value"]


def advance(count: int) -> None:
    """Tell the parent that ``count`` more is done; does nothing outside a child."""
    for report in _REPORT:
        print(json.dumps({"advance": count}), file=report, flush=True)


def _lines(report: BinaryIO, deadline_s: float | None) -> Iterator[bytes]:
    """Yield what the child says, line by line, and an empty line whenever it is silent a while."""
    rest = b""
    while True:
        if deadline_s is not None and time.monotonic() > deadline_s:
            raise TimeoutError
        if not select.select([report], [], [], _BEAT_S)[0]:
            yield b""
            continue
        came = report.read(1 << 16)
        if not came:
            return
        *whole, rest = (rest + came).split(b"\n")
        yield from whole


def _pack(value: object) -> Any:
    if isinstance(value, Path):
        return {_PATH: str(value)}
    if hasattr(value, "item"):  # a number of numpy's
        return value.item()
    raise TypeError(f"{value!r} cannot cross to a child process")


def _unpack(value: dict[str, Any]) -> Any:
    return Path(value[_PATH]) if value.keys() == {_PATH} else value


def _main(answer: int) -> int:
    """Be the child: call, and say what came on the file descriptor ``answer``."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    report = os.fdopen(answer, "w", encoding="utf-8")
    # This file runs as __main__; the function's module sees the importable one.
    importlib.import_module("edgevoice.quant.child")._REPORT.append(report)
    asked = json.loads(sys.stdin.buffer.read(), object_hook=_unpack)
    module, _, function = str(asked["function"]).partition(":")
    status, came = 0, {}
    try:
        value = getattr(importlib.import_module(module), function)(**asked["arguments"])
        came = {"value": value}
    except EdgevoiceError as error:
        status, came = _DELIBERATE, {"error": str(error)}
    except MemoryError:
        status, came = _DELIBERATE, {"error": "out of memory; use a smaller model or more memory"}
    except Exception:
        traceback.print_exc()
        return 1
    print(json.dumps(came, default=_pack), file=report, flush=True)
    return status


if __name__ == "__main__":
    # Native libraries' destructors crash at exit here and there, after the work is done.
    code = _main(int(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
