"""Spoken questions: from files, or made with a voice that is not the agent's (a demonstration).

flite's voices come from recorded people and differ from each other; espeak-ng stands in.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgevoice.audio.resample import resample
from edgevoice.audio.wav import read_wav
from edgevoice.errors import AudioError, MissingDependencyError
from edgevoice.frames import SAMPLE_RATE_HZ, Int16, to_int16

QUESTIONS = (
    "What is the capital of France?",
    "How many legs does a spider have?",
    "What is the capital of Italy?",
    "Is the sun hot or cold?",
    "What language do people speak in Spain?",
)

_FLITE_VOICES = ("slt", "rms", "awb")


@dataclass(frozen=True, slots=True)
class SpokenQuestion:
    """A question as sound.

    Attributes:
        name: Where it came from: a file, or who spoke what.
        samples: int16, mono, 16 kHz, shape ``[n]``.
    """

    name: str
    samples: Int16


def from_file(path: Path) -> SpokenQuestion:
    """Read a question from a WAV file of any rate. Raises :class:`AudioError`."""
    samples, rate_hz = read_wav(path)
    return SpokenQuestion(str(path), to_int16(resample(samples, rate_hz, SAMPLE_RATE_HZ)))


def speak_questions(texts: Sequence[str] = QUESTIONS) -> list[SpokenQuestion]:
    """Make ``texts`` into sound, by turns with each of the other voices.

    Raises:
        MissingDependencyError: Neither flite nor espeak-ng is installed.
    """
    with tempfile.TemporaryDirectory(prefix="edgevoice-") as folder:
        return [
            _speak(text, _command(number), Path(folder) / f"{number}.wav")
            for number, text in enumerate(texts)
        ]


def _command(number: int) -> tuple[str, list[str]]:
    if shutil.which("flite"):
        voice = _FLITE_VOICES[number % len(_FLITE_VOICES)]
        return f"flite {voice}", ["flite", "-voice", voice, "-o", "{wav}", "-t", "{text}"]
    if shutil.which("espeak-ng"):
        return "espeak-ng", ["espeak-ng", "-v", "en-us+f3", "-s", "140", "-w", "{wav}", "{text}"]
    raise MissingDependencyError(
        "no voice to ask questions with; apt install flite (or espeak-ng), or bring your own: "
        "edgevoice talk --wav question.wav --out answer.wav"
    )


def _speak(text: str, command: tuple[str, list[str]], wav: Path) -> SpokenQuestion:
    voice, pattern = command
    arguments = [part.format(wav=wav, text=text) for part in pattern]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode or not wav.is_file():
        raise AudioError(f"{voice} cannot say {text!r}: {done.stderr.strip()[-200:]}")
    return SpokenQuestion(f"{voice}: {text}", from_file(wav).samples)
