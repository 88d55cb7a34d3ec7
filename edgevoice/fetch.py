"""Fetching one file of the catalogue: its sources in order, its hash, its unpacking.

Owns the decision what counts as fetched. :mod:`edgevoice.delivery` gets the bytes,
:mod:`edgevoice.pull` makes artifacts of them.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from edgevoice.catalogue import SourceFile
from edgevoice.delivery import Cache, deliver
from edgevoice.errors import ArtifactError, EdgevoiceError, FetchError, MissingDependencyError
from edgevoice.progress import Meter
from edgevoice.sources import Source
from edgevoice.store import sha256
from edgevoice.unpack import unpack


@dataclass(frozen=True, slots=True)
class Fetched:
    """What came: from which source, how many bytes, which lower-case SHA-256."""

    source: Source
    size: int
    sha256: str


def fetch(file: SourceFile, folder: Path, cache: Cache, meter: Meter) -> Fetched:
    """Bring ``file`` into ``folder``, checked against the catalogue, unpacked if it is an archive.

    Raises:
        FetchError: No source could deliver it; the message has each source and why.
        MissingDependencyError: Its one source needs a package that is not installed.
        ArtifactError: What came is not what the catalogue says; nothing of it is kept.
    """
    if file.unpack is None:
        target = folder / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        return _first_source(file, target, cache, meter)
    with tempfile.TemporaryDirectory(prefix="archive-", dir=folder.parent) as scratch:
        archive = Path(scratch) / Path(file.path).name
        fetched = _first_source(file, archive, cache, meter)
        try:
            unpack(archive, folder, file.unpack, meter)
        except ArtifactError:
            cache.discard(fetched.source)
            raise
    return fetched


def _first_source(file: SourceFile, target: Path, cache: Cache, meter: Meter) -> Fetched:
    failed: list[tuple[Source, EdgevoiceError]] = []
    for source in file.sources:
        try:
            deliver(source, target, file.size, cache, meter)
            return _checked(file, source, target, meter)
        except (FetchError, MissingDependencyError) as error:
            failed.append((source, error))
        except ArtifactError:
            target.unlink(missing_ok=True)
            cache.discard(source)
            raise
    if len(failed) == 1 and isinstance(failed[0][1], MissingDependencyError):
        raise failed[0][1]
    tried = "; ".join(f"{source}: {error}" for source, error in failed)
    raise FetchError(f"{file.path} could not be fetched; tried {tried}")


def _checked(file: SourceFile, source: Source, target: Path, meter: Meter) -> Fetched:
    size = target.stat().st_size
    with meter(f"check {target.name}", size) as advance:
        found = sha256(target, advance)
    if file.sha256 is not None and (found, size) != (file.sha256, file.size or size):
        raise ArtifactError(
            f"{file.path} from {source}: sha256 {found} ({size} bytes), the catalogue says "
            f"{file.sha256} ({file.size or 'any'} bytes); nothing was kept"
        )
    return Fetched(source, size, found)
