"""The options by which a command is told its settings: `--config`, `--set` and `--device`.

Owns their words. What wins over what is :mod:`edgevoice.devices.defaults`'s business.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from edgevoice.devices import defaults
from edgevoice.settings import Settings


def add_all(parser: argparse.ArgumentParser, *, config: str = "configuration to use") -> None:
    """Declare the three, with ``config`` as the help of `--config`."""
    add_device(parser)
    add_config(parser, config)
    add_set(parser)


def add_config(parser: argparse.ArgumentParser, text: str = "configuration to use") -> None:
    """Declare `--config` with the help ``text``; parsed, it is ``config``, a path or None."""
    parser.add_argument("--config", type=Path, metavar="FILE", help=text)


def add_set(
    parser: argparse.ArgumentParser, text: str = "change one setting; may be repeated"
) -> None:
    """Declare `--set` with the help ``text``; parsed, it is ``set``, a list of strings."""
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help=text
    )


def add_device(
    parser: argparse.ArgumentParser,
    text: str = "device profile whose threads and audio port are used where you set none",
) -> None:
    """Declare `--device` with the help ``text``; parsed, it is ``device``, "" for none."""
    parser.add_argument(
        "--device", default="", metavar="PROFILE", help=f"{text} (default: device.profile)"
    )


def read(parsed: argparse.Namespace) -> Settings:
    """Return the settings that the options ask for; those that were not declared ask for nothing.

    Raises:
        ConfigError: As :func:`edgevoice.devices.defaults.load`.
    """
    given = vars(parsed)
    return defaults.load(parsed.config, given.get("set", ()), given.get("device", ""))
