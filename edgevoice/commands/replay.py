"""Decide a recorded conversation again under other settings, and print what would have changed.

FOLDER is what `--record` of `talk` or `daemon run` made. With --set, the recording is decided
twice, by its own settings and by the changed ones, and the two are compared; without, what was
decided live is compared with a replay. Nothing is sent anywhere and no language model is needed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgevoice import config
from edgevoice.commands import settings_options
from edgevoice.errors import EXIT_OK
from edgevoice.settings import Settings

if TYPE_CHECKING:
    from edgevoice.replay import Decision, Recording

HELP = "decide a recorded conversation again under other settings"

_HEARING = ("vad", "recogniser", "end_of_turn")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="one recording of --record DIR")
    settings_options.add_set(
        parser, "change one setting of the recording, for example turns.barge_in_ms=200"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Replay and compare."""
    from edgevoice.replay import compare, read_tape

    recording = read_tape(options.folder)
    changed = config.override(recording.settings, options.set)
    before, after = _decide(recording, changed, bool(options.set))
    pairs = compare(before, after)
    if options.json:
        print(json.dumps(_as_json(options, pairs), ensure_ascii=False))
        return EXIT_OK
    names = ("recorded settings", "changed settings") if options.set else ("live", "replayed")
    print(_table(pairs, names))
    different = sum(a is None or b is None for a, b in pairs)
    print(f"\n{len(pairs)} decisions, {different} of them in one run alone")
    return EXIT_OK


def _decide(
    recording: Recording, changed: Settings, twice: bool
) -> tuple[list[Decision], list[Decision]]:
    from edgevoice.loading import load_hearing
    from edgevoice.replay import rerun

    hearing = load_hearing(changed)
    try:
        after = rerun(recording, changed, hearing)
        if not twice:
            return list(recording.decisions), after
        own = recording.settings
        if all(getattr(own, part) == getattr(changed, part) for part in _HEARING):
            return rerun(recording, own, hearing), after
    finally:
        hearing.recogniser.close()
    hearing = load_hearing(own)
    try:
        return rerun(recording, own, hearing), after
    finally:
        hearing.recogniser.close()


def _as_json(
    options: argparse.Namespace, pairs: list[tuple[Decision | None, Decision | None]]
) -> dict[str, Any]:
    def plain(decision: Decision | None) -> dict[str, Any] | None:
        return None if decision is None else dataclasses.asdict(decision)

    return {
        "folder": str(options.folder),
        "set": options.set,
        "decisions": [{"before": plain(a), "after": plain(b)} for a, b in pairs],
        "different": sum(a is None or b is None for a, b in pairs),
    }


def _table(pairs: list[tuple[Decision | None, Decision | None]], names: tuple[str, str]) -> str:
    rows = [(*names, "")]
    for before, after in pairs:
        mark = ""
        if before is None or after is None:
            mark = "<- only here" if after is None else "<- new"
        elif abs(before.at_ms - after.at_ms) >= 100.0:
            mark = f"{after.at_ms - before.at_ms:+.0f} ms"
        rows.append((_cell(before), _cell(after), mark))
    width = max(len(row[0]) for row in rows) + 2
    other = max(len(row[1]) for row in rows) + 2
    return "\n".join(f"{a:<{width}}{b:<{other}}{mark}".rstrip() for a, b, mark in rows)


def _cell(decision: Decision | None) -> str:
    return "-" if decision is None else f"{decision.at_ms / 1000:8.2f} s  {decision.decision}"
