"""Artifacts that come with edgevoice itself: folders of its own package, manifest and all.

Owns where they lie. The catalogue takes from their manifests what it says of other artifacts
itself, and a pull copies them into the store as it does with what comes from elsewhere: checked
against the manifest's hashes, and without a network.
"""

from __future__ import annotations

from pathlib import Path

from edgevoice import manifest
from edgevoice.errors import ArtifactError, ConfigError
from edgevoice.manifest import Manifest

ROOT = Path(__file__).parent / "packs"


def described(name: str) -> Manifest:
    """Return the manifest of the pack ``name``.

    Raises:
        ConfigError: There is none, it cannot be read, or it is another artifact's.
    """
    try:
        found = manifest.read(ROOT / name)
    except ArtifactError as error:
        raise ConfigError(
            f"edgevoice has no whole pack {name!r}: {error}; install edgevoice again"
        ) from error
    if found.name != name:
        raise ConfigError(
            f"{ROOT / name}: its manifest is {found.name!r}'s; a pack's folder bears its name"
        )
    return found


def names() -> tuple[str, ...]:
    """Return the names of all packs, sorted."""
    return tuple(sorted(path.parent.name for path in ROOT.glob(f"*/{manifest.FILE_NAME}")))
