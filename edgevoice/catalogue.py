"""What can be pulled: `catalogue.toml` read strictly into typed, frozen values.

Owns the catalogue's format and the expansion of bundle names. Fetching is
:mod:`edgevoice.pull`'s business, what is installed :mod:`edgevoice.store`'s.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from edgevoice import packs, sources
from edgevoice.errors import ConfigError, unknown
from edgevoice.manifest import FORMATS, STAGES, Manifest, is_inside
from edgevoice.sources import PackageSource, Source
from edgevoice.strict_table import Table

DEFAULT_BUNDLE = "default"

_ENTRY_KEYS = (
    "stage",
    "family",
    "format",
    "scheme",
    "licence",
    "description",
    "verified",
    "files",
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Unpacking:
    """How a tar archive becomes files.

    Attributes:
        strip: Leading folders taken off each member's path.
        keep: Glob patterns of the (stripped) paths that are wanted; empty keeps every file.
    """

    strip: int = 0
    keep: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file to fetch.

    Attributes:
        path: Where it goes in the artifact's folder (an archive's name, when it is unpacked).
        sources: Tried in this order.
        size: Bytes; None when this project never fetched it.
        sha256: Lower-case; None when this project never fetched it.
        unpack: Set for a tar archive.
    """

    path: str
    sources: tuple[Source, ...]
    size: int | None = None
    sha256: str | None = None
    unpack: Unpacking | None = None


@dataclass(frozen=True, slots=True)
class Preparation:
    """The conversion that turns the fetched files into the artifact's files.

    ``revision`` counts up when the conversion begins to write something better, so that a pull
    makes installed artifacts again.
    """

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    revision: int = 1

    def as_json(self) -> dict[str, Any]:
        """Return what a manifest records of the conversion."""
        return {"kind": self.kind, "options": dict(self.options), "revision": self.revision}


