"""The speech that a judge is fitted to: folders of recordings, or of the generator's shards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from edgevoice.errors import AudioError
from edgevoice.export.distil import recordings, shards
from edgevoice.export.distil.shards import Clip
from edgevoice.frames import Float32, to_float32


def clips(
    folders: Sequence[Path],
    say: Callable[[str], object],
    usable: Callable[[str], bool] = lambda text: True,
) -> Sequence[Callable[[], Float32]]:
    """Return what reads each recording (float32, 16 kHz) in ``folders``; say how many there are.

    What cannot be read is said when it is read, and comes empty. ``usable`` decides by the text,
    where the generator wrote one.
    """
    found: list[Callable[[], Float32]] = []
    for folder in folders:
        before = len(found)
        found += list(_of(folder, say, usable))
        say(f"{folder}: {len(found) - before} recordings")
    return found


def _of(
    folder: Path, say: Callable[[str], object], usable: Callable[[str], bool]
) -> Iterator[Callable[[], Float32]]:
    if any(folder.glob("*.pcm")):
        for clip in shards.clips(folder):
            if usable(clip.line.text):
                yield partial(_samples, clip)
        return
    for path in recordings.find(folder):
        yield partial(_read, path, say)


def _samples(clip: Clip) -> Float32:
    return to_float32(clip.samples())


def _read(path: Path, say: Callable[[str], object]) -> Float32:
    try:
        return recordings.read(path)
    except AudioError as error:
        say(f"{error}; left out")
        return np.zeros(0, np.float32)  # Too short to be a turn.
