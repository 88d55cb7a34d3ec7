"""A tar archive that appears whole or not at all, compressed as its name says.

Owns the formats, the check of the disk and what happens when it is full. What goes in is
:mod:`edgevoice.devices.bundle`'s business.
"""

from __future__ import annotations

import errno
import gzip
import io
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from edgevoice.errors import ConfigError, FetchError, MissingDependencyError
from edgevoice.progress import Advance

SUFFIXES = (".tar.zst", ".tar.gz")

_MB = 1_000_000
# Wheels and quantised weights hardly shrink: the fastest levels come within a hundredth of the
# best ones, see docs/devices.md.
_GZIP_LEVEL = 1
_ZSTD = ("zstd", "--quiet", "--stdout", "-3", "-T0")


@dataclass(frozen=True, slots=True)
class Member:
    """A file on its way into an archive: its path there, and where it lies now."""

    name: str
    path: Path
    executable: bool = False


def check_suffix(out: Path) -> None:
    """Make sure that an archive of this name can be written.

    Raises:
        ConfigError: The name ends in something else, or its folder is not there.
        MissingDependencyError: The program that compresses is not installed.
    """
    if not out.name.endswith(SUFFIXES):
        raise ConfigError(f"{out}: must end in {' or '.join(SUFFIXES)}")
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"cannot write {out}: no folder {out.parent}")
    if out.name.endswith(".zst") and shutil.which("zstd") is None:
        raise MissingDependencyError(
            "zstd is not installed; `apt install zstd`, or let the name end in .tar.gz"
        )


def check_disk(folder: Path, needed_bytes: int) -> None:
    """Make sure that ``folder`` has room.

    Raises:
        FetchError: It has not.
    """
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise FetchError(
            f"{folder} has {free // _MB} MB free, the bundle needs about {needed_bytes // _MB} MB; "
            "make room, or let --out name another disk"
        )


@contextmanager
def one_line_when_full(folder: Path) -> Iterator[None]:
    """Turn what the system says when a disk is full, or cannot be written, into one line."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        raise FetchError(
            f"{error.filename or folder}: {error.strerror}; make room, or let --out name "
            "another folder"
        ) from error


def write_archive(out: Path, top: str, members: Sequence[Member], advance: Advance) -> None:
    """Write ``members`` under the folder ``top`` into ``out``, which appears when it is whole.

    Owners, times and the order of the files are always the same: equal files make equal archives.

    Raises:
        FetchError: The disk is full; nothing is left of the archive.
    """
    unfinished = out.with_name(f".{out.name}.part")
    try:
        with (
            one_line_when_full(out.parent),
            _compressed(unfinished, out.name) as stream,
            tarfile.open(fileobj=stream, mode="w|", format=tarfile.GNU_FORMAT) as archive,
        ):
            for member in sorted(members, key=lambda m: m.name):
                _add(archive, f"{top}/{member.name}", member, advance)
        unfinished.replace(out)
    finally:
        unfinished.unlink(missing_ok=True)


def _add(archive: tarfile.TarFile, name: str, member: Member, advance: Advance) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = member.path.stat().st_size
    entry.mode = 0o755 if member.executable else 0o644
    with member.path.open("rb") as file:
        archive.addfile(entry, cast(IO[bytes], _Counted(file, advance)))


class _Counted(io.RawIOBase):
    """A file that tells how much was read of it."""

    def __init__(self, file: IO[bytes], advance: Advance) -> None:
        self._file = file
        self._advance = advance

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._advance(len(data))
        return data


@contextmanager
def _compressed(path: Path, name: str) -> Iterator[IO[bytes]]:
    if name.endswith(".gz"):
        # No name and no time inside: they would differ between equal archives.
        with path.open("wb") as file, gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0) as stream:
            yield cast(IO[bytes], stream)
        return
    with path.open("wb") as file:
        zstd = subprocess.Popen(_ZSTD, stdin=subprocess.PIPE, stdout=file, stderr=subprocess.PIPE)
        assert zstd.stdin is not None
        assert zstd.stderr is not None
        try:
            yield zstd.stdin
        except BrokenPipeError:
            pass  # zstd ended early, and says why
        finally:
            with suppress(BrokenPipeError):
                zstd.stdin.close()
            said = zstd.stderr.read().decode("utf-8", "replace").strip()
            zstd.stderr.close()
            failed = zstd.wait() != 0
    if failed:
        if "No space left" in said:
            raise OSError(errno.ENOSPC, "No space left on device", str(path.parent))
        raise FetchError(f"zstd failed: {said.splitlines()[-1] if said else 'it said nothing'}")
