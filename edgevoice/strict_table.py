"""A TOML table read strictly: unknown keys, missing keys and wrong types are one clear line.

Owns the checks that the catalogue and the device profiles share. What a key means is its reader's
business; the settings, whose keys are fields of dataclasses, have :mod:`edgevoice.config`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping, Sequence
from importlib.resources.abc import Traversable
from typing import Any

from edgevoice.errors import ConfigError, unknown


def read(file: Traversable) -> dict[str, Any]:
    """Return the TOML in ``file``.

    Raises:
        ConfigError: It cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{file}: not a TOML file: {error}") from error


class Table:
    """One table; ``where`` names it in messages.

    Raises:
        ConfigError: It is no table, or has a key too many or too few.
    """

    def __init__(
        self,
        data: Any,
        where: str,
        required: Sequence[str],
        optional: Sequence[str] = (),
    ) -> None:
        if not isinstance(data, Mapping):
            raise ConfigError(f"{where}: must be a table, not {data!r}")
        for key in data:
            if key not in (*required, *optional):
                raise ConfigError(f"{where}: {unknown('key', key, (*required, *optional))}")
        for key in required:
            if key not in data:
                raise ConfigError(f"{where}: {key!r} is missing")
        self.data = data
        self.where = where

    def get(self, key: str, kind: type, default: Any = None) -> Any:
        """Return the value of ``key``, ``default`` where there is none.

        Raises:
            ConfigError: It is not of type ``kind``.
        """
        if key not in self.data:
            return default
        value = self.data[key]
        # bool is an int to Python; a size of `true` is not a size to anybody.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ConfigError(f"{self._named(key)} = {value!r}: must be of type {kind.__name__}")
        return value

    def choice(self, key: str, allowed: Collection[str], default: str = "") -> str:
        """Return the text of ``key``.

        Raises:
            ConfigError: It is none of ``allowed``.
        """
        value = str(self.get(key, str, default))
        if value not in allowed:
            raise ConfigError(f"{self.where}: {unknown(key, value, allowed)}")
        return value

    def choices(
        self, key: str, allowed: Collection[str] = (), default: tuple[str, ...] = ()
    ) -> tuple[str, ...]:
        """Return the texts of the list ``key``; without ``allowed`` any will do.

        Raises:
            ConfigError: It is not a list of different texts, or one is none of ``allowed``.
        """
        if key not in self.data:
            return default
        listed = self.get(key, list)
        for value in listed:
            if not isinstance(value, str):
                raise ConfigError(f"{self._named(key)}: {value!r} must be text in quotes")
            if allowed and value not in allowed:
                raise ConfigError(f"{self._named(key)}: {unknown('value', value, allowed)}")
            if listed.count(value) > 1:
                raise ConfigError(f"{self._named(key)}: {value!r} stands in it twice")
        return tuple(listed)

    def number(self, key: str, low: float, high: float, default: float = 0.0) -> float:
        """Return the number of ``key``, ``default`` where there is none.

        Raises:
            ConfigError: It is not a number from ``low`` to ``high``.
        """
        if key not in self.data:
            return default
        value = self.data[key]
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"{self._named(key)} = {value!r}: must be a number")
        if not low <= value <= high:  # nan is in no range
            raise ConfigError(f"{self._named(key)} = {value!r}: must be from {low:g} to {high:g}")
        return float(value)

    def whole(self, key: str, low: int, high: int, default: int = 0) -> int:
        """Return the whole number of ``key``, ``default`` where there is none.

        Raises:
            ConfigError: It is not a whole number from ``low`` to ``high``.
        """
        if key not in self.data:
            return default
        value = self.data[key]
        if isinstance(value, bool) or not isinstance(value, int):
            raise ConfigError(f"{self._named(key)} = {value!r}: must be a whole number")
        if not low <= value <= high:
            raise ConfigError(f"{self._named(key)} = {value!r}: must be from {low} to {high}")
        return value

    def _named(self, key: str) -> str:
        """Return ``key`` for a message: "file: key", "file: table.key"."""
        return f"{self.where}{'.' if ': ' in self.where else ': '}{key}"
