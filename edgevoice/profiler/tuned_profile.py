"""The device profile that a search leaves behind: a small TOML file that inherits the device's."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from edgevoice import config
from edgevoice.config import literal
from edgevoice.devices import profile as devices
from edgevoice.devices.detect import detect, suggest
from edgevoice.devices.profile import DeviceProfile
from edgevoice.engines.providers import NAMES
from edgevoice.errors import ConfigError
from edgevoice.profiler.candidates import Kind
from edgevoice.profiler.profile_file import write
from edgevoice.profiler.tuning import NOT_JUDGED, Tuned
from edgevoice.settings import Settings

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_MARK = "# Written by `edgevoice profile --tune`"
_STAGES = {
    "recogniser": "asr",
    "end-of-turn": "end_of_turn",
    "language-model": "llm",
    "speech": "tts",
}
"""A device profile's names of the stages."""

_TABLES: Mapping[Kind, str] = {
    "threads": "threads",
    "cores": "cores",
    "chunk": "chunks_ms",
    "scheme": "models",
    "provider": "stage_providers",
}
"""A device profile's table for each kind of change."""


def check_name(name: str, device: DeviceProfile | None) -> Path:
    """Return where the profile ``name`` will be; ``device`` is what it will build on, if given.

    Raises:
        ConfigError: The name is taken by a profile that must stay, or cannot be a profile's.
    """
    if devices.is_built_in(name):
        raise ConfigError(f"--out {name!r} is a profile that comes with edgevoice; choose another")
    if not _NAME.fullmatch(name):
        raise ConfigError(f"--out {name!r}: use lower-case letters, digits, '.', '_' and '-'")
    if device is not None and device.name == name:
        raise ConfigError(f"--out {name!r} is the profile that is measured with; choose another")
    path = devices.user_folder() / f"{name}.toml"
    if path.exists() and not path.read_text(encoding="utf-8", errors="replace").startswith(_MARK):
        raise ConfigError(f"{path} is there and was written by hand; choose another --out")
    return path


def parent(device: DeviceProfile | None) -> str:
    """Return the profile to inherit from: the one that was measured with, or what suits here.

    On a machine that no profile suits, the new one stands on its own ("").
    """
    if device is not None:
        return device.name
    built_in = [p for p in devices.load_profiles()[0] if devices.is_built_in(p.name)]
    suggested = suggest(detect(), built_in).profile
    return suggested.name if suggested is not None else ""


def text(tuned: Tuned, inherited: str, measured_on: str) -> str:
    """Return the TOML; ``inherited`` is the profile that it builds on, "" for none."""
    return "\n".join(_lines(tuned, inherited, measured_on)) + "\n"


def save(path: Path, content: str) -> None:
    """Write the profile and see that it can be read.

    Raises:
        ConfigError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make {path.parent}: {error.strerror}") from error
    write(path, content)
    devices.load_profile(str(path))


def ineffective(tuned: Tuned, settings: Settings) -> Iterator[str]:
    """Yield a line for each change that ``settings``, loaded with the profile, does not show."""
    for candidate in tuned.chosen:
        if config.override(settings, [candidate.assignment]) != settings:
            key = candidate.assignment.partition("=")[0]
            yield f"your configuration sets {key}, which wins over the profile: take it out there"


def _lines(tuned: Tuned, inherited: str, measured_on: str) -> Iterator[str]:
    yield f"{_MARK}, {measured_on}."
    yield f"# {tuned.verdict[0].upper()}{tuned.verdict[1:]}."
    if any(candidate.kind == "scheme" for candidate in tuned.chosen):
        yield f"# [models] were chosen by their speed; {NOT_JUDGED}."
    if inherited:
        yield f"inherits = {json.dumps(inherited)}"
    else:
        yield f"title = {json.dumps('tuned on ' + platform.node())}"
        yield f"architecture = {json.dumps(platform.machine())}"
    for kind, table in _TABLES.items():
        of_kind = [candidate for candidate in tuned.chosen if candidate.kind == kind]
        if of_kind:
            yield f"\n[{table}]"
        for candidate in of_kind:
            setting = candidate.setting
            if kind == "provider":
                setting = [NAMES[name] for name in setting]
            yield f"{_STAGES[candidate.stage]} = {literal(setting)}"