@dataclass(frozen=True, slots=True)
class Entry:
    """One artifact that can be pulled; the fields it shares with a manifest mean the same.

    ``verified`` says that every file was fetched and hashed by this project. ``download_mb`` is
    the approximate download of an entry that was not. ``pack`` is the manifest of one that comes
    with edgevoice itself.
    """

    name: str
    stage: str
    family: str
    format: str
    scheme: str
    licence: str
    description: str
    verified: bool
    files: tuple[SourceFile, ...]
    prepare: Preparation | None = None
    engine: Mapping[str, Any] = field(default_factory=dict)
    download_mb: int = 0
    pack: Manifest | None = None

    @property
    def size_bytes(self) -> int:
        """Bytes of the files to fetch; approximate when the entry is not verified."""
        known = sum(f.size or 0 for f in self.files)
        return max(known, self.download_mb * 1_000_000)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Every artifact that can be pulled, and the bundles of them."""

    entries: Mapping[str, Entry]
    bundles: Mapping[str, tuple[str, ...]]

    def entry(self, name: str) -> Entry:
        """Return the entry ``name``.

        Raises:
            ConfigError: There is none.
        """
        if name not in self.entries:
            raise ConfigError(unknown("artifact", name, self.entries))
        return self.entries[name]

    def expand(self, names: Sequence[str]) -> tuple[Entry, ...]:
        """Return the entries that ``names`` (of artifacts and bundles) stand for, each once.

        Raises:
            ConfigError: A name is neither.
        """
        chosen: dict[str, Entry] = {}
        for name in names:
            if name in self.bundles:
                chosen.update((member, self.entries[member]) for member in self.bundles[name])
            elif name in self.entries:
                chosen[name] = self.entries[name]
            else:
                known = [*self.entries, *self.bundles]
                raise ConfigError(unknown("artifact or bundle", name, known))
        return tuple(chosen.values())


def load(path: Path | None = None) -> Catalogue:
    """Read the catalogue at ``path``, or the one that edgevoice ships.

    Raises:
        ConfigError: It is missing, not TOML, or says something that is not allowed.
    """
    origin = str(path or "catalogue.toml")
    try:
        if path is None:
            text = (resources.files("edgevoice") / "catalogue.toml").read_text(encoding="utf-8")
        else:
            text = path.read_text(encoding="utf-8")
        data = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{origin}: not a catalogue: {error}") from error
    return parse(data, origin)


def parse(data: Mapping[str, Any], origin: str = "catalogue") -> Catalogue:
    """Turn parsed TOML into a :class:`Catalogue`; ``origin`` names it in messages."""
    top = Table(data, origin, required=("artifacts",), optional=("bundles",))
    artifacts = top.get("artifacts", dict)
    entries = {name: _entry(name, value, origin) for name, value in artifacts.items()}
    bundles: dict[str, tuple[str, ...]] = {}
    for name, members in top.get("bundles", dict, {}).items():
        where = f"{origin}: bundles.{name}"
        if name in entries:
            raise ConfigError(f"{where}: an artifact has that name too; choose another")
        if not isinstance(members, list) or not members:
            raise ConfigError(f"{where}: must be a list of artifact names, not {members!r}")
        for member in members:
            if member not in entries:
                raise ConfigError(f"{where}: {unknown('artifact', str(member), entries)}")
        bundles[name] = tuple(members)
    return Catalogue(entries, bundles)


def _entry(name: str, data: Any, origin: str) -> Entry:
    where = f"{origin}: artifacts.{name}"
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{where}: a name is letters, digits, '.', '_' and '-'")
    if isinstance(data, Mapping) and "pack" in data:
        return _packed(name, Table(data, where, ("pack", "description")))
    table = Table(
        data,
        where,
        required=_ENTRY_KEYS,
        optional=("prepare", "engine", "download_mb"),
    )
    verified = bool(table.get("verified", bool))
    files = tuple(
        _source_file(value, f"{where}.files[{i}]", verified)
        for i, value in enumerate(table.get("files", list))
    )
    if not files:
        raise ConfigError(f"{where}.files: at least one file is needed")
    engine = table.get("engine", dict, {})
    return Entry(
        name=name,
        stage=table.choice("stage", STAGES),
        family=table.get("family", str),
        format=table.choice("format", FORMATS),
        scheme=table.get("scheme", str),
        licence=table.get("licence", str),
        description=table.get("description", str),
        verified=verified,
        files=files,
        prepare=_preparation(table.get("prepare", dict), f"{where}.prepare"),
        engine=_plain_json(engine, f"{where}.engine"),
        download_mb=table.get("download_mb", int, 0),
    )


def _packed(name: str, table: Table) -> Entry:
    """Return the entry of a pack inside edgevoice; its manifest says the rest."""
    if table.get("pack", bool) is not True:
        raise ConfigError(f"{table.where}.pack: must be true, or left out")
    pack = packs.described(name)
    return Entry(
        name=name,
        stage=pack.stage,
        family=pack.family,
        format=pack.format,
        scheme=pack.scheme,
        licence=pack.licence,
        description=table.get("description", str),
        verified=True,
        files=tuple(
            SourceFile(f.path, (PackageSource(name, f.path),), f.size, f.sha256) for f in pack.files
        ),
        engine=pack.engine,
        pack=pack,
    )


def _source_file(data: Any, where: str, verified: bool) -> SourceFile:
    table = Table(data, where, ("path", "sources"), ("size", "sha256", "unpack"))
    path, size, sha256 = table.get("path", str), table.get("size", int), table.get("sha256", str)
    if not is_inside(path):
        raise ConfigError(f"{where}.path = {path!r}: must be a relative path without '..'")
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        raise ConfigError(f"{where}.sha256 = {sha256!r}: must be 64 lower-case hex digits")
    if verified and (size is None or sha256 is None):
        raise ConfigError(f"{where}: a verified entry needs 'size' and 'sha256'")
    listed = table.get("sources", list)
    if not listed or not all(isinstance(s, str) for s in listed):
        raise ConfigError(f"{where}.sources = {listed!r}: must be a list of sources")
    try:
        parsed = tuple(sources.parse(s) for s in listed)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    return SourceFile(path, parsed, size, sha256, _unpacking(table.get("unpack", dict), where))


def _unpacking(data: Any, where: str) -> Unpacking | None:
    if data is None:
        return None
    table = Table(data, f"{where}.unpack", (), ("strip", "keep"))
    keep = tuple(str(pattern) for pattern in table.get("keep", list, []))
    return Unpacking(table.get("strip", int, 0), keep)


def _preparation(data: Any, where: str) -> Preparation | None:
    if data is None:
        return None
    table = Table(data, where, ("kind",), ("options", "revision"))
    options = _plain_json(table.get("options", dict, {}), f"{where}.options")
    return Preparation(table.get("kind", str), options, table.get("revision", int, 1))


def _plain_json(value: Any, where: str) -> Any:
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: only JSON values are allowed: {error}") from error
