"""Measure every stage and the whole conversation on this device, with this bundle.

Needs no microphone: the bundle's own voice asks the questions. `profile compare A.json B.json` says
what became slower. Exit code 1 when a budget of the device profile is missed, or when something is
slower beyond the noise.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edgevoice.commands import settings_options
from edgevoice.errors import EXIT_FAILURE, EXIT_OK, ConfigError
from edgevoice.settings import Settings

if TYPE_CHECKING:
    from edgevoice.devices.profile import DeviceProfile

HELP = "measure speed, memory and latency of every stage on this device"

_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options, and `compare`."""
    parser.set_defaults(act=_measure)
    settings_options.add_config(parser)
    parser.add_argument("--bundle", metavar="NAME", help="measure this bundle's models")
    settings_options.add_set(parser)
    settings_options.add_device(
        parser,
        "device profile whose threads are used where you set none, and whose budgets must be kept",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything, for `compare`")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with plots")
    parser.add_argument(
        "--stage",
        action="append",
        default=[],
        metavar="STAGE",
        help="measure this alone (vad, recogniser, conversation...); may be repeated",
    )
    parser.add_argument("--quick", action="store_true", help="few samples; wide intervals")
    parser.add_argument(
        "--soak",
        type=_duration_s,
        metavar="TIME",
        help="then work so long (10m) and watch heat, clock and memory",
    )
    parser.add_argument(
        "--load",
        type=_whole,
        default=0,
        metavar="N",
        help="keep N processes busy beside it",
    )
    parser.add_argument(
        "--tune",
        action="store_true",
        help="instead, search threads, schemes, providers, cores and chunk sizes of the stages by "
        "measuring, and write a device profile of your own",
    )
    parser.add_argument(
        "--limit", type=_duration_s, default=600.0, metavar="TIME", help="of --tune (default: 10m)"
    )
    parser.add_argument(
        "--out", metavar="NAME", default="tuned", help="of --tune's profile (default: tuned)"
    )
    actions = parser.add_subparsers(dest="action", metavar="[compare]", required=False)
    against = actions.add_parser("compare", help="say what became of every figure")
    against.add_argument("first", type=Path, metavar="A.json")
    against.add_argument("second", type=Path, metavar="B.json")
    against.add_argument("--json", dest="as_json", action="store_true", help="print JSON")
    against.set_defaults(act=_compare)


def run(options: argparse.Namespace) -> int:
    """Measure or compare; 1 for a missed budget or a regression."""
    code: int = options.act(options)
    return code


def _measure(options: argparse.Namespace) -> int:
    from edgevoice.profiler import profiling
    from edgevoice.profiler.profile_file import dump, write
    from edgevoice.profiler.table import profile_lines

    device, settings = profiling.choose(options.config, options.bundle, options.device, options.set)
    if options.tune:
        return _tune(options, device, settings)
    for path in (options.json, options.html):
        if path is not None and not path.absolute().parent.is_dir():
            raise ConfigError(f"cannot write {path}: no folder {path.parent}")
    profile = profiling.run(
        settings,
        device,
        stages=options.stage,
        quick=options.quick,
        soak_s=options.soak,
        busy_processes=options.load,
    )
    for line in profile_lines(profile):
        print(line)
    if options.json is not None:
        write(options.json, dump(profile))
        print(f"wrote {options.json}")
    if options.html is not None:
        from edgevoice.profiler.page import render

        write(options.html, render(profile))
        print(f"wrote {options.html}")
    for budget in profile.budgets:
        print(f"budget {budget}")
    return EXIT_FAILURE if any(budget.missed for budget in profile.budgets) else EXIT_OK


def _tune(options: argparse.Namespace, device: DeviceProfile | None, settings: Settings) -> int:
    from datetime import date

    from edgevoice.devices import defaults
    from edgevoice.profiler import profiling, tuned_profile
    from edgevoice.profiler.second_load import busy
    from edgevoice.profiler.tuning import tune

    path = tuned_profile.check_name(options.out, device)
    profiling.check_models(settings)
    with busy(options.load), profiling.spoken(settings) as speech:
        tuned = tune(settings, speech, options.limit, print)
    if tuned.unfinished:
        print("time ran out before everything was tried; a longer --limit tries the rest")
    print(tuned.verdict)
    if not tuned.gains:
        print("nothing was written")
        return EXIT_OK
    content = tuned_profile.text(tuned, tuned_profile.parent(device), date.today().isoformat())
    tuned_profile.save(path, content)
    print(f"wrote {path}; `edgevoice profile --device {options.out}` measures with it")
    for line in tuned_profile.ineffective(tuned, defaults.load(options.config, (), options.out)):
        print(line)
    return EXIT_OK


def _compare(options: argparse.Namespace) -> int:
    from edgevoice.profiler.compare import compare
    from edgevoice.profiler.profile_file import load
    from edgevoice.profiler.table import comparison_lines

    found = compare(load(options.first), load(options.second))
    if options.as_json:
        print(json.dumps(found.as_json(), indent=1))
    else:
        for line in comparison_lines(found):
            print(line)
    if found.worse_stages:
        print(f"slower beyond the noise: {', '.join(found.worse_stages)}", file=sys.stderr)
        return EXIT_FAILURE
    return EXIT_OK


def _duration_s(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if found is None or not float(found[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write 90s, 10m or 1h")
    return float(found[1]) * _UNITS_S[found[2] or "s"]


def _whole(text: str) -> int:
    if not text.isdigit() or int(text) > 256:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number from 0 to 256")
    return int(text)
