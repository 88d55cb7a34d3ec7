"""Turns the files that a catalogue entry fetched into the files of an artifact.

Owns the table of conversions. Fetching, the manifest and publishing are the store's business;
how one kind of model is converted is its family's.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgevoice.errors import ConfigError, unknown


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a conversion says of the files that it wrote; fields of a manifest.

    Attributes:
        format: One of :data:`edgevoice.manifest.FORMATS`.
        scheme: Quantisation of the weights.
        engine: What the engine must know and the files do not say.
        checks: Figures that the conversion measured.
    """

    format: str
    scheme: str
    engine: Mapping[str, Any] = field(default_factory=dict)
    checks: Mapping[str, Any] = field(default_factory=dict)


# Kind to the module whose ``prepare(fetched, out, options)`` converts it; imported when needed.
CONVERSIONS: Mapping[str, str] = {
    "gguf-bytes": "edgevoice.export.families.gguf_bytes",
    "moonshine": "edgevoice.export.families.moonshine_v2",
    "piper": "edgevoice.export.families.piper",
    "whisper": "edgevoice.export.families.whisper_artifact",
}


def prepare(kind: str, fetched: Path, out: Path, options: Mapping[str, Any]) -> Prepared:
    """Convert the files in ``fetched`` and write the artifact's files into ``out``.

    Args:
        kind: A key of :data:`CONVERSIONS`.
        fetched: Folder of the source's files.
        out: Folder that exists and is empty.
        options: The family's own options, ``scheme`` among them.

    Raises:
        ConfigError: The kind or an option is not known.
        ArtifactError: The source files are not what the family reads.
        MissingDependencyError: The conversion needs a package that is not installed.
    """
    if kind not in CONVERSIONS:
        raise ConfigError(unknown("conversion", kind, CONVERSIONS))
    made = importlib.import_module(CONVERSIONS[kind]).prepare(fetched, out, options)
    return Prepared(made.format, made.scheme, made.engine, made.checks)
