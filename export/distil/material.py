"""The user's speech as shards: recordings with their words, or with words that a recogniser writes.

A folder is either shards already (what :mod:`edgevoice.export.distil.generate` makes) or recordings
(:mod:`edgevoice.export.distil.recordings`). With a recogniser to label with, recordings without
words get its words, and words that have little to do with what it hears are dropped. Owns what is
taken and what is left out, and saying so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from edgevoice.errors import AudioError, ConfigError
from edgevoice.export import words
from edgevoice.export.calibration import TRANSCRIPTS
from edgevoice.export.distil import recordings, shards
from edgevoice.export.distil.sentences import transcript
from edgevoice.export.distil.shards import Line
from edgevoice.frames import SAMPLE_RATE_HZ, Float32, Int16, to_int16
from edgevoice.stages import RecogniserModel

LONGEST_S = 30.0
"""Whisper hears no more at once, and a clip must fit into its positions."""
_SHORTEST_S = 0.3
_QUIETEST = 1e-3
_SHARD_CLIPS = 200
_MOST_WRONG = 0.6
"""Word errors between what is written and what the recogniser hears: above it, the transcript is
another clip's. Whisper tiny.en reads clean speech with a tenth of that."""


def as_shards(
    folder: Path,
    out: Path,
    *,
    label_with: RecogniserModel | None,
    say: Callable[[str], object],
) -> Path:
    """Return a folder of shards with the speech in ``folder``: itself, or ``out``, filled.

    Raises:
        ConfigError: There is no folder, no recording, or nothing that can be used.
    """
    if any(folder.glob("*.pcm")):
        return folder
    found = recordings.find(folder)
    out.mkdir(parents=True, exist_ok=True)
    left_out: Counter[str] = Counter()
    pending: list[tuple[Int16, Line]] = []
    number = taken = 0
    for clip in _usable(folder, found, label_with, left_out, say):
        pending.append(clip)
        taken += 1
        if len(pending) == _SHARD_CLIPS:
            shards.write(out, number, pending)
            number, pending = number + 1, []
    if pending:
        shards.write(out, number, pending)
    reasons = ", ".join(f"{count} {why}" for why, count in left_out.most_common())
    if not taken:
        raise ConfigError(f"{folder}: none of {len(found)} recordings can be used: {reasons}")
    if reasons:
        say(f"{folder}: {taken} recordings taken, left out: {reasons}")
    return out


def _usable(
    folder: Path,
    found: list[Path],
    label_with: RecogniserModel | None,
    left_out: Counter[str],
    say: Callable[[str], object],
) -> Iterator[tuple[Int16, Line]]:
    written = recordings.words(folder)
    for path in found:
        try:
            samples = recordings.read(path)
        except AudioError as error:
            say(str(error))
            left_out["that cannot be read"] += 1
            continue
        text = written.get(path.stem, "")
        why = _unfit(samples)
        if not why and label_with is not None:
            heard = _heard(label_with, samples)
            if not heard:
                why = "without speech"
            elif text and _wrong(text, heard) > _MOST_WRONG:
                say(f"{path.name}: written is {text[:60]!r}, said is {heard[:60]!r}; left out")
                why = "with words that are not what is said"
            text = text or heard
        if not why and not transcript(text):
            why = f"without words ({TRANSCRIPTS}, or --label-with)"
        if why:
            left_out[why] += 1
            continue
        yield to_int16(samples), Line(0, 0, text, path.parent.name, path.name, "the user's")


def _unfit(samples: Float32) -> str:
    seconds = len(samples) / SAMPLE_RATE_HZ
    if seconds > LONGEST_S:
        return f"longer than {LONGEST_S:g} s"
    if seconds < _SHORTEST_S:
        return f"shorter than {_SHORTEST_S:g} s"
    return "silent" if float(np.abs(samples).max()) < _QUIETEST else ""


def _heard(model: RecogniserModel, samples: Float32) -> str:
    recogniser = model.open()
    recogniser.accept(samples)
    return recogniser.conclude().text


def _wrong(text: str, heard: str) -> float:
    said = words.spelled(text)
    return words.word_errors(said, words.spelled(heard)) / max(len(said), 1)
