"""Taking the wanted files out of a tar archive, and nothing else.

Only regular files are written, each by its checked path: a member that leads out of the folder,
a link or a device refuses the whole archive. (Stricter than tarfile's `data` filter, and the same
on Python 3.11.0 to 3.11.3, which do not have it.)
"""

from __future__ import annotations

import shutil
import tarfile
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from edgevoice.catalogue import Unpacking
from edgevoice.errors import ArtifactError
from edgevoice.manifest import is_inside
from edgevoice.progress import Meter


def unpack(archive: Path, folder: Path, how: Unpacking, meter: Meter) -> None:
    """Write the files of ``archive`` that ``how`` keeps into ``folder``.

    Raises:
        ArtifactError: It is not a tar archive, is truncated, holds a member that must not be
            unpacked, or nothing that is wanted.
    """
    kept = 0
    try:
        with (
            tarfile.open(archive) as tar,
            meter(f"unpack {archive.name}", None) as advance,
        ):
            for member in tar:
                path = _destination(archive.name, member, how)
                if path is None:
                    continue
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                read = tar.extractfile(member)
                assert read is not None  # regular files only
                with read, target.open("wb") as write:
                    shutil.copyfileobj(read, write)
                advance(member.size)
                kept += 1
    except (tarfile.TarError, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ArtifactError(f"{archive.name}: not a whole tar archive: {error}") from error
    if not kept:
        raise ArtifactError(
            f"{archive.name}: holds no file that matches {', '.join(how.keep) or 'anything'}"
        )


def _destination(archive: str, member: tarfile.TarInfo, how: Unpacking) -> str | None:
    if member.isdir():
        return None
    if not is_inside(member.name):
        raise ArtifactError(f"{archive}: member {member.name!r} leads out of the folder; refused")
    path = "/".join(PurePosixPath(member.name).parts[how.strip :])
    if not path or (how.keep and not any(fnmatch(path, pattern) for pattern in how.keep)):
        return None
    if not member.isreg():
        raise ArtifactError(f"{archive}: member {member.name!r} is not a regular file; refused")
    return path
