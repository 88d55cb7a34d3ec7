"""Bundles of tiny models and of wheels that install in seconds."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from edgevoice import config
from edgevoice.devices import bundle
from edgevoice.devices.bundle import Bundle, BundlePlan, Fetched
from edgevoice.devices.bundle_wheels import Target
from edgevoice.manifest import Manifest
from edgevoice.progress import silent
from edgevoice.settings import Settings
from edgevoice.store import Store, describe

HERE = platform.machine()
PYTHON = f"3.{sys.version_info.minor}"
STAGES = {
    "vad": ("vad", "silero-vad"),
    "recogniser": ("recogniser", "whisper"),
    "end_of_turn": ("end-of-turn", "smart-turn"),
    "language_model": ("language-model", "gguf"),
    "speech": ("speech", "piper"),
}


def write_wheels(folder: Path) -> Path:
    """Write wheels of a program named edgevoice that only tells its configuration, and of this
    pip; return ``folder``."""
    told = "import os\n\ndef main():\n    print('told', os.environ['EDGEVOICE_CONFIG'])\n"
    about = "edgevoice-9.dist-info"
    with zipfile.ZipFile(folder / "edgevoice-9-py3-none-any.whl", "w") as wheel:
        wheel.writestr("edgevoice_told.py", told)
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: edgevoice\nVersion: 9\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(
            f"{about}/entry_points.txt", "[console_scripts]\nedgevoice = edgevoice_told:main\n"
        )
        wheel.writestr(f"{about}/RECORD", "")
    spec = importlib.util.find_spec("pip")
    assert spec is not None
    assert spec.origin is not None
    root = Path(spec.origin).parent
    with zipfile.ZipFile(folder / "pip-9-py3-none-any.whl", "w") as wheel:
        for path in root.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                wheel.write(path, path.relative_to(root.parent))
    return folder


def write_store(folder: Path) -> Store:
    """Publish a tiny artifact of every stage in a store at ``folder``."""
    made = Store(folder)
    for section, (stage, family) in STAGES.items():
        with made.incoming() as work:
            (work / "weights.bin").write_bytes(section.encode() * 10_000)
            made.publish(
                work,
                Manifest(
                    name=f"tiny-{stage}",
                    stage=stage,
                    family=family,
                    format="onnx" if stage != "language-model" else "gguf",
                    scheme="int8",
                    licence="MIT",
                    source="test",
                    files=describe(work),
                ),
            )
    return made


def tiny_settings() -> Settings:
    """Return settings with those artifacts."""
    return config.override(
        Settings(), [f"{section}.model=tiny-{stage}" for section, (stage, _) in STAGES.items()]
    )


class Maker:
    """Makes bundles of the tiny models and wheels."""

    def __init__(self, store: Store, wheels: Path, folder: Path) -> None:
        self._store = store
        self._wheels = wheels
        self.folder = folder
        self.extras: Sequence[str] = ()

    def make(
        self,
        target: Target | None = None,
        name: str = "b.tar.gz",
        settings: Settings | None = None,
        own_profile: str = "",
    ) -> Bundle:
        def fetching(plan: BundlePlan, extras: Sequence[str], folder: Path) -> Fetched:
            self.extras = extras
            for wheel in self._wheels.iterdir():
                shutil.copy(wheel, folder)
            return Fetched(folder, "edgevoice==9")

        plan = BundlePlan(
            "here",
            target or Target(HERE, PYTHON),
            settings or tiny_settings(),
            chosen={("speech", "model")},
            own_profile=own_profile,
        )
        return bundle.make(plan, self._store, self.folder / name, silent, fetching)

    def unpack(self, made: Bundle) -> Path:
        with tarfile.open(made.path) as archive:
            archive.extractall(self.folder, filter="data")
        return self.folder / made.folder
