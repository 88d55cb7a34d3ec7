"""What the benchmarks say to an agent: recordings with their text.

Questions are spoken by flite's voices, none of which is the agent's. Human speech comes from
Debian's `pocketsphinx-testdata` (five LibriVox clips), and from any folder with a
`transcripts.tsv` (read with sox).
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from edgevoice.audio.resample import resample
from edgevoice.audio.wav import read_wav
from edgevoice.frames import SAMPLE_RATE_HZ, Float32

LIBRIVOX = Path("/usr/share/pocketsphinx/test/data/librivox")
VOICES = ("slt", "rms", "awb", "kal16")

QUESTIONS = (
    "What is the capital of France?",
    "How many days are there in a week?",
    "What is the largest animal on earth?",
    "Why is the sky blue?",
    "Tell me a story about a dog.",
    "How do I make a cup of tea?",
    "Who wrote Romeo and Juliet?",
    "How do birds fly?",
    "What is a computer?",
    "What color is grass?",
    "How does rain form?",
    "Tell me about elephants.",
    "Who painted the Mona Lisa?",
    "How do I boil an egg?",
    "What should I cook for dinner tonight?",
    "How do airplanes stay in the air?",
    "What is the largest ocean?",
    "Why do cats purr?",
    "Who invented the telephone?",
    "Can dogs eat chocolate?",
    "How many hours should I sleep?",
    "Where do penguins live?",
    "What happens when water freezes?",
    "Should I take an umbrella today?",
    "How far away is the moon?",
)
LONG_ANSWERS = (
    "Tell me about the planet Venus.",
    "Tell me a story about a dog.",
    "Tell me about the planet Mars.",
    "Explain how a bicycle works.",
    "Tell me about the history of Rome.",
    "Describe the ocean.",
    "Tell me about elephants.",
    "Give me some advice for sleeping better.",
    "How does rain form?",
    "Why do we dream?",
)
"""Asked for the interruptions: SmolLM2-135M speaks for more than 8 s about each of these."""
INTERRUPTIONS = (
    "Stop, please.",
    "Wait a moment.",
    "Hold on, I have another question.",
    "Okay, that is enough.",
    "No, that is not what I meant.",
)


@dataclass(frozen=True, slots=True)
class Recording:
    """One utterance: a WAV file and what is said in it."""

    name: str
    path: Path
    text: str
    human: bool


def speak(text: str, voice: str, path: Path) -> Path:
    """Let flite say ``text`` into ``path``."""
    if shutil.which("flite") is None:
        raise SystemExit("flite is not installed; `apt-get install flite` mends it")
    subprocess.run(["flite", "-voice", voice, "-t", text, "-o", str(path)], check=True)
    return path


def read_speech(path: Path) -> Float32:
    """Return a WAV file's sound: float32, 16 kHz."""
    recorded, rate_hz = read_wav(path)
    return resample(recorded, rate_hz, SAMPLE_RATE_HZ)


def questions(folder: Path) -> list[Recording]:
    """Return the spoken questions, voices in turn."""
    made = []
    for number, text in enumerate(QUESTIONS):
        voice = VOICES[number % len(VOICES)]
        path = speak(text, voice, folder / f"question-{number:02d}-{voice}.wav")
        made.append(Recording(path.stem, path, text, human=False))
    return made


def interruptions(folder: Path) -> list[tuple[Recording, Recording]]:
    """Return pairs: a question whose answer is long, and what is said over that answer."""
    pairs = []
    for number, text in enumerate(LONG_ANSWERS):
        voice = VOICES[number % len(VOICES)]
        asked = speak(text, voice, folder / f"long-{number:02d}-{voice}.wav")
        words = INTERRUPTIONS[number % len(INTERRUPTIONS)]
        over = speak(words, voice, folder / f"over-{number:02d}-{voice}.wav")
        pairs.append(
            (
                Recording(asked.stem, asked, text, human=False),
                Recording(over.stem, over, words, human=False),
            )
        )
    return pairs


def librivox() -> list[Recording]:
    """Return the LibriVox clips, none where the Debian package is not installed."""
    listing = LIBRIVOX / "transcription"
    if not listing.is_file():
        return []
    found = []
    for line in listing.read_text(encoding="utf-8").splitlines():
        match = re.fullmatch(r"<s> (.*) </s> \((.*)\)", line.strip())
        if match and (path := LIBRIVOX / f"{match[2]}.wav").is_file():
            found.append(Recording(match[2], path, match[1], human=True))
    return found


def from_folder(folder: Path, wav_folder: Path) -> list[Recording]:
    """Return the recordings that ``folder/transcripts.tsv`` lists (file, tab, text), as WAV."""
    found = []
    for line in (folder / "transcripts.tsv").read_text(encoding="utf-8").splitlines():
        name, _, text = line.partition("\t")
        path = wav_folder / f"{Path(name).stem}.wav"
        sox = ["sox", str(folder / name), "-r", "16000", "-c", "1", "-b", "16", str(path)]
        subprocess.run(sox, check=True)
        found.append(Recording(path.stem, path, text, human=True))
    return found
