"""Speech on disk: shards of int16 samples, each with a table of who says what in it.

A shard is `NUMBER.pcm` (16 kHz, little-endian, utterances one after the other) and `NUMBER.tsv`,
one line an utterance. The table is renamed into place last: a shard without one does not exist.
Owns the format; what is in it is its makers' business.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np

from edgevoice.errors import ArtifactError
from edgevoice.frames import Int16
from edgevoice.whole_file import write_whole


@dataclass(frozen=True, slots=True)
class Line:
    """One utterance.

    Attributes:
        start: Its first sample in the shard.
        samples: How many there are.
        text: What is said, as it was given to the voice or written by people.
        speaker: Who says it.
        source: Where the text comes from.
        licence: What the recording may be used under.
    """

    start: int
    samples: int
    text: str
    speaker: str
    source: str
    licence: str


@dataclass(frozen=True, slots=True)
class Clip:
    """An utterance to read: a line of a shard's table and where its sound lies."""

    file: Path
    line: Line

    @property
    def name(self) -> str:
        """What it is called in messages and checkpoints: its shard and its first sample."""
        return f"{self.file.parent.name}/{self.file.stem}@{self.line.start}"

    def samples(self) -> Int16:
        """Return the sound, int16 at 16 kHz, shape [n]."""
        return np.fromfile(self.file, "<i2", count=self.line.samples, offset=2 * self.line.start)


HEADER = "\t".join(field.name for field in fields(Line))


def write(folder: Path, number: int, utterances: Iterable[tuple[Int16, Line]]) -> int:
    """Write shard ``number``; each line's ``start`` is set here. Return the samples in it.

    Raises:
        OSError: The disk is full or cannot be written.
    """
    lines, parts, start = [HEADER], [], 0
    for samples, line in utterances:
        at = (start, len(samples), *astuple(line)[2:])
        lines.append("\t".join(" ".join(str(value).split()) for value in at))
        parts.append(samples.astype("<i2").tobytes())
        start += len(samples)
    write_whole(folder / f"{number:06d}.pcm", b"".join(parts))
    write_whole(folder / f"{number:06d}.tsv", ("\n".join(lines) + "\n").encode())
    return start


def exists(folder: Path, number: int) -> bool:
    """Say whether shard ``number`` is there, whole."""
    return (folder / f"{number:06d}.tsv").is_file()


def clips(folder: Path) -> Iterator[Clip]:
    """Yield the utterances of all shards in ``folder``, in order.

    Raises:
        ArtifactError: A table is damaged, or its sound is missing or shorter than it says.
    """
    for table in sorted(folder.glob("*.tsv")):
        sound = table.with_suffix(".pcm")
        held = sound.stat().st_size // 2 if sound.is_file() else 0
        rows = table.read_text(encoding="utf-8").splitlines()
        if not rows or rows[0] != HEADER:
            raise ArtifactError(f"{table}: not a shard's table; delete it, or make it again")
        for row in rows[1:]:
            start, samples, *rest = row.split("\t")
            line = Line(int(start), int(samples), *rest)
            if line.start + line.samples > held:
                raise ArtifactError(
                    f"{sound} has {held} samples, its table says more; delete both, or make them "
                    "again"
                )
            yield Clip(sound, line)
