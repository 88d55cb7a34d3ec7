"""Has a checkpoint traced by optimum-onnx, outside this process, and compares with torch's logits.

Owns the interpreter that has torch and what is asked of it; the program that it runs is
:mod:`edgevoice.export.optimum_export`.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from edgevoice.engines.onnx_decoder import Decoder, Network
from edgevoice.errors import ConfigError, EngineError, ExportError
from edgevoice.export.environments import clean_environment, environment
from edgevoice.export.family import Job

# torch first, or pip takes the CUDA build (gigabytes) for those that depend on it.
REQUIREMENTS = (
    ("torch==2.13.0",),
    ("optimum-onnx==0.1.0", "transformers<4.58", "onnx==1.23.2", "onnxruntime==1.31.1"),
)
# Imports torch, so it is run and never imported.
_PROGRAM = Path(__file__).with_name("optimum_export.py")


def trace(source: Path, out: Path, job: Job) -> None:
    """Run optimum in an interpreter that has it; ``out`` is a new folder.

    The option ``python`` names the interpreter; else it is this one, if it has torch, or that of
    an environment made for it.

    Raises:
        ConfigError: The option names no program.
        ExportError: optimum cannot export the checkpoint.
        MissingDependencyError: The environment cannot be made.
    """
    command = [str(_interpreter(job)), str(_PROGRAM), str(source.resolve()), str(out.resolve())]
    if job.allow_pickle:
        command.append("--allow-pickle")
    threads = str(job.threads)
    with job.meter("trace with optimum", None):
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
        raise ExportError(f"{source}: optimum-onnx cannot export it: {reason[:300]}")


def _interpreter(job: Job) -> Path:
    if chosen := job.options.get("python"):
        if not os.access(chosen, os.X_OK):
            raise ConfigError(f"option python={chosen!r} is no program that can be run")
        return Path(chosen)
    if all(importlib.util.find_spec(name) for name in ("torch", "optimum", "transformers")):
        return Path(sys.executable)
    return environment("optimum", REQUIREMENTS, job.meter) / "python"


def distance(path: Path, check: Path, threads: int) -> float:
    """Return how far the graph's logits are from torch's, in units of their spread.

    Reads in pieces and reads again after forgetting, as a conversation does.

    Raises:
        ArtifactError: onnxruntime cannot load the graph.
        ExportError: It does not run.
    """
    with np.load(check) as stored:
        tokens, logits = [int(t) for t in stored["tokens"]], np.asarray(stored["logits"])
    decoder = Decoder(Network(path, threads), len(tokens) + 8)
    third = len(tokens) // 3
    try:
        decoder.read(tokens[third:], 0)
        parts = [
            decoder.read(tokens[:third], 0, third),
            decoder.read(tokens[third:-1], third, len(tokens) - 1 - third),
            decoder.read(tokens[-1:], len(tokens) - 1),
        ]
    except EngineError as error:
        raise ExportError(f"the rewritten graph does not run: {error}") from error
    difference = np.abs(np.concatenate(parts) - logits).max()
    return float(difference / max(float(logits.std()), 1e-6))
