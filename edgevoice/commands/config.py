"""Show the settings with their meanings and limits, check a file of them, say where it lies."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgevoice import config
from edgevoice.commands import settings_options
from edgevoice.errors import EXIT_OK
from edgevoice.settings import Settings

HELP = "show, check and locate the configuration"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    show = actions.add_parser("show", help="print the settings in force as TOML")
    show.add_argument("--defaults", action="store_true", help="print the defaults instead")
    settings_options.add_all(show, config="configuration to show")
    show.set_defaults(act=_show)
    check = actions.add_parser("check", help="say whether a file can be used")
    check.add_argument("file", type=Path, metavar="FILE")
    check.set_defaults(act=_check)
    path = actions.add_parser("path", help="print where the configuration is looked for")
    path.set_defaults(act=_path)


def run(options: argparse.Namespace) -> int:
    """Run one action."""
    return int(options.act(options))


def _show(options: argparse.Namespace) -> int:
    if options.defaults:
        settings = config.override(Settings(), options.set)
    else:
        settings = settings_options.read(options)
    print(config.to_toml(settings), end="")
    return EXIT_OK


def _check(options: argparse.Namespace) -> int:
    config.load(options.file)
    print(f"{options.file}: good")
    return EXIT_OK


def _path(options: argparse.Namespace) -> int:
    del options
    print(config.default_path())
    return EXIT_OK
