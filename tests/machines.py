"""Machines to detect: their /proc and /sys, planted in a folder.

Features, parts, models and compatibles are those of dumps that the profiles name as their sources;
clocks and capacities are the chips'.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgevoice.devices.root import Root
from edgevoice.spare_core import SpareCore

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")

A53 = "fp asimd evtstrm crc32 cpuid"
A76 = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop "
    "asimddp"
)
SNAPDRAGON = f"{A76} sha512 asimdfhm dit uscat ilrcpc flagm flagm2 frint i8mm bf16 bti"
X86 = "fpu lm sse4_2 fma avx f16c avx2 avx512f avx512bw avx512_vnni"
OLD_X86 = "fpu lm sse4_2 fma avx f16c avx2"

Core = tuple[int, int | None, int | None]
"""CPU part, capacity, highest clock in kHz."""


def plant(
    folder: Path, files: Mapping[str, str], commands: Mapping[Sequence[str], str] | None = None
) -> Root:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    answers = commands or {}
    return Root(folder, lambda words: answers.get(tuple(words), ""))


def arm(features: str, cores: Sequence[Core], memory_kb: int, more: str = "") -> dict[str, str]:
    blocks = [
        f"processor\t: {number}\nBogoMIPS\t: 108.00\nFeatures\t: {features}\n"
        f"CPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: {part:#x}\n"
        for number, (part, _, _) in enumerate(cores)
    ]
    files = {"proc/cpuinfo": "\n".join([*blocks, more]), **memory(memory_kb)}
    for number, (_, capacity, khz) in enumerate(cores):
        cpu = f"sys/devices/system/cpu/cpu{number}"
        files[f"{cpu}/topology/core_id"] = f"{number}\n"
        if capacity is not None:
            files[f"{cpu}/cpu_capacity"] = f"{capacity}\n"
        if khz is not None:
            files[f"{cpu}/cpufreq/cpuinfo_max_freq"] = f"{khz}\n"
    return files


def memory(total_kb: int) -> dict[str, str]:
    return {"proc/meminfo": f"MemTotal:  {total_kb} kB\nMemAvailable:  {total_kb // 2} kB\n"}


def board(model: str, *compatible: str) -> dict[str, str]:
    return {
        "proc/device-tree/model": f"{model}\0",
        "proc/device-tree/compatible": "".join(f"{name}\0" for name in compatible),
    }


def raspberry_pi_5(folder: Path, throttled: str = "throttled=0x0") -> Root:
    cores = [(0xD0B, 1024, 2_400_000)] * 4
    files = arm(A76, cores, 8_256_000, "Model\t\t: Raspberry Pi 5 Model B Rev 1.0\n")
    files |= board("Raspberry Pi 5 Model B Rev 1.0", "raspberrypi,5-model-b", "brcm,bcm2712")
    files |= {
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
        "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
        "sys/class/thermal/thermal_zone0/temp": "61350\n",
        "proc/asound/cards": " 0 [vc4hdmi0       ]: vc4-hdmi - vc4-hdmi-0\n"
        "                      vc4-hdmi-0\n"
        " 2 [Device         ]: USB-Audio - USB Audio Device\n"
        "                      C-Media Electronics Inc. USB Audio Device at usb-xhci\n",
        "proc/asound/pcm": "00-00: MAI PCM i2s-hifi-0 :  : playback 1\n"
        "02-00: USB Audio : USB Audio : playback 1 : capture 1\n",
    }
    return plant(folder, files, {("vcgencmd", "get_throttled"): throttled})


def raspberry_pi_4(folder: Path) -> Root:
    files = arm(A53, [(0xD08, None, 1_500_000)] * 4, 948_000)
    files |= board("Raspberry Pi 4 Model B Rev 1.2", "raspberrypi,4-model-b", "brcm,bcm2711")
    return plant(folder, files)


def raspberry_pi_zero_2w(folder: Path) -> Root:
    files = arm(A53, [(0xD03, None, 1_000_000)] * 4, 427_000)
    files |= board("Raspberry Pi Zero 2 W Rev 1.0", "raspberrypi,model-zero-2-w", "brcm,bcm2837")
    return plant(folder, files)


def rk3588(folder: Path) -> Root:
    little, big = (0xD05, 397, 1_800_000), (0xD0B, 1024, 2_400_000)
    files = arm(A76, [little] * 4 + [big] * 4, 16_000_000)
    files |= board("Radxa ROCK 5B", "radxa,rock-5b", "rockchip,rk3588")
    return plant(folder, files)


def jetson(folder: Path) -> Root:
    files = arm(A76, [(0xD42, 1024, 1_510_400)] * 6, 7_800_000)
    name = "NVIDIA Jetson Orin Nano Developer Kit"
    return plant(folder, files | board(name, "nvidia,p3768-0000+p3767-0005", "nvidia,tegra234"))


def snapdragon_8_gen_3(folder: Path, termux: bool = True) -> Root:
    """Plant a phone as an app sees it: no device tree, and no capacity of its cores."""
    cores = [(0xD80, None, 2_265_600)] * 2 + [(0xD81, None, 3_148_800)] * 3
    cores += [(0xD81, None, 2_956_800)] * 2 + [(0xD82, None, 3_302_400)]
    files = arm(SNAPDRAGON, cores, 11_500_000)
    files |= {
        "system/build.prop": "",
        "sys/class/power_supply/battery/type": "Battery\n",
        "sys/class/power_supply/battery/capacity": "81\n",
        "sys/class/power_supply/battery/status": "Discharging\n",
        "sys/class/power_supply/usb/type": "USB\n",
    }
    if termux:
        files["data/data/com.termux/files/usr/bin/sh"] = ""
    return plant(folder, files, {("getprop", "ro.soc.model"): "SM8650"})


def x86(folder: Path, flags: str = X86) -> Root:
    blocks = "\n".join(
        f"processor\t: {n}\nmodel name\t: Some Processor\nflags\t\t: {flags}\n" for n in range(2)
    )
    files = {"proc/cpuinfo": blocks, **memory(16_000_000)}
    for number in range(2):
        files[f"sys/devices/system/cpu/cpu{number}/topology/core_id"] = f"{number}\n"
    return plant(folder, files)


class TwoCores:
    """A machine of two cores, whose time and counters the test moves."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.own_s = 0.0
        self.busy_s = [0.0, 0.0]
        self.field = 0
        self.tells = True

    def stat(self) -> str:
        if not self.tells:
            return ""
        lines = ["cpu  1 2 3 4 5 6 7 8 9 9"]
        for core, busy_s in enumerate(self.busy_s):
            # user nice system idle iowait irq softirq steal guest guest_nice
            fields = [7, 7, 7, round(self.now_s * TICKS_A_SECOND), 1000, 7, 7, 7, 999, 999]
            fields[self.field] += round(busy_s * TICKS_A_SECOND)
            lines.append(f"cpu{core} {' '.join(map(str, fields))}")
        lines += ["cpu10 " + " ".join("9" * 10), "intr 1 2 3", "ctxt 5", ""]
        return "\n".join(lines)

    def spare(self, *cores: int) -> SpareCore:
        return SpareCore(
            frozenset(cores or (0, 1)), self.stat, lambda: self.own_s, lambda: self.now_s
        )

    def pass_time(self, seconds: float, *, own: float = 0.0, others: float = 0.0) -> None:
        """Let time pass; ``own`` and ``others`` are shares of one core."""
        self.now_s += seconds
        self.own_s += own * seconds
        self.busy_s[0] += own * seconds
        self.busy_s[1] += others * seconds
