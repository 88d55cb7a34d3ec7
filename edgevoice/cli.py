"""The `edgevoice` command: finds the sub-command, runs it, turns errors into one line.

What a sub-command does lives in :mod:`edgevoice.commands`.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from edgevoice import __version__
from edgevoice.errors import EXIT_INTERRUPTED, EXIT_OK, EdgevoiceError

COMMANDS: tuple[str, ...] = (
    "config",
    "daemon",
    "devices",
    "doctor",
    "export",
    "models",
    "profile",
    "replay",
    "say",
    "talk",
    "transcribe",
)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with every sub-command in it."""
    parser = argparse.ArgumentParser(
        prog="edgevoice",
        description="A real, interruptible voice assistant for small devices, offline.",
    )
    parser.add_argument("--version", action="version", version=f"edgevoice {__version__}")
    parser.add_argument("--debug", action="store_true", help="show tracebacks and library logs")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = importlib.import_module(f"edgevoice.commands.{name}")
        sub = commands.add_parser(name, help=module.HELP, description=module.__doc__)
        module.add_arguments(sub)
        sub.set_defaults(run=module.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one sub-command and return the process's exit code."""
    parsed = build_parser().parse_args(arguments)
    try:
        return int(parsed.run(parsed))
    except EdgevoiceError as error:
        if parsed.debug:
            raise
        print(f"edgevoice: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("edgevoice: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away (`edgevoice models list | head`).
        sys.stderr.close()
        return EXIT_OK
