"""Settings: a strict TOML file in, typed and frozen values out.

The sections, keys and defaults are in :mod:`edgevoice.settings`. An unknown key or a value of the
wrong type or range is a :class:`~edgevoice.errors.ConfigError` that names the key, the value and
what was allowed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tomllib
import types
import typing
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import platformdirs

from edgevoice import strict_table
from edgevoice.errors import ConfigError, unknown
from edgevoice.settings import Settings

T = TypeVar("T")


def default_path() -> Path:
    """Return where the user's configuration is looked for."""
    if named := os.environ.get("EDGEVOICE_CONFIG"):
        return Path(named)
    return Path(platformdirs.user_config_dir("edgevoice")) / "edgevoice.toml"


def load(path: Path | None = None) -> Settings:
    """Read settings from ``path``, or from :func:`default_path` where that file exists.

    What a device profile sets is not among them: that is
    :func:`edgevoice.devices.defaults.load`'s business.

    Raises:
        ConfigError: The file is missing (when named), not TOML, or holds what is not allowed.
    """
    return parse(read(path), str(path or default_path()))


def read(path: Path | None = None) -> dict[str, Any]:
    """Return what the file of :func:`load` says, not checked yet; empty where there is none.

    Raises:
        ConfigError: The file is missing (when named), or not TOML.
    """
    chosen = path or default_path()
    if not chosen.exists():
        if path is None and "EDGEVOICE_CONFIG" not in os.environ:
            return {}
        raise ConfigError(
            f"no configuration at {chosen}; `edgevoice config show` prints one to start from"
        )
    return strict_table.read(chosen)


def parse(data: dict[str, Any], origin: str = "configuration") -> Settings:
    """Turn parsed TOML into :class:`Settings`; ``origin`` names it in messages."""
    sections: dict[str, Any] = {}
    known = {f.name: f for f in fields(Settings)}
    hints = typing.get_type_hints(Settings)
    for name, value in data.items():
        if name not in known:
            raise ConfigError(f"{origin}: {unknown('section', name, known)}")
        if not isinstance(value, dict):
            raise ConfigError(f"{origin}: [{name}] must be a section, not {value!r}")
        sections[name] = _section(hints[name], value, f"{origin}: {name}")
    return Settings(**sections)


def override(settings: Settings, assignments: typing.Sequence[str]) -> Settings:
    """Apply ``section.key=value`` strings (values in TOML syntax, bare text also taken)."""
    for assignment in assignments:
        section, key, raw = split(assignment)
        try:
            value = tomllib.loads(f"v = {raw}")["v"]
        except tomllib.TOMLDecodeError:
            value = raw.strip()
        checked = parse({section: {key: value}}, "--set")
        part = getattr(settings, section)
        changed = dataclasses.replace(part, **{key: getattr(getattr(checked, section), key)})
        settings = dataclasses.replace(settings, **{section: changed})
    return settings


def split(assignment: str) -> tuple[str, str, str]:
    """Return section, key and value of a ``section.key=value`` string.

    Raises:
        ConfigError: It is not of that form.
    """
    path, separator, raw = assignment.partition("=")
    section, dot, key = path.strip().partition(".")
    if not separator or not dot:
        raise ConfigError(
            f"cannot read {assignment!r}; write section.key=value, "
            "for example turns.barge_in_ms=200"
        )
    return section, key, raw


def _section(kind: type[T], values: dict[str, Any], where: str) -> T:
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(kind)
    checked: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise ConfigError(f"{where}: {unknown('key', key, known)}")
        checked[key] = _value(hints[key], value, known[key].metadata, f"{where}.{key}")
    return kind(**checked)


def _value(kind: Any, value: Any, limits: types.MappingProxyType[Any, Any], where: str) -> Any:
    if kind == tuple[str, ...]:
        return _texts(value, limits["choices"], where)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"{where} = {value!r}: must be {_KIND_NAMES[kind]}")
    low, high, choices = limits["low"], limits["high"], limits["choices"]
    if choices and value not in choices:
        raise ConfigError(f"{where}: {unknown('value', value, choices)}")
    if low is not None and not low <= value <= high:  # nan is in no range
        raise ConfigError(f"{where} = {value!r}: must be from {low:g} to {high:g}")
    return value


def _texts(value: Any, choices: tuple[str, ...], where: str) -> tuple[str, ...]:
    # Settings that were read before have tuples.
    if not isinstance(value, list | tuple) or not all(isinstance(t, str) for t in value):
        raise ConfigError(f"{where} = {value!r}: must be a list of texts in quotes")
    for text in value:
        if choices and text not in choices:
            raise ConfigError(f"{where}: {unknown('value', text, choices)}")
    return tuple(value)


_KIND_NAMES = {
    float: "a number",
    int: "a whole number",
    str: "text in quotes",
    bool: "true or false",
}


def to_toml(settings: Settings) -> str:
    """Write every setting with its meaning as TOML that :func:`load` reads back the same."""
    lines: list[str] = []
    for part in fields(settings):
        section = getattr(settings, part.name)
        lines += [f"# {(type(section).__doc__ or '').strip()}", f"[{part.name}]"]
        for key in fields(section):
            value = getattr(section, key.name)
            lines.append(
                f"{key.name} = {literal(value)}  # {key.metadata['doc']}{_allowed(key.metadata)}"
            )
        lines.append("")
    return "\n".join(lines)


def literal(value: Any) -> str:
    """Return ``value`` (of TOML's types, no table) as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(literal, value))}]"
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for DEL, which TOML wants escaped as well.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)


def _allowed(limits: types.MappingProxyType[Any, Any]) -> str:
    if limits["choices"]:
        return f" ({', '.join(limits['choices'])})"
    if limits["low"] is not None:
        return f" ({limits['low']:g} to {limits['high']:g})"
    return ""
