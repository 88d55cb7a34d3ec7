"""What an artifact is: the `manifest.json` that lies beside its files.

The exporter writes it, the store checks it, the engines read from it what the files themselves
do not say. Owns the format only; where artifacts lie is :mod:`edgevoice.store`'s business.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from edgevoice.errors import ArtifactError, unknown

SCHEMA_VERSION = 1
FILE_NAME = "manifest.json"

STAGES = (
    *("vad", "recogniser", "end-of-turn", "language-model", "speech"),
    # Exported and checked; a conversation has no stage for them yet.
    *("speaker", "wake-word"),
)
FORMATS = ("onnx", "gguf", "qnn")


def is_inside(path: str) -> bool:
    """Whether ``path`` is a relative POSIX path that stays inside its folder.

    >>> is_inside("voices/af.bin"), is_inside("../af.bin"), is_inside("/af.bin")
    (True, False, False)
    """
    parts = PurePosixPath(path).parts
    return bool(parts) and ".." not in parts and parts[0] != "/" and "\\" not in path


@dataclass(frozen=True, slots=True)
class ArtifactFile:
    """One file of an artifact: its path inside the artifact's folder, bytes, lower-case SHA-256.

    Raises:
        ArtifactError: The path is absolute or leads out of the folder.
    """

    path: str
    size: int
    sha256: str

    def __post_init__(self) -> None:
        if not is_inside(self.path):
            raise ArtifactError(
                f"file path {self.path!r} must be relative to the artifact's folder, without '..'"
            )


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything that is known of one artifact.

    Attributes:
        name: Catalogue name; also the artifact's folder in the store.
        stage: One of :data:`STAGES`.
        family: What kind of model it is; the engine factories dispatch on it (``silero-vad``,
            ``smart-turn``, ``whisper``, ``online-transducer``, ``zipformer2-ctc``, ``wenet-ctc``,
            ``gguf``, ``piper``, ``kokoro``, ...).
        format: One of :data:`FORMATS`.
        scheme: Quantisation of the weights, ``fp32``, ``fp16``, ``int8``, ``q4_1``...
        licence: SPDX expression of the weights.
        source: Where the weights came from, revision included.
        files: Every file of the artifact but the manifest itself.
        engine: What the engine must know and the files do not say; plain JSON values.
        checks: Figures that the exporter measured before it published; plain JSON values.
        tensors: What every weight is written in, by its name in the files.
        device: The profile that the artifact was made for, "" for any.
    """

    name: str
    stage: str
    family: str
    format: str
    scheme: str
    licence: str
    source: str
    files: tuple[ArtifactFile, ...]
    engine: Mapping[str, Any] = field(default_factory=dict)
    checks: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, str] = field(default_factory=dict)
    device: str = ""
    schema_version: int = SCHEMA_VERSION

    def file(self, suffix: str) -> ArtifactFile:
        """Return the one file whose path ends with ``suffix``.

        Raises:
            ArtifactError: No file or several do.
        """
        found = [f for f in self.files if f.path.endswith(suffix)]
        if len(found) != 1:
            raise ArtifactError(
                f"artifact {self.name!r} has {len(found)} files that end with {suffix!r}, one is "
                f"needed; it has: {', '.join(f.path for f in self.files)}"
            )
        return found[0]


def write(manifest: Manifest, folder: Path) -> None:
    """Write ``manifest`` into ``folder``, keys sorted so that equal manifests are equal bytes."""
    text = json.dumps(asdict(manifest), indent=2, sort_keys=True, ensure_ascii=False)
    (folder / FILE_NAME).write_text(text + "\n", encoding="utf-8")


def read(folder: Path) -> Manifest:
    """Read and check the manifest in ``folder``.

    Raises:
        ArtifactError: There is none, it is not JSON, or a field is missing or not allowed.
    """
    path = folder / FILE_NAME
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"{folder} is not an artifact: it has no {FILE_NAME}") from error
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise ArtifactError(f"{path}: not a manifest: {error}") from error
    if not isinstance(data, dict):
        raise ArtifactError(
            f"{path}: not a manifest: an object is needed, got {type(data).__name__}"
        )
    if data.get("schema_version") != SCHEMA_VERSION:
        raise ArtifactError(
            f"{path}: schema version {data.get('schema_version')!r}, this edgevoice reads "
            f"{SCHEMA_VERSION}; pull the artifact again"
        )
    try:
        data["files"] = tuple(ArtifactFile(**f) for f in data["files"])
        manifest = Manifest(**data)
    except (TypeError, KeyError) as error:
        raise ArtifactError(f"{path}: not a manifest: {error}") from error
    if manifest.stage not in STAGES:
        raise ArtifactError(f"{path}: {unknown('stage', manifest.stage, STAGES)}")
    if manifest.format not in FORMATS:
        raise ArtifactError(f"{path}: {unknown('format', manifest.format, FORMATS)}")
    return manifest
