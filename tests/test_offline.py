"""A whole conversation where there is no network at all: not even loopback is up."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from spoken import speak

from edgevoice.audio.wav import read_wav

pytestmark = [pytest.mark.bundle, pytest.mark.network_namespace]


@pytest.fixture(scope="module")
def isolated() -> list[str]:
    """The command that runs another one without a network."""
    tried = []
    assert shutil.which("unshare"), "unshare is missing; apt install util-linux"
    for command in (["unshare", "-n"], ["unshare", "-rn"]):
        done = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return command
        tried.append(f"{' '.join(command)}: {done.stderr.strip()}")
    pytest.fail(f"no network namespace can be made ({'; '.join(tried)}); run as root")


def test_the_namespace_has_no_way_out(isolated: list[str]) -> None:
    connect = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=5)"
    done = subprocess.run(
        [*isolated, sys.executable, "-c", connect], capture_output=True, text=True, check=False
    )
    assert "Network is unreachable" in done.stderr


def test_a_conversation_needs_no_network(isolated: list[str], tmp_path: Path) -> None:
    question = speak("What is the capital of France?", tmp_path / "question.wav")
    answer = tmp_path / "answer.wav"
    done = subprocess.run(
        [
            *[*isolated, sys.executable, "-m", "edgevoice", "talk", "--fast", "--json"],
            *["--wav", str(question), "--out", str(answer)],
        ],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (turn,) = json.loads(done.stdout)["turns"]
    assert turn["user"] == "What is the capital of France?"
    assert "Paris" in turn["agent"]
    samples, _ = read_wav(answer)
    assert np.abs(samples).max() > 0.05
