"""First loads in a child process: what ends the child must not end the test."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgevoice.engines import probe
from edgevoice.engines.language_model import LOADER
from edgevoice.errors import ArtifactError

LOADERS = """
import os, signal, sys, time
from edgevoice.errors import ArtifactError

def succeeds(folder):
    assert folder.is_dir()
    with (folder.parent / "loads").open("a") as log:
        log.write("load\\n")

def aborts(folder):
    print("GGML_ASSERT(fits) failed", file=sys.stderr, flush=True)
    os.abort()

def runs_out_of_memory(folder):
    os.kill(os.getpid(), signal.SIGKILL)

def hangs(folder):
    time.sleep(60)

def raises(folder):
    raise ValueError("no such operator")

def refuses(folder):
    raise ArtifactError(f"{folder} is truncated")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An artifact; `loaders` becomes a module that the child can import."""
    monkeypatch.setenv("EDGEVOICE_HOME", str(tmp_path / "home"))
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "loaders.py").write_text(LOADERS)
    inherited = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", f"{modules}{os.pathsep}{inherited}")
    artifact = tmp_path / "artifact"
    artifact.mkdir()
    (artifact / "manifest.json").write_text("{}")
    (artifact / "weights.bin").write_bytes(b"weights")
    return artifact


@pytest.mark.parametrize(
    ("loader", "said"),
    [
        ("aborts", r"crashed with SIGABRT: GGML_ASSERT\(fits\) failed; pull"),
        ("runs_out_of_memory", "ended by SIGKILL, probably for want of memory"),
        ("raises", r"failed \(exit status 1\): ValueError: no such operator"),
        ("refuses", r"artifact is truncated$"),
    ],
)
def test_a_child_that_fails(folder: Path, loader: str, said: str) -> None:
    for _ in range(2):  # a failure leaves no stamp
        with pytest.raises(ArtifactError, match=said) as caught:
            probe.ensure_loadable(folder, f"loaders:{loader}")
        assert "\n" not in str(caught.value)


def test_a_child_that_hangs_is_ended(folder: Path) -> None:
    with pytest.raises(ArtifactError, match=r"did not end within 0\.5 s"):
        probe.ensure_loadable(folder, "loaders:hangs", timeout_s=0.5)


def loads(folder: Path) -> int:
    return (folder.parent / "loads").read_text().count("load")


def test_a_success_is_remembered_until_the_content_changes(folder: Path) -> None:
    for _ in range(3):
        probe.ensure_loadable(folder, "loaders:succeeds")
    assert loads(folder) == 1
    (folder / "weights.bin").write_bytes(b"other weights")
    probe.ensure_loadable(folder, "loaders:succeeds")
    assert loads(folder) == 2
    (folder / "manifest.json").write_text("{ }")
    probe.ensure_loadable(folder, "loaders:succeeds")
    assert loads(folder) == 3


def test_another_library_version_is_tried_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe.ensure_loadable(folder, "loaders:succeeds")
    monkeypatch.setattr(probe, "_versions", lambda: ("onnxruntime 99",))
    probe.ensure_loadable(folder, "loaders:succeeds")
    assert loads(folder) == 2


def test_a_cache_that_cannot_be_written_costs_a_probe_each_time(folder: Path) -> None:
    (folder.parent / "home").write_text("a file where the cache's folder should be")
    for _ in range(2):
        probe.ensure_loadable(folder, "loaders:succeeds")
    assert loads(folder) == 2


def test_no_interpreter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(folder / "no-python"))
    with pytest.raises(ArtifactError, match="no process to try its first load in"):
        probe.ensure_loadable(folder, "loaders:succeeds")


def test_the_default_gguf_loads(folder: Path, artifact: Callable[[str], Path]) -> None:
    probe.ensure_loadable(artifact("smollm2-135m-instruct-q8_0"), LOADER)


def test_a_damaged_vocabulary_does_not_end_this_process(
    folder: Path, artifact: Callable[[str], Path]
) -> None:
    """Sound sizes, broken contents: only llama.cpp itself can tell."""
    whole = next(artifact("smollm2-135m-instruct-q8_0").glob("*.gguf"))
    damaged = folder / "damaged.gguf"
    damaged.write_bytes(
        whole.read_bytes().replace(b"tokenizer.ggml.merges", b"tokenizer.ggml.merged")
    )
    with pytest.raises(ArtifactError) as caught:
        probe.ensure_loadable(damaged, LOADER)
    assert str(damaged) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_child_as_a_command(folder: Path) -> None:
    command = [sys.executable, "-P", "-m", "edgevoice.engines.probe", "loaders:refuses"]
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (3, f"{folder} is truncated\n")
