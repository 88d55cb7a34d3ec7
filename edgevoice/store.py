"""Where artifacts lie on this machine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from edgevoice import manifest
from edgevoice.errors import ArtifactError


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
