"""Pickled weights: found by their first bytes, refused, and kept out of a family's sight.

Loading a pickle runs whatever its author wrote into it. Without ``--allow-pickle`` a family gets
a view of its source without such files, so that no library can pick one up by itself.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

from edgevoice.errors import ArtifactError

_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".nemo")
# Weights that can be read without running anything. CTranslate2's model.bin is no pickle.
_SAFE = (".safetensors", ".onnx", ".gguf", ".bin", ".npz")
_PROTOCOLS = range(2, 6)  # the pickle opcode PROTO (0x80) and its argument


def find(source: Path) -> tuple[Path, ...]:
    """Return the pickled files at or under ``source``, sorted; none of them is loaded."""
    files = sorted(p for p in source.rglob("*") if p.is_file()) if source.is_dir() else [source]
    return tuple(p for p in files if p.suffix.lower() in _SUFFIXES and is_pickle(p))


def is_pickle(path: Path) -> bool:
    """Whether ``path`` begins as a pickle, or as an archive of torch's that has one inside."""
    with path.open("rb") as file:
        head = file.read(4)
    if head[:1] == b"\x80" and len(head) > 1 and head[1] in _PROTOCOLS:
        return True
    if head != b"PK\x03\x04":
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".pkl") for name in archive.namelist())
    except zipfile.BadZipFile:
        return True  # a truncated archive: torch would still try it


def refuse(source: Path, found: Sequence[Path]) -> None:
    """Refuse a source whose only weights are the pickles ``found``.

    Raises:
        ArtifactError: There is nothing else to read.
    """
    files = (p for p in source.rglob("*") if p.is_file()) if source.is_dir() else iter((source,))
    if found and not any(p.suffix.lower() in _SAFE and p not in found for p in files):
        raise ArtifactError(
            f"{found[0]} is a pickle, which runs its author's code when it is loaded; use a "
            "source with *.safetensors, or say --allow-pickle if you trust it"
        )


def view_without(source: Path, found: Sequence[Path], folder: Path) -> Path:
    """Make ``folder`` a view of the folder ``source`` (links, no copies) without ``found``."""
    for path in source.rglob("*"):
        target = folder / path.relative_to(source)
        if path.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        elif path not in found:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.symlink(path.resolve(), target)
    return folder
