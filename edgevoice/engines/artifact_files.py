"""Finds an artifact's files and refuses, in one line, what native loaders would abort on.

sherpa-onnx ends the process when a model file is missing or is not a model. The checks here cost
a `stat` and sixteen bytes a file. They do not replace the store's hashes, and a file that passes
may still lack metadata, which is why the first load of an artifact happens in a child process.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeVar

from edgevoice.errors import ArtifactError
from edgevoice.manifest import Manifest

T = TypeVar("T", int, float, str)


def onnx_file(folder: Path, manifest: Manifest, part: str = "") -> str:
    """Return the path of the one ONNX file of ``manifest`` whose name holds ``part``.

    ``part`` has to begin a word: ``cached_decode`` is not found in ``uncached_decode.onnx``.

    Raises:
        ArtifactError: None or several match, the file is missing, its size is not the
            manifest's (a truncated copy), or it does not begin like an ONNX model.
    """
    path = _only(folder, manifest, part, (".onnx", ".ort"))
    with path.open("rb") as file:
        head = file.read(8)
    # A ModelProto begins with field 1 (ir_version, a varint): byte 0x08. onnxruntime's own
    # format, which sherpa-onnx also loads, has "ORTM" at byte 4.
    if head[:1] != b"\x08" and head[4:8] != b"ORTM":
        raise ArtifactError(
            f"{path} is not an ONNX model: it begins with {head!r}; "
            f"`edgevoice models pull {manifest.name}` fetches it again"
        )
    return str(path)


def plain_file(folder: Path, manifest: Manifest, suffix: str) -> str:
    """Return the path of the one file of ``manifest`` whose name ends with ``suffix``.

    Raises:
        ArtifactError: As :func:`onnx_file`, less the look into the file.
    """
    return str(_only(folder, manifest, "", (suffix,)))


def has_file(manifest: Manifest, suffix: str) -> bool:
    """Say whether ``manifest`` names a file whose name ends with ``suffix``."""
    return any(file.path.endswith(suffix) for file in manifest.files)


def engine_value(manifest: Manifest, key: str, default: T) -> T:
    """Return ``manifest.engine[key]`` (of the type of ``default``), or ``default``.

    Raises:
        ArtifactError: The value has another type.
    """
    value = manifest.engine.get(key, default)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, type(default)) or isinstance(value, bool):
        raise ArtifactError(
            f"artifact {manifest.name!r}: engine.{key} = {value!r}, "
            f"{type(default).__name__} is needed; pull or export it again"
        )
    return value


def _only(folder: Path, manifest: Manifest, part: str, suffixes: tuple[str, ...]) -> Path:
    names = re.compile(rf"(?:^|[^a-z]){re.escape(part)}.*(?:{'|'.join(map(re.escape, suffixes))})$")
    found = [f for f in manifest.files if names.search(Path(f.path).name)]
    if len(found) != 1:
        raise ArtifactError(
            f"artifact {manifest.name!r} has {len(found)} files named *{part}*"
            f"{' or '.join(suffixes)}, one is needed; it has: "
            f"{', '.join(f.path for f in manifest.files)}"
        )
    path = folder / found[0].path
    again = f"`edgevoice models pull {manifest.name}` fetches it again"
    if not path.is_file():
        raise ArtifactError(f"{path} is missing; {again}")
    size = path.stat().st_size
    if size != found[0].size:
        raise ArtifactError(f"{path} has {size} bytes, {found[0].size} are expected; {again}")
    return path
