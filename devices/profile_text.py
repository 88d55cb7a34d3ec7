"""Writes a profile as TOML that :func:`edgevoice.devices.profile.load_profile` reads the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgevoice.config import literal
from edgevoice.devices.profile import BUDGETS, DeviceProfile

_KEYS = ("title", "inherits", "architecture", "cpu_features", "memory_mb", "memory_budget_mb")
_MORE_KEYS = ("providers", "recognition", "passes", "recognised_by", "notes")
_TABLES = (
    "schemes",
    "threads",
    "cores",
    "chunks_ms",
    "models",
    "stage_providers",
    "budgets_ms",
    "load",
    "sources",
)
_FIELD_OF = {"cores": "stage_cores"}  # `cores` is how many there are


def to_toml(profile: DeviceProfile) -> str:
    """Return ``profile`` with all that it inherits, what is empty left out."""
    lines = [f"# Device profile {profile.name}."]
    for key in (*_KEYS, *_MORE_KEYS):
        if value := getattr(profile, key):
            lines.append(f"{key} = {literal(value)}")
    for cluster in profile.clusters:
        table = {"name": cluster.name, "cores": cluster.cores, "fast": cluster.fast}
        lines += ["", "[[clusters]]", *_pairs(table)]
    audio = {"port": profile.audio.port, "latency_ms": profile.audio.latency_ms}
    lines += ["", "[audio]", *_pairs(audio)]
    for name in _TABLES:
        if table := getattr(profile, _FIELD_OF.get(name, name)):
            lines += ["", f"[{name}]", *_pairs(table, BUDGETS if name == "budgets_ms" else {})]
    return "\n".join(lines) + "\n"


def _pairs(table: Mapping[str, Any], meanings: Mapping[str, str] | None = None) -> list[str]:
    return [
        f"{key if '.' not in key else literal(key)} = {literal(value)}"
        + (f"  # {meanings[key]}" if meanings and key in meanings else "")
        for key, value in table.items()
    ]
