"""Writes a file that appears whole or not at all: beside its place first, then by a rename."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``, in place of what is there.

    What is not a regular file (``/dev/null``, a pipe) is written in place.

    Raises:
        OSError: It cannot be written; what was there stays.
    """
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    beside = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
    try:
        # Made by open, the file has the permissions of the user's umask; mkstemp's has 0600.
        with beside.open("xb") as file:
            file.write(content)
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
