"""Runs a program of ours in an interpreter that has torch and optimum, outside this process.

Owns the interpreter, what it needs, and what a failure says. The programs lie beside this module
(:mod:`edgevoice.export.optimum_export` and its like); :mod:`edgevoice.export.torch_trace` calls one
with a checkpoint and a new folder, where it leaves what its family reads.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgevoice.errors import ConfigError, ExportError
from edgevoice.export import safetensors_header
from edgevoice.export.environments import clean_environment, environment
from edgevoice.export.family import Job, SourceFacts

TRACER = "torch_trace.py"
OPTION = "an interpreter that has torch and optimum-onnx, in place of one made for it"
"""What the option ``python`` is, for a family's ``options``."""
_LIBRARIES_BYTES = 600 << 20  # torch's
# torch first, or pip takes the CUDA build (gigabytes) for those that depend on it.
REQUIREMENTS = (
    ("torch==2.13.0",),
    ("optimum-onnx==0.1.0", "transformers<4.58", "onnx==1.23.2", "onnxruntime==1.31.1"),
)


def run(program: str, source: Path, out: Path, job: Job) -> None:
    """Run ``program`` on the checkpoint ``source``; ``out`` is a new folder.

    The option ``python`` names the interpreter; else it is this one, if it has torch, or that of
    an environment made for it.

    Raises:
        ConfigError: The option names no program.
        ExportError: The checkpoint cannot be exported.
        MissingDependencyError: The environment cannot be made.
    """
    # Such a program imports torch, so it is run and never imported.
    files = (Path(__file__).with_name(name) for name in (TRACER, program))
    command = [str(_interpreter(job)), *map(str, (*files, source.resolve(), out.resolve()))]
    if job.allow_pickle:
        command.append("--allow-pickle")
    threads = str(job.threads)
    with job.meter("trace with torch", None):
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
            env={**clean_environment(), "OMP_NUM_THREADS": threads, "TQDM_DISABLE": "1"},
        )
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").splitlines()
        reason = next((line.strip() for line in reversed(said) if line.strip()), "it says nothing")
        raise ExportError(f"{source}: torch and optimum-onnx cannot export it: {reason[:300]}")


def facts(
    source: Path,
    title: str,
    detail: Mapping[str, Any],
    *,
    bytes_per_parameter: int = 16,
    stored_bytes: int = 4,
) -> SourceFacts:
    """Return the facts of the checkpoint in ``source``.

    Args:
        source: Its folder.
        title: As :class:`~edgevoice.export.family.SourceFacts` has it.
        detail: Likewise.
        bytes_per_parameter: Memory at the peak; by default for weights that are in torch, traced,
            and once more as they are written.
        stored_bytes: How large a parameter is in files that do not tell their number.

    Raises:
        ArtifactError: Its weights are damaged.
    """
    parameters = safetensors_header.check(source)
    size = sum(f.stat().st_size for f in source.rglob("*") if f.is_file())
    peak = _LIBRARIES_BYTES + bytes_per_parameter * (parameters or size // stored_bytes)
    return SourceFacts(title, parameters, size, peak, detail)


def _interpreter(job: Job) -> Path:
    if chosen := job.options.get("python"):
        if not os.access(chosen, os.X_OK):
            raise ConfigError(f"option python={chosen!r} is no program that can be run")
        return Path(chosen)
    if all(importlib.util.find_spec(name) for name in ("torch", "optimum", "transformers")):
        return Path(sys.executable)
    return environment("optimum", REQUIREMENTS, job.meter) / "python"
