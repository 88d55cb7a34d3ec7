"""From catalogue entries to published artifacts: fetch, prepare, publish, tidy up.

The conversion that some entries need comes in as a callable, so that the runtime never imports
the exporter.
"""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from edgevoice.catalogue import Entry
from edgevoice.delivery import Cache, key
from edgevoice.errors import ArtifactError, FetchError
from edgevoice.fetch import Fetched, fetch
from edgevoice.manifest import Manifest
from edgevoice.progress import Meter
from edgevoice.sources import Source
from edgevoice.store import Store, describe

_MB = 1_000_000


class Prepared(Protocol):
    """What a conversion says of the files that it wrote."""

    @property
    def scheme(self) -> str:
        """Quantisation of the weights."""

    @property
    def format(self) -> str:
        """One of :data:`edgevoice.manifest.FORMATS`."""

    @property
    def engine(self) -> Mapping[str, Any]:
        """What the engine must know."""

    @property
    def checks(self) -> Mapping[str, Any]:
        """Figures that the conversion measured."""


# kind, folder with the fetched files, folder to write the artifact's files in, options
Prepare = Callable[[str, Path, Path, Mapping[str, Any]], Prepared]


@dataclass(frozen=True, slots=True)
class Pulled:
    """The outcome for one entry; ``fetched`` is False when it was here already."""

    name: str
    path: Path
    fetched: bool
    size_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Puller:
    """Pulls entries into a store.

    Attributes:
        store: Where the artifacts go.
        preparer: Gives the conversion; called once, before any fetching, if an entry needs it.
        meter: Shows progress.
        say: Takes one line about an artifact.
    """

    store: Store
    preparer: Callable[[], Prepare]
    meter: Meter
    say: Callable[[str], object]

    def pull(self, entries: Sequence[Entry], renew: bool = False) -> Iterator[Pulled]:
        """Bring every entry that is missing or damaged (all of them, with ``renew``).

        Raises:
            FetchError: A file could not be fetched, or the disk is too small.
            ArtifactError: What came is not what the catalogue says.
            MissingDependencyError: A source or a conversion needs a package.
        """
        pending = [e for e in entries if renew or not self._is_whole(e)]
        prepare = self.preparer() if any(e.prepare for e in pending) else _no_conversion
        self._check_disk(pending)
        for entry in entries:
            if entry not in pending:
                yield self._outcome(entry, False, 0.0)
                continue
            had = entry.name in self.store.names()
            started = time.monotonic()
            with self.store.lock(f"artifact-{entry.name}", partial(self._wait, entry)):
                # Another pull may have brought it while this one waited or fetched others.
                brought = not had and entry.name in self.store.names()
                if not brought:
                    self._install(entry, prepare)
            still_wanted = pending[pending.index(entry) + 1 :]
            self._tidy(entry, still_wanted)
            yield self._outcome(entry, not brought, time.monotonic() - started)

    def _is_whole(self, entry: Entry) -> bool:
        if entry.name not in self.store.names():
            return False
        try:
            with self.meter(f"check {entry.name}", None) as advance:
                problems = self.store.verify(entry.name, advance)
        except ArtifactError as error:
            problems = (str(error),)
        if problems:
            self.say(f"{entry.name}: damaged ({problems[0]}), fetching it again")
            return False
        here = self.store.manifest(entry.name)
        if entry.pack is not None and here.files != entry.pack.files:
            self.say(f"{entry.name}: another edgevoice's, taking this one's")
            return False
        made_by = here.checks.get("conversion")
        if entry.prepare is not None and made_by != entry.prepare.as_json():
            self.say(f"{entry.name}: made by an earlier conversion, making it again")
            return False
        return True

    def _check_disk(self, pending: Sequence[Entry]) -> None:
        if not pending:
            return
        # An artifact's files lie twice on the disk while it is made (the wheel or archive and
        # what came out of it), three times when they are converted.
        most = max(e.size_bytes * (2 if e.prepare else 1) for e in pending)
        need = sum(e.size_bytes for e in pending) + most
        self.store.root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.store.root).free
        if free < need:
            raise FetchError(
                f"{self.store.root} has {free // _MB} MB free, the pull needs about "
                f"{need // _MB} MB; make room or point EDGEVOICE_HOME elsewhere"
            )

    def _wait(self, entry: Entry) -> None:
        self.say(f"{entry.name}: waiting for another pull of it")

    def _install(self, entry: Entry, prepare: Prepare) -> None:
        if not entry.verified:
            self.say(
                f"warning: {entry.name} is unverified: edgevoice has no hash for it; "
                f"taking what {entry.files[0].sources[0]} holds now and recording its hash"
            )
        cache = Cache(self.store)
        try:
            with self.store.incoming() as folder:
                fetched_to, out = folder / "fetched", folder / "out"
                fetched_to.mkdir()
                fetched = [fetch(f, fetched_to, cache, self.meter) for f in entry.files]
                scheme, format_ = entry.scheme, entry.format
                engine, checks = dict(entry.engine), _provenance(entry, fetched)
                if entry.prepare is None:
                    out = fetched_to
                else:
                    out.mkdir()
                    with self.meter(f"convert {entry.name}", None):
                        done = prepare(entry.prepare.kind, fetched_to, out, entry.prepare.options)
                    scheme, format_ = done.scheme, done.format
                    engine |= done.engine
                    checks |= {**done.checks, "conversion": entry.prepare.as_json()}
                if entry.pack is not None:
                    told = replace(entry.pack, checks={**entry.pack.checks, **checks})
                    self.store.publish(out, told)
                    return
                artifact = Manifest(
                    name=entry.name,
                    stage=entry.stage,
                    family=entry.family,
                    format=format_,
                    scheme=scheme,
                    licence=entry.licence,
                    source=", ".join(dict.fromkeys(f.source.origin for f in fetched)),
                    files=describe(out),
                    engine=engine,
                    checks=checks,
                )
                self.store.publish(out, artifact)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise FetchError(
                f"{entry.name}: the disk of {self.store.root} is full; make room and pull again"
            ) from error

    def _tidy(self, entry: Entry, still_wanted: Sequence[Entry]) -> None:
        cache = Cache(self.store)
        wanted = {key(s) for e in still_wanted for s in _sources(e)}
        for source in _sources(entry):
            if key(source) not in wanted:
                cache.discard(source)

    def _outcome(self, entry: Entry, fetched: bool, seconds: float) -> Pulled:
        artifact = self.store.manifest(entry.name)
        size_bytes = sum(f.size for f in artifact.files)
        return Pulled(entry.name, self.store.path(entry.name), fetched, size_bytes, seconds)


def _sources(entry: Entry) -> tuple[Source, ...]:
    return tuple(source for file in entry.files for source in file.sources)


def _provenance(entry: Entry, fetched: Sequence[Fetched]) -> dict[str, Any]:
    seen = [{"source": str(f.source), "size": f.size, "sha256": f.sha256} for f in fetched]
    return {"verified": entry.verified, "fetched": seen}


def _no_conversion(kind: str, _in: Path, _out: Path, _options: Mapping[str, Any]) -> Prepared:
    raise AssertionError(f"no pending entry asks for conversion {kind!r}")
