"""Runs the trainer in an interpreter that has torch, and shows how it comes along.

Owns the interpreter, what it needs, and what its lines and its exit code mean. The trainer's side
is :mod:`edgevoice.export.distil.train`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import edgevoice
from edgevoice.errors import EXIT_INTERRUPTED, ConfigError, ExportError
from edgevoice.export.environments import clean_environment, environment
from edgevoice.progress import Meter

REQUIREMENTS = (("torch==2.13.0",), ("numpy>=2,<3",))
"""pip takes the build that the user's index settings give: for the CPU, or for CUDA."""
_TRAIN = "edgevoice.export.distil.train"
_STOP_S = 60.0


def interpreter(chosen: str, meter: Meter) -> Path:
    """Return an interpreter that has torch: ``chosen``, this one, or one made for it.

    Raises:
        ConfigError: ``chosen`` is no program.
        MissingDependencyError: The environment cannot be made.
    """
    if chosen:
        if not os.access(chosen, os.X_OK) or Path(chosen).is_dir():
            raise ConfigError(f"--python {chosen} is no program that can be run")
        return Path(chosen)
    if importlib.util.find_spec("torch"):
        return Path(sys.executable)
    return environment("distil", REQUIREMENTS, meter) / "python"


def train(
    python: Path,
    work: Path,
    arguments: Sequence[str],
    *,
    threads: int,
    say: Callable[[str], object],
) -> None:
    """Train what is in ``work`` to the end of its plan.

    Raises:
        ExportError: The trainer failed; its own reason.
        KeyboardInterrupt: A signal ended it; a checkpoint is saved.
    """
    launch = Path(__file__).with_name("launch.py")
    package = Path(edgevoice.__file__).parent
    command = [str(python), "-P", str(launch), str(package), _TRAIN, str(work), *arguments]
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
        subprocess.Popen(
            [*command, "--threads", str(threads)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            errors="replace",
            env={**clean_environment(), "OMP_NUM_THREADS": str(threads)},
        ) as child,
    ):
        assert child.stdout
        try:
            for line in child.stdout:
                say(readable(line.strip()))
            child.wait()
            errors.seek(0)
            said = errors.read()
        except BaseException:
            # It saves a checkpoint and ends.
            child.terminate()
            with suppress(subprocess.TimeoutExpired):
                child.wait(_STOP_S)
            child.kill()
            raise
    if child.returncode == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    if child.returncode:
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        raise ExportError(f"training: {lines[-1][:400] if lines else 'it says nothing'}")


def readable(line: str) -> str:
    """Return a line of the trainer's for people.

    >>> readable('{"step": 20, "of": 60, "stage": "frozen", "heard_hours": 0.4, "loss": 2.5}')
    'step 20 of 60, frozen: heard hours 0.4, loss 2.5'
    """
    if not line.startswith("{"):
        return line
    figures = json.loads(line)
    where = f"step {figures.pop('step')} of {figures.pop('of')}, {figures.pop('stage')}"
    for name, errors in figures.pop("word_errors_percent", {}).items():
        figures[f"word errors of {name}"] = f"{errors:.1f} %"
    rest = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in figures.items())
    return f"{where}: {rest}"
