"""The same conversation through a real PulseAudio server, PyAudio on both ends."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pulse import PulseServer, Recorder, loud_ms
from spoken import speak

from edgevoice.questions import from_file

pytestmark = [pytest.mark.bundle, pytest.mark.pulse]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PulseServer]:
    running = PulseServer(tmp_path)
    yield running
    running.kill()


@pytest.mark.parametrize("port", ["pyaudio", "pulse"])
def test_question_and_answer_through_a_sound_server(
    server: PulseServer, tmp_path: Path, port: str
) -> None:
    question = from_file(speak("What is the capital of France?", tmp_path / "question.wav"))
    speaker = Recorder(server)
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "edgevoice", "talk", "--set", f"audio.port={port}", "--json"],
        env={**os.environ, **server.env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for_microphone(server, process)
        # Some silence first, as in a room.
        server.say(np.pad(question.samples, (16_000, 8_000))).wait()
        said = printed(process, "agent > ")
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    played = speaker.stop()

    assert process.returncode == 0, errors
    result = json.loads(out)
    (turn,) = result["turns"]
    assert turn["user"] == "What is the capital of France?"
    assert "Paris" in turn["agent"]
    assert turn["agent"] in said
    assert not turn["interrupted"]
    assert result["dropped_frames"] == 0
    # "The capital of France is Paris." takes about two seconds.
    assert 1000 < loud_ms(played) < 8000


def wait_for_microphone(server: PulseServer, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 120
    while not server.pactl("list", "short", "source-outputs").count("\n") > 1:
        # One is the test's own recorder.
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "the microphone was never opened"
        time.sleep(0.1)


def printed(process: "subprocess.Popen[str]", start: str) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(start):
            return line
    pytest.fail(f"edgevoice ended before it printed {start!r}")
