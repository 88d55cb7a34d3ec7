"""Synthetic speakers: each utterance of a voice is by a speaker drawn anew.

Kokoro's style vectors are mixed at will, timbre and delivery apart (its decoder reads the first
half of a vector, its prosody the other); Piper voices vary in rate and noise; flite and espeak-ng
in rate, pitch and variant. Owns the drawing and the engines' quirks; what is said and where it goes
are others' business.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from edgevoice.audio.resample import resample
from edgevoice.audio.wav import read_wav
from edgevoice.engines import kokoro, piper
from edgevoice.engines.ort import open_on, sound
from edgevoice.engines.phonemes import phonemise
from edgevoice.engines.providers import ON_CPU
from edgevoice.errors import ArtifactError, MissingDependencyError
from edgevoice.frames import SAMPLE_RATE_HZ, Float32

_TIMBRE = kokoro.STYLE_SIZE // 2
_ENGLISH = ("a", "b")  # a Kokoro voice's name begins with its language
_ACCENTS = ("en-us", "en-gb", "en-gb-x-rp", "en-gb-scotland", "en-us-nyc")
_ACCENT_SHARES = (0.6, 0.2, 0.08, 0.06, 0.06)
_ESPEAK_ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-029")
_ESPEAK_VARIANTS = ("m1", "m2", "m3", "m4", "m5", "m6", "m7", "f1", "f2", "f3", "f4", "f5")
_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Utterance:
    """A sentence said.

    Attributes:
        samples: float32 in [-1, 1], 16 kHz, shape [n].
        speaker: Who said it, in words: the voice and what was drawn for it.
    """

    samples: Float32
    speaker: str


class Voice(Protocol):
    """Says sentences, each as a speaker drawn for it."""

    def speak(self, sentence: str, random: np.random.Generator) -> Utterance:
        """Return ``sentence`` said by a speaker that ``random`` draws."""


class KokoroMixtures:
    """Speakers mixed of Kokoro's style vectors.

    Args:
        folder: A Kokoro model: one `.onnx` and `voices/*.bin`.
        threads: Threads of one run.

    Raises:
        ArtifactError: It is not one, or has no English voice.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        graphs, voices = sorted(folder.glob("*.onnx")), sorted((folder / "voices").glob("*.bin"))
        if len(graphs) != 1 or not any(path.stem[0] in _ENGLISH for path in voices):
            raise ArtifactError(
                f"{folder}: a Kokoro model is one .onnx and voices/*.bin, English ones among them"
            )
        self._names = [path.stem for path in voices]
        self._styles = np.stack(
            [np.fromfile(path, "<f4").reshape(-1, kokoro.STYLE_SIZE)[:510] for path in voices]
        )
        self._session, _ = open_on(graphs[0], threads, ON_CPU)
        inputs = {i.name: i.type for i in self._session.get_inputs()}
        self._ids_name = "tokens" if "tokens" in inputs else "input_ids"
        self._speed_type = np.float32 if "float" in inputs["speed"] else np.int32

    def speak(self, sentence: str, random: np.random.Generator) -> Utterance:
        """Return ``sentence`` by a new mixture, in an accent of espeak-ng's, at 0.8 to 1.3."""
        timbre, timbre_said = self._mixture(random)
        delivery, delivery_said = self._mixture(random)
        accent = str(random.choice(_ACCENTS, p=_ACCENT_SHARES))
        speed = float(np.exp(random.normal(0.0, 0.12)).clip(0.8, 1.3))
        parts = []
        for phonemes in phonemise(sentence, accent):
            ids = kokoro.symbol_ids(phonemes)[:508]
            rows = self._styles[:, min(len(ids), self._styles.shape[1] - 1)]
            style = np.concatenate([timbre @ rows[:, :_TIMBRE], delivery @ rows[:, _TIMBRE:]])
            feed = {
                self._ids_name: np.array([[0, *ids, 0]], np.int64),
                "style": style[np.newaxis].astype(np.float32),
                "speed": np.array([speed], self._speed_type),
            }
            parts.append(sound(self._session.run(None, feed)[0]))
        samples = resample(np.concatenate(parts), kokoro.SAMPLE_RATE_HZ, SAMPLE_RATE_HZ)
        said = f"kokoro {timbre_said} delivery {delivery_said} {accent} x{speed:.2f}"
        return Utterance(samples, said)

    def _mixture(self, random: np.random.Generator) -> tuple[Float32, str]:
        """Return weights of the voices that sum to one: of one to four, one in five of them not
        English; one pair in three goes past its first voice, away from the second."""
        count = int(random.choice((1, 2, 3, 4), p=(0.1, 0.4, 0.3, 0.2)))
        english = np.array([name[0] in _ENGLISH for name in self._names])
        shares = np.where(english, 0.8 / english.sum(), 0.2 / max((~english).sum(), 1))
        chosen = random.choice(len(shares), count, replace=False, p=shares / shares.sum())
        mixed = random.dirichlet(np.full(count, 1.5))
        if count == 2 and random.random() < 1 / 3:
            beyond = random.uniform(0.05, 0.25)
            mixed = np.array([1 + beyond, -beyond])
        weights = np.zeros(len(shares), np.float32)
        weights[chosen] = mixed
        named = zip(chosen, mixed, strict=True)
        return weights, "+".join(f"{share:.2f}{self._names[i]}" for i, share in named)


