"""The recordings of a folder and the words that are written beside them.

WAV is read by edgevoice itself; FLAC, Ogg and MP3 by soundfile (libsndfile), which only the
exporter has. Words come from `transcripts.tsv` (``file<TAB>words``) or from LibriSpeech's
`*.trans.txt` (``name words``), in the folder or below it. Owns what counts as a recording and as
its words; which are used is :mod:`edgevoice.export.distil.material`'s decision.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from edgevoice.audio.resample import resample
from edgevoice.audio.wav import read_wav
from edgevoice.errors import AudioError, ConfigError, MissingDependencyError
from edgevoice.export.calibration import TRANSCRIPTS
from edgevoice.frames import SAMPLE_RATE_HZ, Float32

_BY_SOUNDFILE = (".flac", ".ogg", ".mp3")
_LIBRISPEECH = "*.trans.txt"


def find(folder: Path) -> list[Path]:
    """Return the recordings in ``folder`` and below it, in order.

    Raises:
        ConfigError: There is no folder, or no recording in it.
    """
    if not folder.is_dir():
        raise ConfigError(f"no such folder: {folder}; --speech takes recordings or shards")
    suffixes = (".wav", *_BY_SOUNDFILE)
    found = [
        path
        for path in sorted(folder.rglob("*"))
        # Names that begin with a dot are what some systems keep beside a file.
        if path.suffix.lower() in suffixes and path.is_file() and not path.name.startswith(".")
    ]
    if not found:
        others = Counter(path.suffix for path in folder.rglob("*") if path.is_file())
        seen = ", ".join(f"{n} {suffix or 'without suffix'}" for suffix, n in others.most_common(3))
        raise ConfigError(
            f"{folder} has no recordings ({seen or 'it is empty'}); they end in "
            f"{', '.join(suffixes)}: convert others, for example: sox in.amr -r 16000 -c 1 out.wav"
        )
    return found


def read(path: Path) -> Float32:
    """Return a recording's samples: float32, 16 kHz, shape ``[n]``, channels mixed to one.

    Raises:
        AudioError: It cannot be read.
        MissingDependencyError: soundfile is needed and is not installed.
    """
    if path.suffix.lower() not in _BY_SOUNDFILE:
        return resample(*read_wav(path), SAMPLE_RATE_HZ)
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: the library itself is missing
        raise MissingDependencyError(
            f"{path.name} needs soundfile to be read: pip install 'edgevoice[export]' ({error})"
        ) from error
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{path} cannot be read: {error.error_string}") from error
    mixed: Float32 = np.ascontiguousarray(samples.mean(axis=1), np.float32)
    return resample(mixed, rate, SAMPLE_RATE_HZ)


def words(folder: Path) -> dict[str, str]:
    """Return what is said by recordings' names without suffix, for those where it is written.

    Raises:
        ConfigError: A table is not UTF-8.
    """
    found: dict[str, str] = {}
    for table in sorted(folder.rglob(_LIBRISPEECH)):
        for line in _lines(table):
            name, _, said = line.partition(" ")
            found[name] = said.lower()
    for table in sorted(folder.rglob(TRANSCRIPTS)):
        for line in _lines(table):
            name, _, said = line.partition("\t")
            found[Path(name).stem] = said
    return found


def _lines(table: Path) -> list[str]:
    try:
        return table.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{table} is not UTF-8 text: {error}") from error
