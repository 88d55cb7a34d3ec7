"""What stands where torch and its checkpoints would stand: an interpreter, and weights unread."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import tiny_family

from edgevoice.export.calibration import Calibration
from edgevoice.export.family import Job


def job(folder: Path, program: str) -> Job:
    """Return a job whose interpreter runs the tests' ``program``, whatever it is told to run."""
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), *sys.path])
    python = folder / "python"
    python.write_text(
        f'#!/bin/sh\nPYTHONPATH="{paths}" exec "{sys.executable}" "{here / program}" "$@"\n'
    )
    python.chmod(0o755)
    work = folder / "work"
    work.mkdir()
    return Job(work, Calibration(), threads=1, options={"python": str(python)})


def write_weights(folder: Path) -> None:
    """Write a checkpoint's weights: one tensor of four numbers."""
    tiny_family.write_safetensors(folder / "model.safetensors", {"w": np.zeros(4)})