class PiperVoice:
    """A Piper voice: each utterance by one of its speakers at a rate and with noise drawn for it.

    Args:
        folder: As :func:`edgevoice.engines.piper.load` takes it.
        threads: Threads of one run.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        self._name = folder.name
        self._config = piper.read_config(piper.find_files(folder)[1])
        self._symbols = piper.SymbolTable(self._config.symbol_ids)
        self._session, _ = open_on(piper.find_files(folder)[0], threads, ON_CPU)

    def speak(self, sentence: str, random: np.random.Generator) -> Utterance:
        """Return ``sentence`` at 0.75 to 1.35 of the voice's rate.

        A voice resampled as if it had been recorded at another rate is another speaker: pitch and
        formants move by up to an eighth.
        """
        speaker = int(random.integers(self._config.speakers))
        rate = float(np.exp(random.normal(0.0, 0.15)).clip(0.75, 1.35))
        size = float(random.uniform(0.88, 1.14))
        scales = (
            self._config.noise_scale * random.uniform(0.7, 1.2),
            self._config.length_scale / rate * size,
            self._config.noise_w * random.uniform(0.7, 1.2),
        )
        parts = []
        for phonemes in phonemise(sentence, self._config.espeak_voice):
            ids = np.array([self._symbols.ids(phonemes)], np.int64)
            feed = {
                "input": ids,
                "input_lengths": np.array([ids.shape[1]], np.int64),
                "scales": np.array(scales, np.float32),
            }
            if self._config.speakers > 1:
                feed["sid"] = np.array([speaker], np.int64)
            parts.append(sound(self._session.run(None, feed)[0]))
        rate_hz = round(self._config.sample_rate_hz * size)
        samples = resample(np.concatenate(parts), rate_hz, SAMPLE_RATE_HZ)
        said = f"piper {self._name} {speaker} x{rate:.2f} size {1 / size:.2f}"
        return Utterance(samples, said)


def flite(voice: str) -> Callable[[str, np.random.Generator], Utterance]:
    """Return a speaker of flite's ``voice`` (slt, rms, awb, kal, kal16) that varies."""

    def speak(sentence: str, random: np.random.Generator) -> Utterance:
        stretch = float(np.exp(random.normal(0.0, 0.12)).clip(0.75, 1.35))
        shift = float(random.uniform(0.8, 1.25))
        # Files of its own: flite writes no WAV to a pipe.
        with tempfile.NamedTemporaryFile(suffix=".wav") as made:
            _run(
                "flite", "-voice", voice, "--setf", f"duration_stretch={stretch:.3f}",
                "--setf", f"f0_shift={shift:.3f}", "-t", sentence, "-o", made.name,
            )  # fmt: skip
            samples = resample(*read_wav(Path(made.name)), SAMPLE_RATE_HZ)
        return Utterance(samples, f"flite {voice} stretch {stretch:.2f} pitch {shift:.2f}")

    return speak


def espeak(sentence: str, random: np.random.Generator) -> Utterance:
    """Return ``sentence`` by espeak-ng: accent, variant, pitch and rate drawn."""
    accent = str(random.choice(_ESPEAK_ACCENTS))
    variant = str(random.choice(_ESPEAK_VARIANTS))
    pitch, rate = int(random.integers(20, 80)), int(random.integers(120, 210))
    with tempfile.NamedTemporaryFile(suffix=".wav") as made:
        _run(
            "espeak-ng", "-v", f"{accent}+{variant}", "-p", str(pitch), "-s", str(rate),
            "-w", made.name, "--", sentence,
        )  # fmt: skip
        samples = resample(*read_wav(Path(made.name)), SAMPLE_RATE_HZ)
    return Utterance(samples, f"espeak-ng {accent}+{variant} pitch {pitch} rate {rate}")


class Speakers:
    """Several speakers of one kind, one of them drawn for each sentence."""

    def __init__(self, speakers: Sequence[Callable[[str, np.random.Generator], Utterance]]) -> None:
        self._speakers = speakers

    def speak(self, sentence: str, random: np.random.Generator) -> Utterance:
        """Return ``sentence`` by one of the speakers."""
        return self._speakers[int(random.integers(len(self._speakers)))](sentence, random)


def _run(*command: str) -> None:
    try:
        subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
            timeout=_TIMEOUT_S,
        )
    except FileNotFoundError:
        raise MissingDependencyError(
            f"{command[0]} is not installed; `apt install {command[0]}` or leave that voice out"
        ) from None
