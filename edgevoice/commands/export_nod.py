"""Fit a judge of nods to a recogniser and speech: `edgevoice export nod`."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgevoice.commands.export_ending import add_fitting, fitting_asked, show
from edgevoice.errors import EXIT_OK
from edgevoice.progress import meter_for_stderr, say

HELP = "fit what judges from a recogniser's own hearing whether speech over the agent is a nod"
_DESCRIPTION = (
    'Hear the first 0.35 to 0.74 s of nods ("mm-hm", "yeah, right") and of other speech with a '
    "recogniser, and fit what tells the one from the other by its encoder's outputs. Words are "
    "not needed. It takes about 0.15 s of a core for each recording."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = _DESCRIPTION
    for name, what in (("nods", "nods, one each"), ("others", "anything else that people say")):
        parser.add_argument(
            f"--{name}",
            type=Path,
            action="append",
            required=True,
            metavar="DIR",
            help=f"recordings (wav, flac, ogg, mp3) of {what}, or the generator's shards; several "
            "are all used",
        )
    add_fitting(parser, "1")


def run(parsed: argparse.Namespace) -> int:
    """Fit it and print how well it judges recordings that it was not fitted to.

    Raises:
        ConfigError: An option's value cannot be used.
    """
    from edgevoice.export.nod import making
    from edgevoice.export.nod.network import DECAY

    asked = fitting_asked(parsed, DECAY)
    show(making.make(asked, parsed.nods, parsed.others, meter_for_stderr(), say), parsed)
    return EXIT_OK
