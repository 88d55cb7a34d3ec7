"""Runs one function in a fresh interpreter: native code may abort, and its memory is its own.

Owns the child, what crosses to it and back (JSON, with paths), its verdict when it does not come
back. What the function measures is its module's business.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from edgevoice.engines.probe import ending, last_line
from edgevoice.errors import EdgevoiceError, ExportError

_DELIBERATE = 3  # exit status when the function raised an EdgevoiceError
_PATH = "$path"
_BEAT_S = 0.5


def run(
    function: str,
    arguments: Mapping[str, Any],
    what: str,
    timeout_s: float,
    beat: Callable[[int], object] = int,
) -> Any:
    """Call ``function`` (``module:function``) with keyword ``arguments`` in a child process.

    Args:
        function: What to call.
        arguments: Plain JSON values and paths.
        what: Begins the error message: "measuring int8".
        timeout_s: The child is ended after that.
        beat: Called with 0 now and then, so that a bar shows that time passes.

    Returns:
        What the function returned, as JSON has it.

    Raises:
        ExportError: It raised, crashed, was killed or did not come to an end; one line.
    """
    sent = json.dumps({"function": function, "arguments": arguments}, default=_pack).encode()
    command = [sys.executable, "-P", "-m", "edgevoice.export.child"]
    # Files without a name: what a killed process leaves of them is nothing. A pipe would fill up.
    with tempfile.TemporaryFile() as answer, tempfile.TemporaryFile() as log:
        # ggml would start a debugger on itself to print a backtrace.
        environment = {**os.environ, "GGML_NO_BACKTRACE": "1"}
        with subprocess.Popen(
            [*command, str(answer.fileno())],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=(answer.fileno(),),
            env=environment,
        ) as process:
            try:
                _wait(process, sent, time.monotonic() + timeout_s, beat)
            except subprocess.TimeoutExpired as error:
                raise ExportError(f"{what} did not end within {timeout_s:g} s") from error
            finally:  # also on Ctrl-C: nothing of ours runs on
                if process.poll() is None:
                    process.kill()
        answered, last = _content(answer), last_line(_content(log))
    if process.returncode == _DELIBERATE:
        raise ExportError(f"{what} failed: {json.loads(answered)['error']}")
    if process.returncode != 0:
        raise ExportError(f"{what} {ending(process.returncode)}{': ' + last if last else ''}")
    return json.loads(answered)["value"]


def _wait(
    process: subprocess.Popen[bytes],
    sent: bytes,
    deadline_s: float,
    beat: Callable[[int], object],
) -> None:
    while True:
        try:
            process.communicate(sent, timeout=_BEAT_S)
            return
        except subprocess.TimeoutExpired:
            if time.monotonic() > deadline_s:
                raise
            sent = b""  # it may be given once
            beat(0)


def _content(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


def _pack(value: object) -> Any:
    if isinstance(value, Path):
        return {_PATH: str(value)}
    if hasattr(value, "item"):  # a number of numpy's
        return value.item()
    raise TypeError(f"{value!r} cannot cross to a child process")


def _unpack(value: dict[str, Any]) -> Any:
    return Path(value[_PATH]) if value.keys() == {_PATH} else value


def peak_memory_mb() -> float:
    """Return the most memory that this process had resident, MiB.

    Not ``ru_maxrss``: at exec, Linux counts the parent's peak into it.
    """
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except (OSError, UnicodeDecodeError):
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(answer: int) -> int:
    """Be the child: call, and write what came to the file descriptor ``answer``."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
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
    with os.fdopen(answer, "w", encoding="utf-8") as file:
        json.dump(came, file, default=_pack)
    return status


if __name__ == "__main__":
    # Native libraries' destructors crash at exit here and there, after the work is done.
    code = main(int(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
