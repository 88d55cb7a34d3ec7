"""Settings in which a device profile fills what the user left open.

What wins, the first first: ``--set``, the configuration file, the device profile, the default.
The profile is the one of ``--device``, else of ``device.profile``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgevoice import config, host
from edgevoice.devices.cores import this_architecture
from edgevoice.devices.detect import refuse_other_architecture
from edgevoice.devices.profile import DeviceProfile, load_profile
from edgevoice.settings import Settings

_SECTIONS = {
    "asr": "recogniser",
    "end_of_turn": "end_of_turn",
    "llm": "language_model",
    "tts": "speech",
}
"""The section of the settings that each stage of a profile is."""

_CHUNKS = {"asr": ("recogniser", "chunk_ms"), "tts": ("speech", "first_chunk_ms")}

_PROVIDERS = {
    "CPUExecutionProvider": "cpu",
    "XnnpackExecutionProvider": "xnnpack",
    "QNNExecutionProvider": "qnn",
    "CUDAExecutionProvider": "cuda",
    "NnapiExecutionProvider": "nnapi",
}
"""The settings' names of those providers that an engine here can open."""


def load(path: Path | None = None, assignments: Sequence[str] = (), device: str = "") -> Settings:
    """Return the settings of :func:`edgevoice.config.load` with a profile's behind them.

    Args:
        path: Of the configuration; None: where it is looked for.
        assignments: ``section.key=value`` strings, over the file.
        device: A profile over ``device.profile``; "": that.

    Raises:
        ConfigError: The configuration or the profile cannot be used as written, there is no such
            profile, or it is for another architecture.
    """
    written = config.read(path)
    settings = config.override(
        config.parse(written, str(path or config.default_path())), assignments
    )
    name = device or settings.device.profile
    if not name:
        return settings
    profile = load_profile(name)
    refuse_other_architecture(profile, this_architecture())
    said = {(section, key) for section, keys in written.items() for key in keys}
    said |= {config.split(assignment)[:2] for assignment in assignments}
    settings = fill(settings, of_profile(profile), said)
    return dataclasses.replace(settings, device=dataclasses.replace(settings.device, profile=name))


def fill(
    settings: Settings, values: Mapping[tuple[str, str], Any], said: Collection[tuple[str, str]]
) -> Settings:
    """Return ``settings`` with those of ``values``, by section and key, that are not ``said``."""
    for (section, key), value in values.items():
        if (section, key) not in said:
            part = dataclasses.replace(getattr(settings, section), **{key: value})
            settings = dataclasses.replace(settings, **{section: part})
    return settings


def of_profile(profile: DeviceProfile) -> Mapping[tuple[str, str], Any]:
    """Return what ``profile`` sets, by section and key.

    Threads are no more than the cores that this process may use: those that wait for each other
    are slower than fewer.
    """
    return {
        **{
            (_SECTIONS[stage], "threads"): min(count, host.cores())
            for stage, count in profile.threads.items()
        },
        **{(_SECTIONS[stage], "cores"): cores for stage, cores in profile.stage_cores.items()},
        **{(_SECTIONS[stage], "model"): name for stage, name in profile.models.items()},
        **{_CHUNKS[stage]: length_ms for stage, length_ms in profile.chunks_ms.items()},
        **_providers(profile),
        **({("recogniser", "passes"): profile.passes} if profile.passes else {}),
        ("audio", "port"): profile.audio.port,
        **{("load", key): value for key, value in _load(profile).items()},
    }


def _load(profile: DeviceProfile) -> Mapping[str, Any]:
    """A profile's budget for the whole way is what the runtime steps down by, too."""
    if "voice_to_voice" not in profile.budgets_ms:
        return profile.load
    return {"response_budget_ms": profile.budgets_ms["voice_to_voice"], **profile.load}


def _providers(profile: DeviceProfile) -> Mapping[tuple[str, str], tuple[str, ...]]:
    found = {}
    for stage, section in _SECTIONS.items():
        if not hasattr(getattr(Settings(), section), "providers"):
            continue
        own = profile.stage_providers.get(stage)
        known = tuple(_PROVIDERS[name] for name in own or profile.providers if name in _PROVIDERS)
        if own is None and stage != "end_of_turn":
            # Of the bundled models the end-of-turn model alone is likely to have a context binary:
            # to try the NPU elsewhere would be a warning at each start.
            known = tuple(name for name in known if name != "qnn")
        found[section, "providers"] = known or ("cpu",)
    return found
