"""Speech and text that quantisation is calibrated with.

A folder of the user's own: recordings (WAV), with ``transcripts.tsv`` (``file<TAB>text``) where
their words are known, and ``*.txt`` with one sentence, question or paragraph a line. The default
is made on this machine: sentences that lie beside this module, said by other voices than the
agent's (flite, espeak-ng). Nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from edgevoice.audio.resample import resample
from edgevoice.audio.wav import read_wav
from edgevoice.errors import ConfigError
from edgevoice.frames import SAMPLE_RATE_HZ, Float32, to_float32
from edgevoice.questions import speak_questions

TRANSCRIPTS = "transcripts.tsv"
_DEFAULT_CLIPS = 24


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording.

    Attributes:
        name: The file, or who said it.
        samples: float32, mono, 16 kHz, shape ``[n]``.
        text: What is said; "" when nobody wrote it down.
    """

    name: str
    samples: Float32
    text: str = ""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Where calibration speech and text lie; read when they are needed.

    ``folder`` is the user's (``--calibrate``), None for the project's own.
    """

    folder: Path | None = None

    def sentences(self) -> tuple[str, ...]:
        """Return text to calibrate with: one sentence, question or paragraph an item.

        Raises:
            ConfigError: The user's folder has no text.
        """
        if self.folder is None:
            return default_sentences("calibration")
        lines = [line for path in sorted(self.folder.glob("*.txt")) for line in _lines(path)]
        lines += [clip.text for clip in recordings(self.folder) if clip.text]
        if not lines:
            raise ConfigError(
                f"{self.folder} has no text to calibrate with; put sentences, one a line, into a "
                f"*.txt, or the recordings' words into {TRANSCRIPTS}"
            )
        return tuple(lines)

    def clips(self) -> tuple[Clip, ...]:
        """Return speech to calibrate with.

        Raises:
            ConfigError: The user's folder has no recordings.
            MissingDependencyError: The default needs flite or espeak-ng, and neither is here.
        """
        if self.folder is None:
            sentences = default_sentences("calibration")[:_DEFAULT_CLIPS]
            return tuple(
                Clip(said.name, to_float32(said.samples), text)
                for said, text in zip(speak_questions(sentences), sentences, strict=True)
            )
        clips = tuple(recordings(self.folder))
        if not clips:
            raise ConfigError(
                f"{self.folder} has no *.wav to calibrate with; leave --calibrate away for the "
                "project's own speech"
            )
        return clips


def default_sentences(name: str) -> tuple[str, ...]:
    """Return the project's own text ``name``, one of those in ``texts``."""
    text = resources.files(__package__).joinpath("texts", f"{name}.txt").read_text("utf-8")
    return tuple(line for line in text.splitlines() if line.strip())


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error}") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def recordings(folder: Path) -> Iterator[Clip]:
    """Yield every ``*.wav`` in ``folder`` at 16 kHz, with its words from ``transcripts.tsv``."""
    words: dict[str, str] = {}
    table = folder / TRANSCRIPTS
    for line in _lines(table) if table.is_file() else ():
        name, _, text = line.partition("\t")
        words[Path(name).stem] = text
    for path in sorted(folder.glob("*.wav")):
        samples, rate_hz = read_wav(path)
        yield Clip(path.name, resample(samples, rate_hz, SAMPLE_RATE_HZ), words.get(path.stem, ""))
