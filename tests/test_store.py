import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgevoice import manifest
from edgevoice.errors import ArtifactError
from edgevoice.manifest import ArtifactFile, Manifest
from edgevoice.store import Store, describe, sha256


def tiny(name: str, folder: Path, text: str = "weights") -> Manifest:
    (folder / "voices").mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_text(text)
    (folder / "voices" / "a.bin").write_bytes(b"\0" * 10)
    return Manifest(
        name=name,
        stage="speech",
        family="kokoro",
        format="onnx",
        scheme="fp32",
        licence="MIT",
        source="file:/here",
        files=describe(folder),
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


def install(store: Store, name: str, text: str = "weights") -> Path:
    with store.incoming() as folder:
        return store.publish(folder, tiny(name, folder, text))


def hidden(store: Store, prefix: str = ".incoming-") -> list[Path]:
    return sorted(store.root.glob(f"{prefix}*"))


def test_what_is_published_is_found_and_whole(store: Store) -> None:
    assert store.names() == ()
    install(store, "voice")
    assert store.names() == ("voice",)
    assert store.path("voice") == store.root / "voice"
    assert store.manifest("voice").file("model.onnx").size == len("weights")
    assert store.verify("voice") == ()
    assert hidden(store) == []


def test_a_failed_build_leaves_nothing(store: Store) -> None:
    with pytest.raises(RuntimeError), store.incoming() as folder:
        tiny("voice", folder)
        assert store.names() == ()
        raise RuntimeError
    assert store.names() == ()
    assert hidden(store) == []


def test_a_manifest_with_a_file_that_is_not_there_is_not_published(store: Store) -> None:
    with store.incoming() as folder:
        artifact = tiny("voice", folder)
        (folder / "model.onnx").unlink()
        with pytest.raises(ArtifactError, match=r"model\.onnx was not written"):
            store.publish(folder, artifact)
    assert store.names() == ()


@pytest.mark.parametrize("name", ["../voice", ".hidden", "a/b", ""])
def test_a_name_that_is_no_folder_of_the_store_is_refused(store: Store, name: str) -> None:
    with store.incoming() as folder, pytest.raises(ArtifactError, match="artifact name"):
        store.publish(folder, tiny(name, folder))


def test_publishing_again_replaces_and_open_files_stay_readable(store: Store) -> None:
    folder = install(store, "voice", "old")
    with (folder / "model.onnx").open() as still_open:
        install(store, "voice", "new")
        assert still_open.read() == "old"
    assert (store.path("voice") / "model.onnx").read_text() == "new"
    assert hidden(store, ".removed-") == []


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda path: path.unlink(), "missing"),
        (lambda path: path.write_text("weight"), "6 bytes, 7 expected"),
        (lambda path: path.write_text("weightz"), "sha256"),
    ],
)
def test_verify_names_the_damaged_file(store: Store, damage: object, complaint: str) -> None:
    path = install(store, "voice") / "model.onnx"
    damage(path)  # type: ignore[operator]
    (problem,) = store.verify("voice")
    assert problem.startswith("model.onnx: ")
    assert complaint in problem


def test_removed_is_gone_at_once_and_from_the_disk(store: Store) -> None:
    install(store, "voice")
    install(store, "other")
    store.remove("voice")
    assert store.names() == ("other",)
    assert hidden(store, ".removed-") == []
    with pytest.raises(ArtifactError, match="unknown installed artifact 'voice'"):
        store.remove("voice")
    with pytest.raises(ArtifactError, match="models pull voice"):
        store.path("voice")


def test_a_killed_build_is_swept_and_a_live_one_is_not(store: Store) -> None:
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from edgevoice.store import Store\n"
        "with Store(Path(sys.argv[1])).incoming() as folder:\n"
        "    (folder / 'half').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(store.root)], check=False)
    assert killed.returncode == -9
    (left,) = [f for f in hidden(store) if f.is_dir()]
    assert store.names() == ()
    with store.incoming() as live:
        assert not left.exists()
        with store.incoming():
            assert live.is_dir()
    assert hidden(store) == []


def test_a_lock_says_once_that_it_waits(store: Store) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from edgevoice.store import Store\n"
        "with Store(Path(sys.argv[1])).lock('x', lambda: print('waits', flush=True)):\n"
        "    print('has it', flush=True)\n"
    )
    with store.lock("x"):
        other = subprocess.Popen(
            [sys.executable, "-c", code, str(store.root)], stdout=subprocess.PIPE, text=True
        )
        assert other.stdout is not None
        assert other.stdout.readline() == "waits\n"
        assert other.poll() is None
    assert other.communicate(timeout=10)[0] == "has it\n"


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "", "a\\b"])
def test_a_manifest_cannot_point_out_of_its_folder(tmp_path: Path, path: str) -> None:
    with pytest.raises(ArtifactError, match="must be relative"):
        ArtifactFile(path, 1, "0" * 64)
    written = tiny("voice", tmp_path)
    manifest.write(written, tmp_path)
    file = tmp_path / manifest.FILE_NAME
    shown = path.replace("\\", "\\\\")
    file.write_text(file.read_text().replace('"model.onnx"', f'"{shown}"'))
    with pytest.raises(ArtifactError, match="must be relative"):
        manifest.read(tmp_path)


def test_the_root_is_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEVOICE_HOME", str(tmp_path))
    assert Store.default().root == tmp_path / "models"
    monkeypatch.delenv("EDGEVOICE_HOME")
    assert "edgevoice" in str(Store.default().root)


def test_sha256_is_the_standard_one_and_counts_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    seen: list[int] = []
    # FIPS 180-2, appendix B.1
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256(path, seen.append) == expected
    assert sum(seen) == os.path.getsize(path)
