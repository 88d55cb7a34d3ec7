"""What is read of a machine, and the profile that is suggested for it."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import machines
import pytest

from edgevoice.devices import condition, cores
from edgevoice.devices.condition import Battery, SoundCard, Throttling
from edgevoice.devices.detect import detect, refuse_other_architecture, suggest
from edgevoice.devices.profile import DeviceProfile, load_profile, load_profiles
from edgevoice.devices.root import Root, run_command
from edgevoice.errors import ConfigError


@pytest.fixture(autouse=True)
def no_profiles_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEVOICE_CONFIG", str(tmp_path / "nowhere" / "edgevoice.toml"))


def suggested(root: Root) -> tuple[str, tuple[str, ...]]:
    found = suggest(detect(root), load_profiles()[0])
    return (found.profile.name if found.profile is not None else ""), found.reasons


def test_a_raspberry_pi_5(tmp_path: Path) -> None:
    root = machines.raspberry_pi_5(tmp_path)
    machine = detect(root)
    assert machine.architecture == "aarch64"
    assert machine.cpu_features == ("asimd", "asimdhp", "asimddp")
    (group,) = machine.groups
    assert (group.name, group.numbers, group.max_mhz, group.fast) == (
        *("Cortex-A76", (0, 1, 2, 3), 2400, True),
    )
    assert machine.processor == "4 x Cortex-A76"
    assert machine.memory_mb == 8062
    assert machine.model == "Raspberry Pi 5 Model B Rev 1.0"
    assert machine.compatible == ("raspberrypi,5-model-b", "brcm,bcm2712")
    assert (machine.system, machine.governor, machine.temperature_c) == ("linux", "ondemand", 61.35)
    assert machine.throttling == Throttling((), (), "vcgencmd")
    assert machine.battery is None
    assert machine.sound_cards == (
        SoundCard("vc4-hdmi-0", plays=True, records=False),
        SoundCard("USB Audio Device", plays=True, records=True),
    )
    name, reasons = suggested(root)
    assert name == "raspberry-pi-5"
    assert reasons == ("the device tree's model is 'Raspberry Pi 5 Model B Rev 1.0'",)


def test_a_raspberry_pi_that_throttles(tmp_path: Path) -> None:
    held = detect(machines.raspberry_pi_5(tmp_path, "throttled=0x50005")).throttling
    assert held == Throttling(
        ("under-voltage", "throttled"), ("under-voltage", "throttled"), "vcgencmd"
    )
    assert condition.throttling(Root(tmp_path, lambda _: "error=1")) is None


def test_a_raspberry_pi_4(tmp_path: Path) -> None:
    root = machines.raspberry_pi_4(tmp_path)
    machine = detect(root)
    assert machine.cpu_features == ("asimd",)
    assert machine.fast_cores == (0, 1, 2, 3)
    # Neither a governor, a thermal zone, vcgencmd nor a sound card: not known, and no error.
    assert (machine.governor, machine.temperature_c, machine.throttling) == (None, None, None)
    assert machine.sound_cards == ()
    assert suggested(root)[0] == "raspberry-pi-4"


def test_a_raspberry_pi_zero_2w_and_its_missing_memory(tmp_path: Path) -> None:
    assert suggested(machines.raspberry_pi_zero_2w(tmp_path)) == (
        "raspberry-pi-zero-2w",
        ("the device tree's model is 'Raspberry Pi Zero 2 W Rev 1.0'",),
    )


def test_big_and_little_cores(tmp_path: Path) -> None:
    root = machines.rk3588(tmp_path)
    machine = detect(root)
    assert [(g.name, g.numbers, g.fast) for g in machine.groups] == [
        ("Cortex-A76", (4, 5, 6, 7), True),
        ("Cortex-A55", (0, 1, 2, 3), False),
    ]
    assert machine.fast_cores == (4, 5, 6, 7)
    assert machine.processor == "4 x Cortex-A76 + 4 x Cortex-A55"
    assert suggested(root) == (
        "rk3588",
        ("the device tree's compatible is 'rockchip,rk3588'",),
    )


def test_a_jetson(tmp_path: Path) -> None:
    assert suggested(machines.jetson(tmp_path))[0] == "jetson-orin-nano"


def test_a_phone(tmp_path: Path) -> None:
    root = machines.snapdragon_8_gen_3(tmp_path)
    machine = detect(root)
    assert (machine.system, machine.soc) == ("termux", "SM8650")
    assert {"asimddp", "i8mm", "bf16"} <= set(machine.cpu_features)
    assert [(g.name, len(g.numbers), g.fast) for g in machine.groups] == [
        ("Cortex-X4", 1, True),
        ("Cortex-A720", 3, True),
        ("Cortex-A720", 2, True),
        ("Cortex-A520", 2, False),
    ]
    assert machine.battery == Battery(81, "Discharging")
    assert suggested(root) == ("android-snapdragon-8", ("Android's chip is 'SM8650'",))


def test_a_phone_that_nobody_knows(tmp_path: Path) -> None:
    root = replace(machines.snapdragon_8_gen_3(tmp_path, termux=False), run=lambda _: "")
    assert suggested(root) == (
        "android-termux",
        ("the system is Android, and no profile names its chip",),
    )


@pytest.mark.parametrize("flags", [machines.X86, machines.OLD_X86])
def test_an_x86(tmp_path: Path, flags: str) -> None:
    root = machines.x86(tmp_path, flags)
    machine = detect(root)
    assert machine.architecture == "x86_64"
    assert ("avx512_vnni" in machine.cpu_features) == (flags == machines.X86)
    assert machine.processor == "Some Processor"
    assert [g.fast for g in machine.groups] == [True]
    assert suggested(root)[0] == "x86-64"


def test_an_x86_that_is_too_old_for_its_profile(tmp_path: Path) -> None:
    name, reasons = suggested(machines.x86(tmp_path, "fpu lm sse4_2"))
    assert name == "x86-64"
    assert reasons[1] == "but cpu_features: this machine has no avx2, fma, f16c"


def test_an_arm_board_that_no_profile_names(tmp_path: Path) -> None:
    files = machines.arm(machines.A53, [(0xD08, None, 1_500_000)] * 4, 4_000_000)
    name, reasons = suggested(machines.plant(tmp_path, files | machines.board("New Board", "n,b")))
    assert (name, reasons[0][:28]) == ("raspberry-pi-4", "no profile names this board;")
    small = tmp_path / "small"
    files = machines.arm(machines.A53, [(0xD03, None, None)], 250_000)
    assert suggested(machines.plant(small, files)) == (
        "",
        ("no profile names this board, and every one asks for more than it has",),
    )


def test_a_board_with_less_than_its_profile_counts_with(tmp_path: Path) -> None:
    root = machines.raspberry_pi_5(tmp_path)
    machines.plant(tmp_path, machines.memory(1_000_000))
    name, reasons = suggested(root)
    assert name == "raspberry-pi-5"
    assert reasons[1] == "but memory_mb: 2048, this machine has 976 MiB"


def test_a_32_bit_system(tmp_path: Path) -> None:
    cpuinfo = "processor\t: 0\nFeatures\t: half thumb fastmult vfp neon\nCPU part\t: 0xd08\n"
    root = machines.plant(tmp_path, {"proc/cpuinfo": cpuinfo})
    assert suggested(root) == (
        "",
        ("architecture armv7l: edgevoice runs on aarch64, x86_64; install the 64-bit system",),
    )


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    machine = detect(machines.plant(tmp_path, {}))
    assert machine.architecture == cores.this_architecture()
    assert (machine.processor, machine.groups, machine.memory_mb) == ("", (), 0)
    assert (machine.model, machine.compatible, machine.soc) == ("", (), "")


def test_a_containers_limit_is_the_memory(tmp_path: Path) -> None:
    root = machines.raspberry_pi_4(tmp_path)
    files = {
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/memory.max": f"{300 << 20}\n",
        "sys/fs/cgroup/memory.current": "0\n",
    }
    machines.plant(tmp_path, files)
    assert detect(root).memory_mb == 300


def test_a_users_profile_comes_first(tmp_path: Path) -> None:
    mine = replace(load_profile("rk3588"), name="mine", recognised_by=("radxa,rock-5b",))
    machine = detect(machines.rk3588(tmp_path))
    found = suggest(machine, (mine, *load_profiles()[0]))
    assert found.profile is not None and found.profile.name == "mine"


def test_without_a_general_profile(tmp_path: Path) -> None:
    found = suggest(detect(machines.x86(tmp_path)), ())
    assert found.profile is None
    assert found.reasons[-1] == "and there is no profile for that"


def test_throttling_and_temperature_by_sysfs(tmp_path: Path) -> None:
    cooling, zone = "sys/class/thermal/cooling_device", "sys/class/thermal/thermal_zone"
    files = {
        f"{cooling}0/type": "Fan\n",
        f"{cooling}0/cur_state": "3\n",
        f"{cooling}1/type": "thermal-cpufreq-0\n",
        f"{cooling}1/cur_state": "2\n",
        f"{cooling}2/type": "thermal-cpufreq-1\n",
        f"{cooling}2/cur_state": "0\n",
        f"{zone}0/type": "gpu\n",
        f"{zone}0/temp": "90000\n",
        f"{zone}1/type": "soc-thermal\n",
        f"{zone}1/temp": "51000\n",
        f"{zone}2/type": "cpu-1\n",
        f"{zone}2/temp": "-274000\n",
        "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count": "7\n",
    }
    root = machines.plant(tmp_path, files)
    assert condition.throttling(root) == Throttling(
        ("thermal-cpufreq-0 cools in step 2",), ("7 times",), "sysfs"
    )
    assert condition.temperature_c(root) == 51.0


def test_hybrid_x86_cores_by_their_clock(tmp_path: Path) -> None:
    root = machines.x86(tmp_path)
    for number, khz in enumerate((5_000_000, 3_800_000)):
        cpu = f"sys/devices/system/cpu/cpu{number}/cpufreq/cpuinfo_max_freq"
        machines.plant(tmp_path, {cpu: f"{khz}\n"})
    assert detect(root).fast_cores == (0,)


def test_features_are_those_that_every_core_has(tmp_path: Path) -> None:
    blocks = [f"processor : {n}\nFeatures : asimd {more}\n" for n, more in enumerate(("i8mm", ""))]
    root = machines.plant(tmp_path, {"proc/cpuinfo": "\n".join(blocks)})
    assert cores.cpu_features(root) == ("asimd",)


def test_cores_of_other_makers(tmp_path: Path) -> None:
    cpuinfo = "processor : 0\nFeatures : asimd\nCPU implementer : 0x51\nCPU part : 0x001\n"
    root = machines.plant(tmp_path, {"proc/cpuinfo": cpuinfo})
    assert [g.name for g in cores.core_groups(root)] == ["implementer 0x51 part 0x1"]


def test_a_profile_for_another_architecture() -> None:
    refuse_other_architecture(load_profile("x86-64"), "x86_64")
    with pytest.raises(
        ConfigError, match="'rk3588' is for aarch64, this machine is x86_64; `edgevoice devices"
    ):
        refuse_other_architecture(load_profile("rk3588"), "x86_64")


def test_commands_that_are_missing_fail_or_speak() -> None:
    assert run_command(["no-such-command-anywhere"]) == ""
    assert run_command([sys.executable, "-c", "print('x'); raise SystemExit(1)"]) == ""
    assert run_command([sys.executable, "-c", "print('fine')"]) == "fine"


def test_this_machine() -> None:
    machine = detect()
    assert machine.architecture == cores.this_architecture()
    assert machine.cores >= 1 and machine.fast_cores
    assert machine.memory_mb > 100
    found: DeviceProfile | None = suggest(machine, load_profiles()[0]).profile
    assert found is not None and found.architecture == machine.architecture
