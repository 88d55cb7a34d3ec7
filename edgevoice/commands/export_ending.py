"""Fit a judge of endings to a recogniser and speech: `edgevoice export ending`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgevoice.commands.printing import print_json
from edgevoice.errors import EXIT_OK, ConfigError
from edgevoice.progress import meter_for_stderr, say

if TYPE_CHECKING:
    from edgevoice.export.ending.judge_fit import Fitting

HELP = "fit what judges from a recogniser's own hearing whether a turn is over"
_DESCRIPTION = (
    "Hear recordings of whole turns, and the beginnings of them, with a recogniser, and fit what "
    "tells the one from the other by its encoder's outputs. Words are not needed. It takes about "
    "0.1 s of a core for each turn and beginning."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = _DESCRIPTION
    parser.add_argument(
        "--speech",
        type=Path,
        action="append",
        required=True,
        metavar="DIR",
        help="recordings (wav, flac, ogg, mp3), each one whole turn of 1 to 12 s, or the "
        "generator's shards; several are all used",
    )
    add_fitting(parser, "0.03")


def add_fitting(parser: argparse.ArgumentParser, penalty: str) -> None:
    """Declare what every judge's fit takes; ``penalty`` is told as the default."""
    parser.add_argument("recogniser", help="installed Whisper, as whisper-tiny.en-int8")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE.npz",
        help="where to write it; a report lies beside it as FILE.json",
    )
    parser.add_argument(
        "--penalty",
        type=float,
        default=None,
        metavar="P",
        help=f"of large weights (default: {penalty})",
    )
    parser.add_argument("--threads", type=int, default=1, help="of the recogniser; default: 1")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn; default: 0")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(parsed: argparse.Namespace) -> int:
    """Fit it and print how well it judges recordings that it was not fitted to.

    Raises:
        ConfigError: An option's value cannot be used.
    """
    from edgevoice.export.ending import making
    from edgevoice.export.ending.fitting import PENALTY

    asked = fitting_asked(parsed, PENALTY)
    show(making.make(asked, parsed.speech, meter_for_stderr(), say), parsed)
    return EXIT_OK


def fitting_asked(parsed: argparse.Namespace, penalty_unasked: float) -> Fitting:
    """Return what the options that :func:`add_fitting` declares ask for.

    Raises:
        ConfigError: A value cannot be used.
    """
    from edgevoice.export.ending.judge_fit import Fitting
    from edgevoice.store import Store

    penalty: float = penalty_unasked if parsed.penalty is None else parsed.penalty
    if not 0.0 < penalty <= 100.0:
        raise ConfigError(
            f"--penalty {penalty:g}: above 0 and at most 100 is allowed; try {penalty_unasked:g}"
        )
    if parsed.out.suffix != ".npz":
        raise ConfigError(f"--out {parsed.out}: it is an npz file; name it FILE.npz")
    if parsed.threads < 1:
        raise ConfigError(f"--threads {parsed.threads}: 1 or more are needed")
    recogniser = Store.default().path(parsed.recogniser)
    return Fitting(recogniser, parsed.out, penalty, parsed.threads, parsed.seed)


def show(report: Mapping[str, Any], parsed: argparse.Namespace) -> None:
    """Print what a fit reports."""
    if parsed.json:
        print_json(report)
        return
    for name, value in report.items():
        print(f"{name.replace('_', ' ')}: {value}")
    print(f"wrote {parsed.out}")
