"""Where artifacts lie on this machine, and how they come and go without being seen half-done.

Artifacts are built in a hidden folder beside the published ones and renamed last. Every hidden
folder has a lock file that its process holds, so that what a killed process left behind can be
told from what a live one is still writing. Fetching is :mod:`edgevoice.pull`'s business.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from edgevoice import manifest
from edgevoice.errors import ArtifactError, unknown
from edgevoice.manifest import ArtifactFile, Manifest

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_INCOMING = ".incoming-"
_REMOVED = ".removed-"
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Store:
    """A folder with one sub-folder per published artifact."""

    root: Path

    @classmethod
    def default(cls) -> Store:
        """Return the user's store: ``$EDGEVOICE_HOME/models``, or the platform's data folder."""
        home = os.environ.get("EDGEVOICE_HOME")
        base = Path(home) if home else Path(platformdirs.user_data_dir("edgevoice"))
        return cls(base / "models")

    def path(self, name: str) -> Path:
        """Return the folder of artifact ``name``; a path to an artifact's folder is also taken.

        Raises:
            ArtifactError: It is not here.
        """
        folder = Path(name) if "/" in name else self.root / name
        if not (folder / manifest.FILE_NAME).is_file():
            raise ArtifactError(
                f"no artifact {name!r} in {self.root}; `edgevoice models pull {name}` fetches it"
            )
        return folder

    def names(self) -> tuple[str, ...]:
        """Return the names of the published artifacts, sorted."""
        if not self.root.is_dir():
            return ()
        found = (f for f in self.root.iterdir() if _NAME.fullmatch(f.name))
        return tuple(sorted(f.name for f in found if (f / manifest.FILE_NAME).is_file()))

    def manifest(self, name: str) -> Manifest:
        """Return the manifest of artifact ``name``.

        Raises:
            ArtifactError: It is not here, or its manifest cannot be read.
        """
        return manifest.read(self.path(name))

    def verify(self, name: str, advance: Callable[[int], object] = int) -> tuple[str, ...]:
        """Hash artifact ``name`` again; return a line per file that is not as its manifest says.

        ``advance`` is called with the number of bytes just read.

        Raises:
            ArtifactError: It is not here, or its manifest cannot be read.
        """
        folder = self.path(name)
        problems = []
        for expected in manifest.read(folder).files:
            path = folder / expected.path
            if not path.is_file():
                problems.append(f"{expected.path}: missing")
            elif (size := path.stat().st_size) != expected.size:
                problems.append(f"{expected.path}: {size} bytes, {expected.size} expected")
            elif (found := sha256(path, advance)) != expected.sha256:
                problems.append(f"{expected.path}: sha256 {found}, {expected.sha256} expected")
        return tuple(problems)

    @contextmanager
    def incoming(self) -> Iterator[Path]:
        """Give a hidden folder to build an artifact in; what was not published is removed.

        Folders that killed processes left are removed first.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with self._exclusive():
            self._sweep()
            folder = Path(tempfile.mkdtemp(prefix=_INCOMING, dir=self.root))
            folder.chmod(0o755)
            held = _lock(_lock_of(folder))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            _lock_of(folder).unlink(missing_ok=True)
            os.close(held)

    def publish(self, folder: Path, artifact: Manifest) -> Path:
        """Write ``artifact`` into ``folder`` and make it visible under its name, whole or not.

        ``folder`` is inside what :meth:`incoming` gave, so that the rename cannot cross file
        systems. An artifact of that name is replaced; whoever has its files open keeps them.

        Returns:
            The published folder.

        Raises:
            ArtifactError: The name cannot be a folder's, or a file of the manifest is not there.
        """
        check_name(artifact.name)
        for file in artifact.files:
            if not (folder / file.path).is_file():
                raise ArtifactError(f"artifact {artifact.name!r}: {file.path} was not written")
        manifest.write(artifact, folder)
        _sync(folder)
        target = self.root / artifact.name
        with self._exclusive():
            old = self._set_aside(target) if target.exists() else None
            folder.rename(target)
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)
        return target

    def remove(self, name: str) -> None:
        """Delete artifact ``name``: it stops being visible at once, then its files go.

        Raises:
            ArtifactError: It is not here.
        """
        if name not in self.names():
            raise ArtifactError(f"{unknown('installed artifact', name, self.names())}")
        with self._exclusive():
            old = self._set_aside(self.root / name)
        shutil.rmtree(old, ignore_errors=True)

    @contextmanager
    def lock(self, name: str, waiting: Callable[[], object] = bool) -> Iterator[None]:
        """Hold the lock called ``name`` among all processes that use this store.

        ``waiting`` is called once if another process holds it.
        """
        folder = self.root / ".locks"
        folder.mkdir(parents=True, exist_ok=True)
        # The file stays: unlinking a lock file lets two processes hold two files of one name.
        held = os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(held, fcntl.LOCK_EX)
            yield
        finally:
            os.close(held)

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        # Held for renames and for the making of a hidden folder with its lock, never for work.
        with self.lock("store"):
            yield

    def _set_aside(self, target: Path) -> Path:
        aside = Path(tempfile.mkdtemp(prefix=_REMOVED, dir=self.root))
        target.rename(aside / target.name)
        return aside

    def _sweep(self) -> None:
        for left in self.root.glob(f"{_REMOVED}*"):
            shutil.rmtree(left, ignore_errors=True)
        for left in self.root.glob(f"{_INCOMING}*"):
            if left.suffix == ".lock":
                continue
            try:
                held = _lock(_lock_of(left))
            except BlockingIOError:
                continue
            shutil.rmtree(left, ignore_errors=True)
            _lock_of(left).unlink(missing_ok=True)
            os.close(held)


def check_name(name: str) -> None:
    """Make sure that ``name`` can be an artifact's folder.

    Raises:
        ArtifactError: It cannot.
    """
    if not _NAME.fullmatch(name):
        raise ArtifactError(f"artifact name {name!r}: use letters, digits, '.', '_' and '-'")


def sha256(path: Path, advance: Callable[[int], object] = int) -> str:
    """Return the lower-case SHA-256 of the file at ``path``; ``advance`` gets bytes just read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            advance(len(chunk))
    return digest.hexdigest()


def describe(folder: Path) -> tuple[ArtifactFile, ...]:
    """Return every file under ``folder`` but its manifest, hashed, sorted by path."""
    found = (p for p in folder.rglob("*") if p.is_file() and p != folder / manifest.FILE_NAME)
    return tuple(
        ArtifactFile(p.relative_to(folder).as_posix(), p.stat().st_size, sha256(p))
        for p in sorted(found)
    )


def _lock_of(folder: Path) -> Path:
    return folder.with_name(folder.name + ".lock")


def _lock(path: Path) -> int:
    held = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(held)
        raise
    return held


def _sync(folder: Path) -> None:
    """Bring the files to the disk before the rename does: a power cut must not publish holes."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file, suppress(OSError):
                os.fsync(file.fileno())
