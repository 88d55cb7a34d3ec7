"""Bundles: what is in them, and that install.sh checks, installs, and undoes on this machine."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgevoice import config
from edgevoice.devices import bundle, bundle_archive, bundle_command
from edgevoice.devices.bundle import Bundle, BundlePlan, Fetched
from edgevoice.devices.bundle_archive import Member
from edgevoice.devices.bundle_wheels import Target, _reason, fetch_wheels, pack_own_wheel
from edgevoice.devices.profile import load_profile
from edgevoice.errors import ArtifactError, ConfigError, FetchError, MissingDependencyError
from edgevoice.manifest import Manifest
from edgevoice.progress import silent
from edgevoice.settings import Settings
from edgevoice.store import Store, describe

Done = subprocess.CompletedProcess[str]

HERE = platform.machine()
PYTHON = f"3.{sys.version_info.minor}"
STAGES = {
    "vad": ("vad", "silero-vad"),
    "recogniser": ("recogniser", "whisper"),
    "end_of_turn": ("end-of-turn", "smart-turn"),
    "language_model": ("language-model", "gguf"),
    "speech": ("speech", "piper"),
}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheels of a program named edgevoice that only tells its configuration, and of this pip."""
    folder = tmp_path_factory.mktemp("wheels")
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


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = Store(tmp_path_factory.mktemp("store") / "models")
    for section, (stage, family) in STAGES.items():
        with made.incoming() as folder:
            (folder / "weights.bin").write_bytes(section.encode() * 10_000)
            made.publish(
                folder,
                Manifest(
                    name=f"tiny-{stage}",
                    stage=stage,
                    family=family,
                    format="onnx" if stage != "language-model" else "gguf",
                    scheme="int8",
                    licence="MIT",
                    source="test",
                    files=describe(folder),
                ),
            )
    return made


@pytest.fixture
def settings() -> Settings:
    return config.override(
        Settings(), [f"{section}.model=tiny-{stage}" for section, (stage, _) in STAGES.items()]
    )


class Maker:
    """Makes bundles of the tiny models and wheels."""

    def __init__(self, store: Store, wheels: Path, settings: Settings, folder: Path) -> None:
        self._store = store
        self._wheels = wheels
        self._settings = settings
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
            settings or self._settings,
            chosen={("speech", "model")},
            own_profile=own_profile,
        )
        return bundle.make(plan, self._store, self.folder / name, silent, fetching)

    def unpack(self, made: Bundle) -> Path:
        with tarfile.open(made.path) as archive:
            archive.extractall(self.folder, filter="data")
        return self.folder / made.folder


@pytest.fixture
def maker(store: Store, wheels: Path, settings: Settings, tmp_path: Path) -> Maker:
    return Maker(store, wheels, settings, tmp_path)


def install(folder: Path, *options: str, script: str = "install.sh") -> Done:
    """Run the bundle's install.sh, or another, with a home beside the bundle."""
    home = folder.parent / "home"
    home.mkdir(exist_ok=True)
    return subprocess.run(
        [folder / script, *options],
        capture_output=True,
        text=True,
        env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(home)},
        check=False,
        timeout=60,
    )


def places(folder: Path) -> tuple[str, ...]:
    """Return the options that keep an installation beside the bundle."""
    return ("--prefix", f"{folder.parent}/app/edgevoice", "--bin", f"{folder.parent}/bin")


# ---------------------------------------------------------------- making


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


def test_a_model_named_by_its_folder_goes_along_by_name(
    maker: Maker, store: Store, settings: Settings
) -> None:
    folder = store.root / "tiny-speech"
    made = maker.make(settings=config.override(settings, [f"speech.model={folder}"]))
    unpacked = maker.unpack(made)
    assert (unpacked / "models" / "tiny-speech" / "weights.bin").is_file()
    assert config.load(unpacked / "edgevoice.toml").speech.model == "tiny-speech"


def test_a_damaged_or_missing_model_ends_it(
    maker: Maker, settings: Settings, wheels: Path, tmp_path: Path, store: Store
) -> None:
    shutil.copytree(store.root, tmp_path / "models")
    damaged = Maker(Store(tmp_path / "models"), wheels, settings, tmp_path)
    (tmp_path / "models" / "tiny-vad" / "weights.bin").write_bytes(b"vad" * 9_999 + b"VAD")
    with pytest.raises(ArtifactError, match=r"tiny-vad: weights\.bin: sha256 .* models pull"):
        damaged.make()
    with pytest.raises(ArtifactError, match="no artifact 'absent'"):
        maker.make(settings=config.override(settings, ["vad.model=absent"]))
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


# ---------------------------------------------------------------- wheels


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
    bundle_command.add_arguments(parser)
    return bundle_command.plan_of(parser.parse_args([*options, "--out", "b.tar.gz"]))


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


def test_models_that_are_too_large_for_the_device_are_warned_of(
    store: Store, settings: Settings, tmp_path: Path
) -> None:
    small = tmp_path / "small.toml"
    small.write_text('inherits = "raspberry-pi-4"\nmemory_mb = 256\nmemory_budget_mb = 128\n')
    plan = replace(planned(str(small)), settings=settings)
    (said,) = bundle_command.misfits(plan, load_profile(str(small)), store)
    assert said.startswith("memory_budget_mb: ")
    assert bundle_command.misfits(plan, load_profile("raspberry-pi-5"), store) == ()


def test_a_profile_of_ones_own_goes_along(maker: Maker, tmp_path: Path) -> None:
    own = tmp_path / "my-board.toml"
    own.write_text('inherits = "raspberry-pi-4"\ntitle = "My board"\n')
    plan = planned(str(own))
    assert (plan.profile, plan.target.architecture) == ("my-board", "aarch64")
    folder = maker.unpack(maker.make(own_profile=plan.own_profile))
    assert load_profile(str(folder / "devices" / "here.toml")).title == "My board"
    sums = (folder / "SHA256SUMS").read_text()
    assert "devices/here.toml" in sums


