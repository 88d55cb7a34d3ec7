"""Starts the processes that measure, asks them, and says in one line what became of a lost one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from edgevoice import config
from edgevoice.engines import probe
from edgevoice.errors import EngineError
from edgevoice.profiler.workload import NotMeasurable
from edgevoice.settings import Settings

STAGE = "edgevoice.profiler.stage_child"
CONVERSATION = "edgevoice.profiler.conversation_child"
PREPARATION = "edgevoice.profiler.preparation_child"

_PATIENCE_S = 600.0
"""A single answer that takes longer is given up: a Raspberry Pi Zero's slowest takes a minute."""


class Child:
    """One process; a context manager that ends it.

    Args:
        module: Run with ``-m``; it speaks as :mod:`edgevoice.profiler.stage_child` says.
        settings: Handed to it.
        request: What else its first line holds.

    Raises:
        NotMeasurable: It said that there is nothing to measure here.
        EngineError: It failed, crashed or did not answer.
    """

    def __init__(self, module: str, settings: Settings, **request: object) -> None:
        self._what = str(request.get("stage", module.rpartition(".")[2]))
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - close() closes it
        began_ns = time.monotonic_ns()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            # ggml would start a debugger on itself to print a backtrace.
            env={**os.environ, "GGML_NO_BACKTRACE": "1"},
        )
        try:
            self.first = self.ask(config=config.to_toml(settings), began_ns=began_ns, **request)
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Process number."""
        return self._process.pid

    def ask(self, **request: object) -> Mapping[str, Any]:
        """Send one request and return the answer to it.

        Raises:
            NotMeasurable: As the class.
            EngineError: As the class.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        late = threading.Timer(_PATIENCE_S, self._process.kill)
        late.daemon = True
        late.start()
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            late.cancel()
        if not line:
            raise EngineError(self._fate())
        answer: Mapping[str, Any] = json.loads(line)
        if "error" in answer:
            kind = NotMeasurable if answer["absent"] else EngineError
            raise kind(str(answer["error"]))
        return answer

    def close(self) -> None:
        """End the process."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._errors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _fate(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        last = probe.last_line(self._errors.read())
        return f"measuring {self._what} {probe.ending(code)}{': ' + last if last else ''}"
