"""The Termux scripts as far as they can be tried without a phone: a stand-in for Termux's own
programs, and a real PulseAudio server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgevoice.devices import bundle

SCRIPTS = Path(bundle.__file__).parent / "services" / "termux"
DEVICES = (
    "from edgevoice.audio.pulse_client import list_pulse_devices; "
    "print(*sorted(d.name for d in list_pulse_devices()))"
)


class Phone:
    """A folder that looks like Termux's; each stand-in writes how it was called into a log."""

    def __init__(self, folder: Path) -> None:
        self.prefix = folder / "com.termux" / "files" / "usr"
        self.log = folder / "calls"
        self.home = folder / "home"
        self.home.mkdir()
        (self.prefix / "tmp").mkdir(parents=True)
        (self.prefix / "bin").mkdir()
        for name in ("pkg", "termux-microphone-record", "termux-wake-lock", "termux-wake-unlock"):
            self.program(name, "")
        self.program("uname", "echo aarch64")
        # What is after "--" runs here, where /tmp of the Debian is Termux's.
        self.program(
            "proot-distro",
            'while [ "$1" != -- ]; do shift; done; shift\n'
            f'case $* in *list) exec env PULSE_SERVER="unix:$TMPDIR/edgevoice-pulse" '
            f"{sys.executable} -P -c '{DEVICES}';; esac",
        )
        self.environment = {
            "PATH": f"{self.prefix}/bin:/usr/bin:/bin",
            "PREFIX": str(self.prefix),
            "HOME": str(self.home),
            "TMPDIR": str(self.prefix / "tmp"),
            "XDG_RUNTIME_DIR": str(self.home),
            "PULSE_RUNTIME_PATH": str(self.home / "pulse"),
            "PULSE_SCRIPT": str(folder / "default.pa"),
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        }

    def program(self, name: str, script: str) -> None:
        path = self.prefix / "bin" / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>{self.log}\n{script}\n')
        path.chmod(0o755)

    def run(self, script: Path, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", script, *options],
            capture_output=True,
            text=True,
            env=self.environment,
            check=False,
            timeout=60,
        )

    def calls(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def phone(tmp_path: Path) -> Phone:
    return Phone(tmp_path)


@pytest.fixture
def pulse(phone: Phone, tmp_path: Path) -> Iterator[Path]:
    """The file with what the server has at its start."""
    script = tmp_path / "default.pa"
    script.write_text("load-module module-null-sink sink_name=speaker\n")
    yield script
    subprocess.run(
        ["pulseaudio", "--kill"], env=phone.environment, capture_output=True, check=False
    )


@pytest.mark.pulse
def test_sound_goes_over_a_socket_that_no_other_app_reaches(phone: Phone, pulse: Path) -> None:
    pulse.write_text(pulse.read_text() + "load-module module-null-source source_name=microphone\n")
    done = phone.run(SCRIPTS / "edgevoice-termux", "list")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["microphone", "speaker", "speaker.monitor"]
    assert "no microphone" not in done.stderr
    (call,) = phone.calls()
    assert call == (
        "proot-distro login debian --shared-tmp -- "
        "env PULSE_SERVER=unix:/tmp/edgevoice-pulse /usr/local/bin/edgevoice list"
    )
    # The server that runs is taken; a second one would fight for the microphone.
    first = (phone.home / "pulse" / "pid").read_text()
    assert phone.run(SCRIPTS / "edgevoice-termux", "list").returncode == 0
    assert (phone.home / "pulse" / "pid").read_text() == first


@pytest.mark.pulse
def test_a_missing_microphone_is_asked_for_and_said(phone: Phone, pulse: Path) -> None:
    assert pulse.exists()
    done = phone.run(SCRIPTS / "edgevoice-termux", "list")
    assert done.returncode == 0
    assert "no microphone; allow it to Termux:API" in done.stderr
    assert phone.calls()[0].startswith("termux-microphone-record -l 1 -f ")


def test_set_up_start_at_boot_and_taking_it_away(phone: Phone, tmp_path: Path) -> None:
    folder = tmp_path / "edgevoice-9-android-termux"
    shutil.copytree(SCRIPTS, folder / "services" / "termux")
    (folder / "bundle.env").touch()
    done = phone.run(folder / "services" / "termux" / "setup.sh", "--boot")
    assert done.returncode == 0, done.stderr
    calls = "\n".join(phone.calls())
    assert "pkg install -y pulseaudio termux-api proot-distro" in calls
    assert f"{folder}/install.sh --prefix /opt/edgevoice" in calls
    assert os.access(phone.prefix / "bin" / "edgevoice-termux", os.X_OK)
    assert os.access(phone.home / ".termux" / "boot" / "edgevoice", os.X_OK)
    undone = phone.run(folder / "services" / "termux" / "setup.sh", "--uninstall")
    assert undone.returncode == 0, undone.stderr
    assert "/opt/edgevoice/install.sh --uninstall" in phone.calls()[-1]
    assert not (phone.prefix / "bin" / "edgevoice-termux").exists()
    assert not (phone.home / ".termux" / "boot" / "edgevoice").exists()


def test_the_daemon_is_started_again_until_somebody_stops_it(phone: Phone, tmp_path: Path) -> None:
    # Fails twice, then ends as one that was stopped.
    count = tmp_path / "count"
    phone.program("edgevoice-termux", f'echo x >>{count}; [ "$(wc -l <{count})" -ge 3 ] || exit 1')
    phone.program("sleep", "")
    done = phone.run(SCRIPTS / "boot")
    assert done.returncode == 0, done.stderr
    assert [call.split()[0] for call in phone.calls()] == [
        "termux-wake-lock",
        *("edgevoice-termux", "sleep") * 2,
        "edgevoice-termux",
        "termux-wake-unlock",
    ]
    assert "ended with 1, starting again" in (phone.home / "edgevoice-daemon.log").read_text()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"PREFIX": "/usr"}, "this is not Termux"),
        ({"uname": "armv8l"}, "this phone is armv8l; edgevoice needs a 64-bit one"),
        ({}, "is no bundle; unpack it whole"),
    ],
)
def test_where_it_cannot_be_set_up(phone: Phone, change: dict[str, str], said: str) -> None:
    if "uname" in change:
        phone.program("uname", f"echo {change['uname']}")
    else:
        phone.environment |= change
    done = phone.run(SCRIPTS / "setup.sh")
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
