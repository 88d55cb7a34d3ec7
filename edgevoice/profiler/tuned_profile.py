"""The device profile that a search leaves behind: a small TOML file that inherits the device's."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Iterator
from pathlib import Path

from edgevoice.devices import profile as devices
from edgevoice.devices.detect import detect, suggest
from edgevoice.devices.profile import DeviceProfile
from edgevoice.errors import ConfigError
from edgevoice.profiler.profile_file import write
from edgevoice.profiler.tuning import CONFIDENCE, Tuned, ratio_text

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_MARK = "# Written by `edgevoice profile --tune`"
_STAGES = {
    "recogniser": "asr",
    "end-of-turn": "end_of_turn",
    "language-model": "llm",
    "speech": "tts",
}
"""A device profile's names of the stages."""


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


def _lines(tuned: Tuned, inherited: str, measured_on: str) -> Iterator[str]:
    assert tuned.voice_to_voice is not None
    yield f"{_MARK}, {measured_on}."
    yield (
        f"# Voice-to-voice took {ratio_text(tuned.voice_to_voice, CONFIDENCE)} of the time before, "
        f"{tuned.pairs} pairs."
    )
    if inherited:
        yield f"inherits = {json.dumps(inherited)}"
    else:
        yield f"title = {json.dumps('tuned on ' + platform.node())}"
        yield f"architecture = {json.dumps(platform.machine())}"
    yield "\n[threads]"
    yield from (f"{_STAGES[candidate.stage]} = {candidate.value}" for candidate in tuned.chosen)