# ---------------------------------------------------------------- install.sh


def test_it_installs_and_undoes_everything(maker: Maker) -> None:
    folder = maker.unpack(maker.make())
    base = folder.parent
    done = install(folder, *places(folder), "--service", "user")
    assert done.returncode == 0, done.stderr
    prefix = base / "app" / "edgevoice"
    assert f"told {prefix}/edgevoice.toml" in done.stdout
    assert (prefix / "home" / "models" / "tiny-speech" / "manifest.json").is_file()
    unit = base / "home" / ".config" / "systemd" / "user" / "edgevoice.service"
    assert f"ExecStart={prefix}/venv/bin/edgevoice daemon run" in unit.read_text()
    assert "@" not in unit.read_text().replace("@system-service", "").partition("[Unit]")[2]
    again = install(folder, *places(folder))
    assert again.returncode == 2
    assert again.stderr.count("\n") == 1
    assert "holds an edgevoice already" in again.stderr
    # By the copy in the installed folder: the bundle may be gone.
    undone = install(folder, "--uninstall", script=str(prefix / "install.sh"))
    assert undone.returncode == 0, undone.stderr
    assert not (base / "app").exists()
    assert not (base / "bin").exists()
    assert not list((base / "home").iterdir())


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (
            Target("aarch64" if HERE == "x86_64" else "x86_64", PYTHON),
            f"this machine is {HERE}; make one for it",
        ),
        (Target(HERE, "3.99"), f"this bundle is for Python 3.99, python3 is {PYTHON}; install"),
    ],
)
def test_a_bundle_for_another_machine_is_refused(maker: Maker, target: Target, said: str) -> None:
    folder = maker.unpack(maker.make(target))
    done = install(folder, *places(folder))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
    assert not (folder.parent / "app").exists()


def test_a_damaged_file_is_named(maker: Maker) -> None:
    folder = maker.unpack(maker.make())
    weights = folder / "models" / "tiny-vad" / "weights.bin"
    weights.write_bytes(b"V" + weights.read_bytes()[1:])
    done = install(folder, *places(folder))
    assert done.returncode == 1
    assert done.stderr == (
        "install.sh: models/tiny-vad/weights.bin is damaged or missing; "
        "copy the bundle to this machine again\n"
    )
    assert not (folder.parent / "app").exists()


def test_what_fails_half_way_leaves_nothing(
    store: Store, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "wheels").mkdir()
    with zipfile.ZipFile(tmp_path / "wheels" / "pip-9-py3-none-any.whl", "w") as wheel:
        wheel.writestr("pip/__init__.py", "")
        wheel.writestr("pip/__main__.py", "raise SystemExit('the disk is full')")
    maker = Maker(store, tmp_path / "wheels", settings, tmp_path)
    folder = maker.unpack(maker.make())
    done = install(folder, *places(folder))
    assert done.returncode != 0
    assert done.stderr == "the disk is full\ninstall.sh: nothing was installed\n"
    assert not (folder.parent / "app").exists()
    assert not (folder.parent / "bin").exists()


def test_nobody_elses_files_are_touched(maker: Maker) -> None:
    folder = maker.unpack(maker.make())
    command = folder.parent / "bin" / "edgevoice"
    command.parent.mkdir()
    command.write_text("mine")
    done = install(folder, *places(folder))
    assert done.returncode == 2
    assert "is there already" in done.stderr
    assert command.read_text() == "mine"
    app = folder.parent / "app" / "edgevoice"
    app.mkdir(parents=True)
    (app / "letter").write_text("mine")
    command.unlink()
    assert "not empty and not edgevoice's" in install(folder, *places(folder)).stderr
    assert "no edgevoice of a bundle" in install(folder, "--uninstall", *places(folder)[:2]).stderr
    assert (app / "letter").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--prefix", "/a b"), "'/a b': use letters, digits"),
        (("--prefix", "here"), "'here' must begin with /"),
        (("--service", "root"), "known: system, user"),
        (("--verbose",), "unknown option '--verbose'"),
        (("--prefix",), "--prefix needs a value"),
    ],
)
def test_options_are_checked(maker: Maker, options: tuple[str, ...], said: str) -> None:
    source = Path(bundle.__file__).with_name("install.sh")
    (maker.folder / "bundle").mkdir()
    shutil.copy(source, maker.folder / "bundle")
    done = install(maker.folder / "bundle", *options)
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("kind", ["system", "user"])
def test_the_services_are_what_systemd_reads(kind: str, maker: Maker) -> None:
    folder = maker.unpack(maker.make())
    program = maker.folder / "app" / "venv" / "bin" / "edgevoice"
    program.parent.mkdir(parents=True)
    program.touch(0o755)
    unit = maker.folder / "edgevoice.service"
    text = (folder / "services" / f"edgevoice-{kind}.service").read_text()
    unit.write_text(text.replace("@PREFIX@", f"{maker.folder}/app"))
    done = subprocess.run(
        ["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False
    )
    # What it says of other units is not about this one.
    assert "edgevoice" not in done.stderr


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_the_scripts_pass_shellcheck() -> None:
    root = Path(__file__).resolve().parent.parent
    scripts = [root / "devices" / "install.sh", *(root / "devices" / "services").glob("termux/*")]
    for path in (root / "tools").iterdir():
        if path.is_file() and path.read_bytes().startswith(b"#!"):
            scripts.append(path)
    done = subprocess.run(
        ["shellcheck", *map(str, scripts)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
