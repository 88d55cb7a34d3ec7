"""Distilling with torch itself, from scratch on a small configuration. Not of every change's tests:

    python -m pytest tests/slow_distil.py

installs torch into an environment of its own; EDGEVOICE_TORCH_PYTHON names an interpreter that has
it already.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ctranslate2_file import write_small_whisper

import edgevoice
from edgevoice.engines.recogniser import load_unguarded
from edgevoice.errors import EXIT_INTERRUPTED, ExportError
from edgevoice.export.calibration import default_sentences
from edgevoice.export.distil import distilling, material, preparing, shards, torch_side
from edgevoice.export.distil.distilling import Distiller, Request
from edgevoice.export.distil.shards import Line
from edgevoice.export.families import pack_search
from edgevoice.progress import silent
from edgevoice.questions import speak_questions

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def python() -> str:
    return str(torch_side.interpreter(os.environ.get("EDGEVOICE_TORCH_PYTHON", ""), silent))


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_whisper(tmp_path_factory.mktemp("whisper"))


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("speech")
    sentences = default_sentences("calibration")[:40]
    said = zip(speak_questions(sentences), sentences, strict=True)
    lines = [(s.samples, Line(0, 0, text, s.name, "calibration", "ours")) for s, text in said]
    shards.write(folder, 0, lines)
    return folder


@pytest.fixture
def request_(tmp_path: Path, whisper: Path, speech: Path, python: str) -> Request:
    return Request(
        whisper=whisper,
        speech=(speech,),
        work=tmp_path / "work",
        chunk_ms=320.0,
        left_ms=960.0,
        frozen_steps=30,
        steps=60,
        batch_frames=1500,
        device="cpu",
        python=python,
        threads=1,
    )


@pytest.mark.parametrize("pieces", [0, 44])
def test_the_loss_falls_and_the_pack_reads_as_torch_does(request_: Request, pieces: int) -> None:
    pack = Distiller(silent, print).run(replace(request_, pieces=pieces))
    lines = (request_.work / "progress.jsonl").read_text().splitlines()
    losses = [figures["loss"] for line in lines if "loss" in (figures := json.loads(line))]
    assert losses[-1] < 0.7 * losses[0]
    assert losses[-1] < losses[1]
    engine = {"sample_rate_hz": 16_000, "chunk_size": 16, "num_left_chunks": 3, "subsampling": 2}
    pack_search.describe(pack, distilling.FAMILY, engine)
    recogniser = load_unguarded(pack).open()
    recogniser.accept(np.zeros(32_000, np.float32))
    assert len(recogniser.conclude().text) < 20


def test_an_interrupted_training_goes_on_as_if_it_had_not_been(request_: Request) -> None:
    whole = replace(request_, frozen_steps=10, steps=20)
    Distiller(silent, print).run(whole)
    cut = replace(whole, work=whole.work.with_name("cut"))
    # The trainer itself, told to report every step and ended by a signal after the twelfth.
    preparing.prepare(
        preparing.Wanted(
            cut.whisper, cut.speech, chunk=16, left=48, stages=distilling.stages_of(cut),
            batch_frames=1500,
        ),
        cut.work,
    )  # fmt: skip
    launch = Path(torch_side.__file__).with_name("launch.py")
    command = [cut.python, "-P", str(launch), str(Path(edgevoice.__file__).parent)]
    command += ["edgevoice.export.distil.train", str(cut.work), f"--speech={cut.speech[0]}"]
    command += ["--device=cpu", "--report-steps=1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        for line in child.stdout:
            if '"step": 12,' in line:
                child.send_signal(signal.SIGTERM)
    assert child.returncode == EXIT_INTERRUPTED
    assert subprocess.run(command, stdout=subprocess.PIPE, check=False).returncode == 0
    before, after = (np.load(r.work / "weights.npz") for r in (whole, cut))
    for name in before.files:
        assert np.abs(before[name] - after[name]).max() < 1e-5, name


def test_a_checkpoint_of_another_training_is_refused(request_: Request) -> None:
    short = replace(request_, frozen_steps=2, steps=2)
    Distiller(silent, print).run(short)
    (short.work / "plan.json").unlink()
    with pytest.raises(ExportError, match=r"checkpoint.pt is of another training \(seed\)"):
        Distiller(silent, print).run(replace(short, seed=4))


def test_streams_of_recordings_are_shards(tmp_path: Path, speech: Path) -> None:
    assert material.as_shards(speech, tmp_path / "x", labeller=None, say=print) == speech
