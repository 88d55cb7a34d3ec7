"""The user's speech as shards: recordings with their words, or with words that recognisers write.

A folder is either shards already (what :mod:`edgevoice.export.distil.generate` makes) or recordings
(:mod:`edgevoice.export.distil.recordings`). With a labeller
(:mod:`edgevoice.export.distil.labels`), recordings without words get those that are heard. Owns
what is taken and what is left out, and saying so: all that is left out is listed in
:data:`LEFT_OUT` beside the shards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgevoice.errors import AudioError, ConfigError
from edgevoice.export.calibration import TRANSCRIPTS
from edgevoice.export.distil import recordings, shards
from edgevoice.export.distil.labels import Label, Labeller
from edgevoice.export.distil.sentences import transcript
from edgevoice.export.distil.shards import Line
from edgevoice.frames import SAMPLE_RATE_HZ, Float32, Int16, to_int16
from edgevoice.whole_file import write_whole

LEFT_OUT = "left-out.txt"
"""A line for each recording that is not used: its file, why, and what that was seen by. Written
last: a folder without it is not whole."""
LONGEST_S = 30.0
"""Whisper hears no more at once, and a clip must fit into its positions."""
_SHORTEST_S = 0.3
_QUIETEST = 1e-3
_SHARD_CLIPS = 200
_MOST_NAMED = 20


@dataclass(slots=True)
class _LeftOut:
    """What is not used, and why."""

    folder: Path
    say: Callable[[str], object]
    lines: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    named: int = 0
    unweighed: int = 0

    def add(self, path: Path, why: str, detail: str) -> None:
        """Count and list one; what was seen of it is said, of the first ones."""
        self.reasons[why] += 1
        self.lines.append("\t".join((str(path.relative_to(self.folder)), why, detail)))
        if detail and self.named < _MOST_NAMED:
            self.named += 1
            self.say(f"{path.name}: {detail}; left out")

    def __str__(self) -> str:
        return ", ".join(f"{count} {why}" for why, count in self.reasons.most_common())


def as_shards(
    folder: Path,
    out: Path,
    *,
    labeller: Labeller | None,
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
    for stale in out.glob("[0-9]*"):  # of a run that was interrupted
        stale.unlink()
    left_out = _LeftOut(folder, say)
    pending: list[tuple[Int16, Line]] = []
    number = taken = 0
    for clip in _usable(found, labeller, left_out):
        pending.append(clip)
        taken += 1
        if len(pending) == _SHARD_CLIPS:
            shards.write(out, number, pending)
            number, pending = number + 1, []
    if pending:
        shards.write(out, number, pending)
    if not taken:
        raise ConfigError(f"{folder}: none of {len(found)} recordings can be used: {left_out}")
    write_whole(out / LEFT_OUT, "".join(f"{line}\n" for line in left_out.lines).encode())
    if left_out.reasons:
        say(
            f"{folder}: {taken} recordings taken, left out: {left_out}; {out / LEFT_OUT} lists them"
        )
    if left_out.unweighed:
        say(
            f"{folder}: {left_out.unweighed} recordings have the words of a recogniser that does "
            "not say how sure it is; with a second --label-with, what both hear is taken"
        )
    return out


def _usable(
    found: list[Path], labeller: Labeller | None, left_out: _LeftOut
) -> Iterator[tuple[Int16, Line]]:
    written = recordings.words(left_out.folder)
    for path in found:
        try:
            samples = recordings.read(path)
        except AudioError as error:
            left_out.say(str(error))
            left_out.add(path, "that cannot be read", "")
            continue
        label = Label(written.get(path.stem, ""), _unfit(samples))
        if not label.why and labeller is not None:
            label = labeller.label(samples, label.text)
        why = label.why
        if not why and not transcript(label.text):
            why = f"without words ({TRANSCRIPTS}, or --label-with)"
        if why:
            left_out.add(path, why, label.detail)
            continue
        left_out.unweighed += not label.weighed
        yield to_int16(samples), Line(0, 0, label.text, path.parent.name, path.name, "the user's")


def _unfit(samples: Float32) -> str:
    seconds = len(samples) / SAMPLE_RATE_HZ
    if seconds > LONGEST_S:
        return f"longer than {LONGEST_S:g} s"
    if seconds < _SHORTEST_S:
        return f"shorter than {_SHORTEST_S:g} s"
    return "silent" if float(np.abs(samples).max()) < _QUIETEST else ""
