"""Runs a function in a fresh interpreter, since native code may end the process that it is in.

The function gets and gives plain JSON. Owns the protocol: one JSON object a line on the child's
stdout, ``{"advance": n}`` for progress and ``{"result": ...}`` at the end.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from edgevoice.engines.probe import ending, last_line
from edgevoice.errors import EdgevoiceError, EngineError

_DELIBERATE = 3  # the child's exit status when the function raised an EdgevoiceError
_REPORT: list[TextIO] = []


def run(
    function: str,
    arguments: Mapping[str, Any],
    what: str,
    advance: Callable[[int], object] = int,
) -> Any:
    """Call ``function`` (``module:name``) with ``arguments`` in a child process.

    Args:
        function: Takes and returns what JSON can carry.
        arguments: Its keyword arguments.
        what: What it does, for messages: ``quantising model.gguf``.
        advance: Called with what the child passes to :func:`advance`.

    Raises:
        EngineError: The child crashed, failed, or raised a deliberate error; one line of it.
    """
    command = [sys.executable, "-P", "-m", "edgevoice.quant.child", function]
    with (
        # A file, since a full pipe would stop a child that complains at length.
        tempfile.TemporaryFile() as complaints,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            # ggml would start a debugger on itself to print a backtrace.
            env={**os.environ, "GGML_NO_BACKTRACE": "1"},
        ) as child,
    ):
        assert child.stdin and child.stdout
        try:
            child.stdin.write(json.dumps(dict(arguments)))
            child.stdin.close()
            said: dict[str, Any] = {}
            for line in child.stdout:
                said = json.loads(line)
                if "advance" in said:
                    advance(said["advance"])
            child.wait()
        except BaseException:
            child.kill()
            raise
        complaints.seek(0)
        last = last_line(complaints.read())
    if child.returncode == 0:
        return said["result"]
    if child.returncode == _DELIBERATE:
        raise EngineError(last)
    raise EngineError(f"{what} {ending(child.returncode)}{': ' + last if last else ''}")


def advance(count: int) -> None:
    """Tell the parent that ``count`` more is done; does nothing outside a child."""
    for report in _REPORT:
        print(json.dumps({"advance": count}), file=report, flush=True)


def _main(name: str) -> int:
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    # Native code prints to stdout as it likes; the protocol has a descriptor of its own.
    report = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    module, _, function = name.partition(":")
    # This file runs as __main__; the function's module sees the importable one.
    importlib.import_module("edgevoice.quant.child")._REPORT.append(report)
    try:
        arguments = json.load(sys.stdin)
        result = getattr(importlib.import_module(module), function)(**arguments)
    except EdgevoiceError as error:
        print(error, file=sys.stderr)
        return _DELIBERATE
    except Exception:
        traceback.print_exc()
        return 1
    print(json.dumps({"result": result}), file=report, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1]))
