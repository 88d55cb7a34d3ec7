"""What is in a bundle, and what is said when none can be made."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from bundles import STAGES, Maker, tiny_settings

from edgevoice import config
from edgevoice.commands import devices_bundle
from edgevoice.devices import bundle, bundle_archive
from edgevoice.devices.bundle import BundlePlan
from edgevoice.devices.bundle_archive import Member
from edgevoice.devices.bundle_wheels import Target, _reason, fetch_wheels, pack_own_wheel
from edgevoice.devices.profile import load_profile
from edgevoice.errors import ArtifactError, ConfigError, FetchError, MissingDependencyError
from edgevoice.store import Store


def test_a_bundle_lists_and_hashes_everything(maker: Maker) -> None:
    made = maker.make()
    folder = maker.unpack(made)
    listed = {}
    for line in (folder / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ", 1)
        listed[name] = digest
    present = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert set(listed) == present - {"SHA256SUMS"}
    for name, digest in listed.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    described = json.loads((folder / "bundle.json").read_text())
    assert {f["path"]: f["sha256"] for f in described["files"]} == {
        name: digest for name, digest in listed.items() if not name.startswith("bundle.")
    }
    assert described["models"]["tiny-speech"]["licence"] == "MIT"
    assert set(made.models) == {f"tiny-{stage}" for stage, _ in STAGES.values()}
    assert maker.extras == ("espeak",)
    service = (folder / "services" / "edgevoice-system.service").read_text()
    assert "MemoryMax=1200M" in service
    assert config.load(folder / "edgevoice.toml").speech.model == "tiny-speech"


def test_equal_bundles_are_equal_bytes(maker: Maker) -> None:
    first, second = maker.make(name="1.tar.gz"), maker.make(name="2.tar.gz")
    assert first.path.read_bytes() == second.path.read_bytes()


@pytest.mark.skipif(shutil.which("zstd") is None, reason="zstd is not installed")
def test_zstd_holds_the_same(maker: Maker) -> None:
    made = maker.make(name="b.tar.zst")
    subprocess.run(["tar", "--zstd", "-xf", made.path, "-C", maker.folder], check=True)
    assert (maker.folder / made.folder / "install.sh").stat().st_mode & 0o111


def test_a_model_named_by_its_folder_goes_along_by_name(maker: Maker, tiny_store: Store) -> None:
    folder = tiny_store.root / "tiny-speech"
    made = maker.make(settings=config.override(tiny_settings(), [f"speech.model={folder}"]))
    unpacked = maker.unpack(made)
    assert (unpacked / "models" / "tiny-speech" / "weights.bin").is_file()
    assert config.load(unpacked / "edgevoice.toml").speech.model == "tiny-speech"


def test_a_damaged_or_missing_model_ends_it(
    maker: Maker, tiny_wheels: Path, tmp_path: Path, tiny_store: Store
) -> None:
    shutil.copytree(tiny_store.root, tmp_path / "models")
    damaged = Maker(Store(tmp_path / "models"), tiny_wheels, tmp_path)
    (tmp_path / "models" / "tiny-vad" / "weights.bin").write_bytes(b"vad" * 9_999 + b"VAD")
    with pytest.raises(ArtifactError, match=r"tiny-vad: weights\.bin: sha256 .* models pull"):
        damaged.make()
    with pytest.raises(ArtifactError, match="no artifact 'absent'"):
        maker.make(settings=config.override(tiny_settings(), ["vad.model=absent"]))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["models"]


def test_a_name_that_is_no_archive(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"must end in .tar.zst or .tar.gz"):
        maker.make(name="b.zip")
    with pytest.raises(ConfigError, match="no folder"):
        maker.make(name="nowhere/b.tar.gz")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingDependencyError, match=r"apt install zstd.*\.tar\.gz"):
        maker.make(name="b.tar.zst")


def test_a_small_disk_is_seen_before(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=50_000_000))
    with pytest.raises(FetchError, match=r"50 MB free, the bundle needs about 16\d MB; make room"):
        maker.make()
    assert not list(maker.folder.iterdir())


FULL_DISK = """
import os, sys
from pathlib import Path
from edgevoice.devices.bundle_archive import Member, write_archive
from edgevoice.errors import FetchError
folder, source = Path(sys.argv[1]), Path(sys.argv[2])
try:
    write_archive(folder / sys.argv[3], "top", [Member("noise", source)], int)
except FetchError as error:
    print(error)
