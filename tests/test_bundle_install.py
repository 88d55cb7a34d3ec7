"""A bundle's install.sh checks, installs, and undoes on this machine; its services are sound."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from bundles import HERE, PYTHON, Maker

from edgevoice.devices import bundle
from edgevoice.devices.bundle_wheels import Target
from edgevoice.store import Store

Done = subprocess.CompletedProcess[str]


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


def test_what_fails_half_way_leaves_nothing(tiny_store: Store, tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    with zipfile.ZipFile(tmp_path / "wheels" / "pip-9-py3-none-any.whl", "w") as wheel:
        wheel.writestr("pip/__init__.py", "")
        wheel.writestr("pip/__main__.py", "raise SystemExit('the disk is full')")
    maker = Maker(tiny_store, tmp_path / "wheels", tmp_path)
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
