"""What is installed is what lies in the tree."""

from __future__ import annotations

import fnmatch
import importlib.metadata
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from tiny_wenet import write_pack

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]


def packages_in_the_tree() -> set[str]:
    found: set[str] = set()
    for package, folder in SETUPTOOLS["package-dir"].items():
        for marker in (ROOT / folder).rglob("__init__.py"):
            inner = marker.parent.relative_to(ROOT / folder).parts
            found.add(".".join([package, *inner]))
    return found


def test_every_sub_package_is_listed() -> None:
    assert set(SETUPTOOLS["packages"]) == packages_in_the_tree()


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    folder = tmp_path_factory.mktemp("wheel")
    # A copy, since setuptools builds in the tree, and a stale build/ would hide a missing module.
    tree = folder / "tree"
    for part in SETUPTOOLS["package-dir"].values():
        shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    write_pack(tree / "edgevoice" / "packs" / "tones")
    # A process of its own: setuptools replaces distutils, which others may have imported.
    script = f"from setuptools import build_meta; build_meta.build_wheel({str(folder)!r})"
    subprocess.run([sys.executable, "-c", script], cwd=tree, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    with zipfile.ZipFile(built) as wheel:
        return set(wheel.namelist())


def test_the_wheel_holds_every_module(wheel_names: set[str]) -> None:
    for package, folder in SETUPTOOLS["package-dir"].items():
        for path in (ROOT / folder).rglob("*.py"):
            inner = path.relative_to(ROOT / folder).as_posix()
            assert f"{package.replace('.', '/')}/{inner}" in wheel_names


def test_the_wheel_holds_the_data_and_nothing_beside_the_package(wheel_names: set[str]) -> None:
    for patterns in SETUPTOOLS["package-data"]["edgevoice"]:
        assert fnmatch.filter(wheel_names, f"edgevoice/{patterns}"), patterns
    pack = {name for name in wheel_names if name.startswith("edgevoice/packs/tones/")}
    assert {Path(name).name for name in pack} == {"manifest.json", "model.onnx", "tokens.txt"}
    tops = {name.split("/")[0] for name in wheel_names}
    assert all(top == "edgevoice" or top.endswith(".dist-info") for top in tops)


def test_the_device_install_is_lean() -> None:
    needed = " ".join(PROJECT["project"]["dependencies"]).lower()
    for heavy in ("torch", "transformers", "optimum", "onnx=="):
        assert heavy not in needed.replace("sherpa-onnx==", "")


def test_the_installed_version_is_the_packages() -> None:
    from edgevoice import __version__

    assert importlib.metadata.version("edgevoice") == __version__
    assert PROJECT["project"]["version"] == __version__