print(os.listdir(folder))
"""


@pytest.mark.network_namespace
@pytest.mark.parametrize("name", ["b.tar.gz", "b.tar.zst"])
def test_a_full_disk_is_one_line_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    if name.endswith(".zst") and shutil.which("zstd") is None:
        pytest.skip("zstd is not installed")
    (tmp_path / "noise").write_bytes(os.urandom(3 << 20))
    (tmp_path / "small").mkdir()
    (tmp_path / "full.py").write_text(FULL_DISK)
    script = 'mount -t tmpfs -o size=1m none small && exec "$0" full.py small noise "$1"'
    namespace = ["-m"] if os.geteuid() == 0 else ["-rm"]
    done = subprocess.run(
        ["unshare", *namespace, "sh", "-c", script, sys.executable, name],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    said, left = done.stdout.splitlines()
    assert "No space left on device; make room, or let --out name another" in said
    assert left == "[]"


def test_a_file_that_cannot_be_read_leaves_nothing(tmp_path: Path) -> None:
    missing = Member("a", tmp_path / "missing")
    with pytest.raises(FileNotFoundError):
        bundle_archive.write_archive(tmp_path / "b.tar.gz", "top", [missing], int)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("architecture", "python", "said"),
    [
        ("riscv64", "3.11", "no bundle for 'riscv64'; there are wheels for: aarch64, x86_64"),
        ("aarch64", "3.10", "python '3.10': must be a version from 3.11 up"),
        ("aarch64", "latest", "python 'latest': must be"),
    ],
)
def test_what_no_bundle_is_for(architecture: str, python: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Target(architecture, python)


def test_the_own_wheel_is_what_runs_here(tmp_path: Path) -> None:
    with zipfile.ZipFile(pack_own_wheel(tmp_path)) as wheel:
        names = wheel.namelist()
        assert len(names) == len(set(names))
        for name in (
            "cli.py",
            "commands/talk.py",
            "catalogue.toml",
            "export/plan.py",
            "quant/int8.py",
        ):
            assert f"edgevoice/{name}" in names
        assert "edgevoice/devices/install.sh" in names
        assert "edgevoice/devices/profiles/raspberry-pi-5.toml" in names
        about = next(n for n in names if n.endswith("METADATA"))
        assert "Requires-Dist: llama-cpp-python" in wheel.read(about).decode()
        assert (
            "edgevoice = edgevoice.cli:main"
            in wheel.read(about.replace("METADATA", "entry_points.txt")).decode()
        )
        assert wheel.testzip() is None


def test_a_wheel_that_nobody_has_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(FetchError, match=r"no wheel of \S+ for aarch64 and Python 3.11; .*links"):
        fetch_wheels(Target("aarch64", "3.11"), (), (), tmp_path)


def test_a_missing_llama_says_how_it_is_made() -> None:
    said = "ERROR: No matching distribution found for llama-cpp-python==0.3.36\n"
    assert "tools/cross-llama makes one" in _reason(said, Target("aarch64", "3.11"))
    assert "the disk is full" in _reason(
        "ERROR: Could not install packages: [Errno 28] No space left on device",
        Target("aarch64", "3.11"),
    )


def planned(*options: str) -> BundlePlan:
    parser = argparse.ArgumentParser()
    devices_bundle.add_arguments(parser)
    return devices_bundle.plan_of(parser.parse_args([*options, "--out", "b.tar.gz"]))


def test_the_device_is_told_what_was_chosen_and_its_profile(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[turns]\nbarge_in_ms = 200.0\n")
    plan = planned(
        *("raspberry-pi-5", "--config", str(tmp_path / "mine.toml")),
        *("--set", "speech.model=/a/folder/my-voice", "--python", "3.13"),
    )
    assert plan.target == Target("aarch64", "3.13")
    assert plan.memory_mb == load_profile("raspberry-pi-5").memory_budget_mb
    assert tomllib.loads(bundle._configuration(plan)) == {
        "device": {"profile": "raspberry-pi-5"},
        "speech": {"model": "my-voice"},
        "turns": {"barge_in_ms": 200.0},
    }
    assert plan.own_profile == ""


def test_the_models_that_the_profile_names_come_along() -> None:
    named = load_profile("raspberry-pi-4").models["llm"]
    assert planned("raspberry-pi-4").settings.language_model.model == named
    assert planned("raspberry-pi-5").settings.language_model.model != named
    mine = planned("raspberry-pi-4", "--set", "language_model.model=mine")
    assert mine.settings.language_model.model == "mine"


def test_models_that_are_too_large_for_the_device_are_warned_of(
    tiny_store: Store, tmp_path: Path
) -> None:
    small = tmp_path / "small.toml"
    small.write_text('inherits = "raspberry-pi-4"\nmemory_mb = 256\nmemory_budget_mb = 128\n')
    plan = replace(planned(str(small)), settings=tiny_settings())
    (said,) = devices_bundle.misfits(plan, load_profile(str(small)), tiny_store)
    assert said.startswith("memory_budget_mb: ")
    assert devices_bundle.misfits(plan, load_profile("raspberry-pi-5"), tiny_store) == ()


def test_a_profile_of_ones_own_goes_along(maker: Maker, tmp_path: Path) -> None:
    own = tmp_path / "my-board.toml"
    own.write_text('inherits = "raspberry-pi-4"\ntitle = "My board"\n')
    plan = planned(str(own))
    assert (plan.profile, plan.target.architecture) == ("my-board", "aarch64")
    folder = maker.unpack(maker.make(own_profile=plan.own_profile))
    assert load_profile(str(folder / "devices" / "here.toml")).title == "My board"
    sums = (folder / "SHA256SUMS").read_text()
    assert "devices/here.toml" in sums
