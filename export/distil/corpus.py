"""The speech of a training: what is heard, and what is held out to judge by.

One utterance in a hundred of the training speech is held out, by a hash of what it is, so that it
stays held out as more speech comes. Owns the division; the format is
:mod:`edgevoice.export.distil.shards`'s.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgevoice.errors import ConfigError, ExportError
from edgevoice.export.distil import shards
from edgevoice.export.distil.shards import Clip
from edgevoice.frames import SAMPLE_RATE_HZ

OWN = "held-out"
"""The name of what is held out of the training speech."""
_ONE_IN = 100
_MOST_HELD_OUT = 60


@dataclass(frozen=True, slots=True)
class Corpus:
    """Speech to train on, and by name speech to judge by."""

    training: Sequence[Clip]
    held_out: Mapping[str, Sequence[Clip]]

    def summary(self) -> str:
        """Return one line: how much there is."""
        hours = sum(clip.line.samples for clip in self.training) / SAMPLE_RATE_HZ / 3600.0
        speakers = len({clip.line.speaker for clip in self.training})
        judged = ", ".join(f"{len(clips)} of {name}" for name, clips in self.held_out.items())
        return (
            f"{hours:.2f} hours, {len(self.training)} utterances, {speakers} speakers; judged by "
            f"{judged or 'nothing'}"
        )


def read(folders: Iterable[Path], evaluate: Iterable[str]) -> Corpus:
    """Read the shards in ``folders``, and those to judge by: ``NAME=FOLDER``.

    Raises:
        ConfigError: There is no speech in a folder, or no name.
        ArtifactError: A shard is damaged.
    """
    training: list[Clip] = []
    own: list[Clip] = []
    for folder in folders:
        for clip in _some(folder):
            (own if held_out(clip) else training).append(clip)
    if not own and len(training) > 1:  # so little speech that the hash chose none of it
        own.append(training.pop(0))
    judged = {OWN: own[:_MOST_HELD_OUT]} if own else {}
    for pair in evaluate:
        name, _, folder_name = pair.partition("=")
        if not folder_name:
            raise ConfigError(f"--evaluate {pair}: write NAME=FOLDER")
        judged[name] = _some(Path(folder_name))
    if not training:
        raise ExportError("all of the speech is held out; more of it is needed")
    return Corpus(training, judged)


def held_out(clip: Clip) -> bool:
    """Say whether ``clip`` is never trained on."""
    named = f"{clip.line.speaker}\t{clip.line.text}".encode()
    return zlib.crc32(named) % _ONE_IN == 0


def _some(folder: Path) -> list[Clip]:
    found = list(shards.clips(folder))
    if not found:
        raise ConfigError(f"{folder} has no speech: no NUMBER.tsv beside a NUMBER.pcm")
    return found
