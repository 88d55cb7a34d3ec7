"""Recordings that recognisers are judged by: the user's, or what this machine has and can make.

The default is five LibriVox clips where Debian's ``pocketsphinx-testdata`` is installed, and
questions said by voices that are not the agent's. They are other sentences than those that
calibration uses. Nothing is downloaded.
"""

from __future__ import annotations

import re
from pathlib import Path

from edgevoice.audio.resample import resample
from edgevoice.audio.wav import read_wav
from edgevoice.errors import ConfigError
from edgevoice.export.calibration import TRANSCRIPTS, Clip, default_sentences, recordings
from edgevoice.frames import SAMPLE_RATE_HZ, to_float32
from edgevoice.questions import speak_questions

LIBRIVOX = Path("/usr/share/pocketsphinx/test/data/librivox")
_LINE = re.compile(r"<s> (.*) </s> \((.*)\)")  # CMU Sphinx's transcription files


def clips(material: Path | None) -> tuple[Clip, ...]:
    """Return recordings to recognise, each with its words where they are known.

    Args:
        material: Folder with ``*.wav`` and ``transcripts.tsv`` (``file<TAB>text``); None for the
            default.

    Raises:
        ConfigError: The folder has no recordings, or no words for any of them.
        MissingDependencyError: The default needs flite or espeak-ng, and neither is here.
    """
    if material is None:
        return (*librivox(), *spoken_questions())
    found = tuple(recordings(material))
    if not any(clip.text for clip in found):
        raise ConfigError(
            f"{material} has {len(found)} *.wav and words for none of them; write what is said "
            f"into {TRANSCRIPTS}, one line a file: its name, a tab, the words"
        )
    return found


def librivox() -> tuple[Clip, ...]:
    """Return Debian's clips of read speech, none where they are not installed."""
    listing = LIBRIVOX / "transcription"
    if not listing.is_file():
        return ()
    found = []
    for line in listing.read_text(encoding="utf-8").splitlines():
        match = _LINE.fullmatch(line.strip())
        if match and (path := LIBRIVOX / f"{match[2]}.wav").is_file():
            samples, rate_hz = read_wav(path)
            found.append(Clip(path.name, resample(samples, rate_hz, SAMPLE_RATE_HZ), match[1]))
    return tuple(found)


def spoken_questions() -> tuple[Clip, ...]:
    """Return the project's own sentences, said on this machine."""
    sentences = default_sentences("questions")
    return tuple(
        Clip(said.name, to_float32(said.samples), text)
        for said, text in zip(speak_questions(sentences), sentences, strict=True)
    )
