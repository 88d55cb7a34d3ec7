"""`edgevoice devices`, and the profile behind `--device` and `device.profile`."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import machines
import pytest

from edgevoice import cli, config, doctor, host
from edgevoice.commands import devices
from edgevoice.devices import defaults, detect
from edgevoice.devices.profile import load_profile
from edgevoice.devices.root import Root
from edgevoice.settings import Settings
from edgevoice.store import Store

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration and a store of the test's own."""
    monkeypatch.setenv("EDGEVOICE_CONFIG", str(tmp_path / "edgevoice.toml"))
    monkeypatch.setenv("EDGEVOICE_HOME", str(tmp_path / "home"))
    (tmp_path / "edgevoice.toml").write_text("")
    (tmp_path / "devices").mkdir()
    return tmp_path


@pytest.fixture
def run(home: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def pretend(monkeypatch: pytest.MonkeyPatch, root: Root, architecture: str = "") -> None:
    """Let the commands read ``root`` for this machine."""
    machine = detect.detect(root)
    monkeypatch.setattr(devices, "detect", lambda: machine)
    monkeypatch.setattr(defaults, "this_architecture", lambda: architecture or machine.architecture)


def test_list(run: Run, home: Path) -> None:
    (home / "devices" / "mine.toml").write_text('inherits = "rk3588"\ntitle = "My box"\n')
    (home / "devices" / "bad.toml").write_text("titel = 1\n")
    code, out, err = run("devices", "list")
    assert code == 0
    assert out.splitlines()[0].split() == [
        *("NAME", "DEVICE", "ARCHITECTURE", "CORES", "MEMORY", "FROM"),
    ]
    (mine,) = [line for line in out.splitlines() if line.startswith("mine ")]
    assert mine.split() == ["mine", "My", "box", "aarch64", "8", "4096", "MiB", "you"]
    assert err.count("\n") == 1 and "unknown key 'titel'; did you mean 'title'?" in err
    code, out, _ = run("devices", "list", "--json")
    listed = json.loads(out)
    assert listed["folder"] == str(home / "devices")
    assert len(listed["unusable"]) == 1
    built_in = {p["name"]: p["built_in"] for p in listed["profiles"]}
    assert built_in["raspberry-pi-5"] and not built_in["mine"]


def test_show(run: Run) -> None:
    code, out, _ = run("devices", "show", "raspberry-pi-5")
    assert code == 0
    assert tomllib.loads(out)["threads"]["llm"] == 3
    assert "# from the end of the user's speech to the answer's first sound" in out
    code, out, _ = run("devices", "show", "raspberry-pi-5", "--json")
    assert json.loads(out)["clusters"] == [{"name": "Cortex-A76", "cores": 4, "fast": True}]
    code, out, err = run("devices", "show", "rasberry-pi-5")
    assert (code, out) == (2, "")
    assert err.startswith("edgevoice: unknown device profile 'rasberry-pi-5'; did you mean")


def test_detect(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = machines.raspberry_pi_5(tmp_path / "pi", "throttled=0x50000")
    pretend(monkeypatch, root)
    code, out, err = run("devices", "detect")
    assert (code, err) == (0, "")
    rows = dict(line.split("  ", 1) for line in out.split("\n\n")[0].splitlines())
    rows = {key: value.strip() for key, value in rows.items()}
    assert rows["model"] == "Raspberry Pi 5 Model B Rev 1.0"
    assert rows["cores"] == "4 x Cortex-A76, 2400 MHz, fast (cpu 0,1,2,3)"
    assert rows["temperature"] == "61 °C"
    assert rows["throttling"] == "none; since the start: under-voltage, throttled (vcgencmd)"
    assert rows["battery"] == "none"
    assert rows["sound cards"] == "vc4-hdmi-0 plays; USB Audio Device plays records"
    assert {"audio pyaudio", "audio pulse"} <= set(rows)
    assert "profile: raspberry-pi-5\n" in out and "talk --device raspberry-pi-5" in out
    code, out, _ = run("devices", "detect", "--json")
    told = json.loads(out)
    assert told["suggestion"] == "raspberry-pi-5"
    assert told["machine"]["fast_cores"] == [0, 1, 2, 3]
    assert told["machine"]["throttling"]["before"] == ["under-voltage", "throttled"]


def test_detect_where_nothing_is_told(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpuinfo = "processor\t: 0\nFeatures\t: half thumb neon\n"
    pretend(monkeypatch, machines.plant(tmp_path / "old", {"proc/cpuinfo": cpuinfo}))
    code, out, _ = run("devices", "detect")
    assert code == 1
    for line in ("governor", "temperature", "throttling", "memory", "model"):
        assert next(r for r in out.splitlines() if r.startswith(line)).endswith("not known")
    assert "no audio hardware in sight" in out
    assert "profile: none\n  architecture armv7l" in out
    code, out, err = run("devices", "fit")
    assert (code, out) == (2, "") and err.endswith("name a profile\n")


def test_fit_for_a_profile(run: Run) -> None:
    code, out, _ = run("devices", "fit", "raspberry-pi-zero-2w")
    assert code == 0
    rows = {line.split()[0]: line for line in out.splitlines()}
    assert "no    memory_budget_mb: needs about" in rows["default"]
    assert rows["smollm2-135m-instruct-q8_0"].rstrip().endswith("yes")
    assert "recognition: " in rows["zipformer-en-20m-int8"]
    code, out, _ = run("devices", "fit", "x86-64", "--json")
    told = json.loads(out)
    assert told["profile"] == "x86-64"
    (default,) = [b for b in told["bundles"] if b["name"] == "default"]
    assert default["fits"] and default["problems"] == []


def test_fit_answers_a_script(run: Run) -> None:
    asked = ("devices", "fit", "raspberry-pi-zero-2w", "--models", "default")
    code, out, _ = run(*asked)
    assert code == 1 and len(out.splitlines()) == 3
    assert run(*asked, "--memory-mb", "2000")[0] == 0
    assert run("devices", "fit", "raspberry-pi-5", "--models", "default", "silero-vad")[0] == 0
    code, _, err = run(*asked, "--memory-mb", "0")
    assert (code, err) == (2, "edgevoice: --memory-mb 0: at least 1 is needed\n")
    code, _, err = run(*asked, "defalt")
    assert code == 2 and "unknown model or bundle 'defalt'; did you mean 'default'?" in err
    code, _, err = run("devices", "fit", "nowhere")
    assert code == 2 and "unknown device profile 'nowhere'" in err


def test_fit_for_this_machine(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, machines.x86(tmp_path / "pc", machines.OLD_X86))
    code, out, _ = run("devices", "fit")
    assert code == 0
    assert out.startswith("for x86-64 (x86-64 computer):\n")
    (note,) = [line for line in out.splitlines() if line.startswith("note: ")]
    assert "overflow without VNNI" in note and "whisper-tiny.en-int8" in note
    pretend(monkeypatch, machines.x86(tmp_path / "new"))
    assert "note: " not in run("devices", "fit")[1]


def on(monkeypatch: pytest.MonkeyPatch, architecture: str, cores: int = 8) -> None:
    monkeypatch.setattr(defaults, "this_architecture", lambda: architecture)
    monkeypatch.setattr(host, "cores", lambda: cores)


def test_what_wins(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, "aarch64")
    (home / "edgevoice.toml").write_text(
        "[language_model]\nthreads = 7\n[audio]\ngain_control = true"
    )
    got = defaults.load(None, ["speech.threads=5"], "android-termux")
    assert got.language_model.threads == 7  # the file
    assert got.speech.threads == 5  # --set
    assert got.recogniser.threads == 2  # the profile
    assert got.audio.port == "pulse" and got.audio.gain_control
    assert got.vad == Settings().vad  # the default
    assert got.device.profile == "android-termux"


def test_a_profile_of_the_configuration(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, "aarch64")
    (home / "edgevoice.toml").write_text('[device]\nprofile = "raspberry-pi-5"\n')
    assert defaults.load().language_model.threads == 3
    assert defaults.load(device="rk3588").language_model.threads == 4
    assert defaults.load(None, ["device.profile=rk3588"]).language_model.threads == 4
    assert defaults.load(None, ["device.profile=''"]) == Settings()
    assert defaults.load(device="raspberry-pi-zero-2w").recogniser.passes == "first"
    chosen = defaults.load(None, ["recogniser.passes=both"], "raspberry-pi-zero-2w")
    assert chosen.recogniser.passes == "both"


def test_no_more_threads_than_cores(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, "aarch64", cores=2)
    assert load_profile("jetson-orin-nano").threads["llm"] == 5
    assert defaults.load(device="jetson-orin-nano").language_model.threads == 2


def test_without_a_profile_nothing_changes(home: Path) -> None:
    assert defaults.load() == config.load() == Settings()


@pytest.mark.parametrize("command", [["talk", "--fast"], ["daemon", "run"], ["config", "show"]])
def test_a_profile_that_cannot_be_used_is_one_line(
    run: Run, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on(monkeypatch, "x86_64")
    code, out, err = run(*command, "--device", "raspberry-pi-5")
    assert (code, out) == (2, "")
    assert err == (
        "edgevoice: device profile 'raspberry-pi-5' is for aarch64, this machine is x86_64; "
        "`edgevoice devices detect` suggests one\n"
    )
    code, out, err = run(*command, "--device", "pi")
    assert code == 2 and err.startswith("edgevoice: unknown device profile 'pi'; known: ")


def test_the_settings_in_force_are_shown(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, "aarch64")
    _, out, _ = run("config", "show", "--device", "rk3588")
    shown = tomllib.loads(out)
    assert shown["language_model"]["threads"] == 4 and shown["device"]["profile"] == "rk3588"
    assert tomllib.loads(run("config", "show", "--defaults")[1])["device"]["profile"] == ""


def test_doctor_names_the_profile(home: Path) -> None:
    checks = list(doctor.examine(Settings(), Store.default(), quick=True))
    (check,) = [c for c in checks if (c.area, c.name) == ("machine", "device")]
    assert check.status == "note" and check.detail.partition(":")[0]
