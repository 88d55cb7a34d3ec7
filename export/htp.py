"""Compiles a graph for a Snapdragon's HTP, or runs it in the emulator, outside this process.

Owns the interpreter (this one where it has onnxruntime-qnn, else an environment made for it), and
the one line that a failure becomes. The program is :mod:`edgevoice.export.qnn_program`, which is
run and never imported.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgevoice import host
from edgevoice.devices.socs import Soc
from edgevoice.engines.probe import ending
from edgevoice.errors import ConfigError, ExportError, MissingDependencyError
from edgevoice.export.child_lines import listen
from edgevoice.export.environments import clean_environment, environment
from edgevoice.progress import Meter, silent

REQUIREMENTS = (("onnxruntime-qnn==2.7.0", "onnxruntime==1.31.1", "numpy>=1.26,<3"),)
_PROGRAM = "qnn_program.py"
_MOST_NAMED = 6
# Whisper tiny.en's encoder, 9.6 MB quantised, took 269 MB to compile; Piper's decoder in float
# less than that of 7 MB.
_BASE_MB = 200
_PER_BYTE = 25
# What the provider says when the finished graph did not fit.
_NO_MEMORY = ("MEM_ALLOC", "bad_alloc", "1002")

Arrays = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Compiled:
    """One context binary.

    Attributes:
        path: Its ONNX wrapper, the binary inside.
        bytes: Of the file.
        qnn_version: Of the compiler.
        seconds: That it took.
    """

    path: Path
    bytes: int
    qnn_version: str
    seconds: float


def interpreter(chosen: str = "", meter: Meter = silent) -> Path:
    """Return a Python that has onnxruntime-qnn: ``chosen``, this one, or one made for it.

    Raises:
        ConfigError: ``chosen`` is no program.
        MissingDependencyError: It cannot be installed, or compiles on x86-64 alone.
    """
    if chosen:
        if not os.access(chosen, os.X_OK):
            raise ConfigError(f"--python {chosen}: no program that can be run")
        return Path(chosen)
    if platform.machine() != "x86_64":
        raise MissingDependencyError(
            f"onnxruntime-qnn compiles for the HTP on x86-64 Linux, this is {platform.machine()}; "
            "export on a workstation and copy the artifact"
        )
    if importlib.util.find_spec("onnxruntime_qnn"):
        return Path(sys.executable)
    return environment("qnn", REQUIREMENTS, meter) / "python"


def compile_graph(model: onnx.ModelProto, target: Path, soc: Soc, python: Path) -> Compiled:
    """Write ``target``: ``model`` (every size fixed) as a context binary for ``soc``.

    The whole graph is on the HTP: a node that would have to run on the CPU is an error.

    Raises:
        ExportError: An operator is not the HTP's, named; or memory does not do.
    """
    need_mb = _BASE_MB + (_PER_BYTE * model.ByteSize() >> 20)
    available_mb = host.memory_mb()[1]
    if 0 < available_mb < need_mb:
        raise ExportError(
            f"compiling for {soc.name} needs about {need_mb} MiB of memory, {available_mb} MiB "
            "are available; end other programs, or export on a machine with more"
        )
    source = target.with_suffix(".source.onnx")
    onnx.save(model, str(source))
    try:
        said = _run(python, ["compile", str(source), str(target)], soc)
    finally:
        source.unlink(missing_ok=True)
    return Compiled(target, int(said["bytes"]), str(said["qnn_version"]), float(said["seconds"]))


def emulate(
    compiled: Path,
    feeds: Sequence[Arrays],
    soc: Soc,
    python: Path,
    *,
    work: Path,
    advance: Callable[[int], object] = int,
) -> list[dict[str, Any]]:
    """Run ``feeds`` in the emulator and return the outputs of each, by name.

    Tens of seconds an inference. What an interrupted call finished in ``work`` is not run again.

    Raises:
        ExportError: The emulator failed.
    """
    given, came = work / "feeds", work / "results"
    given.mkdir(parents=True, exist_ok=True)
    for number, feed in enumerate(feeds):
        np.savez(given / f"{number:04d}.npz", **feed)
    _run(python, ["run", str(compiled), str(given), str(came)], soc, advance)
    found = []
    for number in range(len(feeds)):
        with np.load(came / f"{number:04d}.npz") as arrays:
            found.append({name: arrays[name] for name in arrays.files if name != "seconds"})
    return found


def _run(
    python: Path, words: Sequence[str], soc: Soc, advance: Callable[[int], object] = int
) -> dict[str, Any]:
    command = [str(python), "-P", str(Path(__file__).with_name(_PROGRAM)), *words]
    command += ["--soc-model", str(soc.soc_model)]
    last = ""

    def hear(line: str) -> None:
        nonlocal last
        last = line or last
        if last.endswith(" s"):
            advance(1)

    status = listen(command, clean_environment(), hear)
    try:
        said = json.loads(last)
    except ValueError:
        said = {"error": f"it {ending(status)}", "operators": []}
    if "error" in said:
        raise ExportError(refusal(soc, str(said["error"]), said.get("operators", [])))
    return dict(said)


def refusal(soc: Soc, error: str, operators: Sequence[Sequence[str]]) -> str:
    """Word why a graph is not on the HTP: the operators by name where there are any."""
    floats = "" if soc.floats else f"; v{soc.htp_arch} computes no float: quantise every value"
    if not operators and "fallback to CPU" in error:
        # A graph of which it takes nothing at all is not listed.
        return f"{soc.title} ({soc.name}) takes no node of the graph{floats}"
    if not operators and any(mark in error for mark in _NO_MEMORY):
        return (
            f"{soc.title} ({soc.name}): the graph does not fit ({' '.join(error.split())[:120]}); "
            "take a shorter length, narrower activations or another chip"
        )
    if not operators:
        return f"{soc.title} ({soc.name}): onnxruntime-qnn says: {' '.join(error.split())[:240]}"
    kinds = ", ".join(dict.fromkeys(kind for _, kind in operators))
    named = ", ".join(name for name, _ in operators[:_MOST_NAMED])
    more = len(operators) - _MOST_NAMED
    return (
        f"{soc.title} ({soc.name}) does not take {kinds} in {len(operators)} nodes ({named}"
        f"{f' and {more} more' if more > 0 else ''}), and nothing may fall back to the CPU{floats}"
    )
