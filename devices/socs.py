"""Snapdragon chips that a context binary can be made for, as data.

Numbers are Qualcomm's: ``soc_model`` is ``Qnn_SocModel_t`` of the QNN SDK's ``QnnTypes.h``, and the
Hexagon architecture that of its table of supported devices. A binary is made for one of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgevoice.errors import ConfigError, unknown

# What Qualcomm's kernels say of the chip they run on, on Android and on Linux.
_MACHINE = Path("/sys/devices/soc0/machine")


@dataclass(frozen=True, slots=True)
class Soc:
    """One chip.

    Attributes:
        name: As the command line and manifests say it.
        title: As people say it.
        soc_model: QNN's number.
        htp_arch: The tensor processor's architecture, 73 for v73.
        floats: Whether the processor computes in float16; without it every value is an integer.
        machines: What the kernel calls it, besides its name.
        source: Where the numbers come from.
    """

    name: str
    title: str
    soc_model: int
    htp_arch: int
    floats: bool
    machines: tuple[str, ...]
    source: str


_TYPES = "QNN SDK, QnnTypes.h"
_ALL = (
    Soc(
        *("sm8550", "Snapdragon 8 Gen 2", 43, 73, True, ("QCS8550", "QCM8550")),
        f"{_TYPES}: QNN_SOC_MODEL_SM8550; ExecuTorch qc_schema.py: v73",
    ),
    Soc(
        *("sm8650", "Snapdragon 8 Gen 3", 57, 75, True, ()),
        f"{_TYPES}: QNN_SOC_MODEL_SM8650; ExecuTorch qc_schema.py: v75",
    ),
    Soc(
        *("sm8750", "Snapdragon 8 Elite", 69, 79, True, ()),
        f"{_TYPES}: QNN_SOC_MODEL_SM8750; ExecuTorch qc_schema.py: v79",
    ),
    Soc(
        *("qcs6490", "Dragonwing QCS6490", 35, 68, False, ("QCM6490", "SM7325")),
        f"{_TYPES}: QNN_SOC_MODEL_SM7325, of which it is a variant; Qualcomm Linux guide: v68",
    ),
)

SOCS: Mapping[str, Soc] = {soc.name: soc for soc in _ALL}


def find(name: str) -> Soc:
    """Return the chip ``name``.

    >>> find("sm8650").htp_arch
    75

    Raises:
        ConfigError: There is no such chip in the table.
    """
    if name not in SOCS:
        raise ConfigError(unknown("SoC", name, SOCS))
    return SOCS[name]


def this_machine(machine: Path = _MACHINE) -> str:
    """Return the name of the chip that this runs on; what the kernel says where it is another.

    "" where the kernel says nothing, as on every machine without a Snapdragon.
    """
    try:
        said = machine.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
    for soc in _ALL:
        if said.lower() == soc.name or said.upper() in soc.machines:
            return soc.name
    return said.lower()
