"""Talk with the agent: by microphone, or with recorded questions and the answers in a WAV file.

Ends with a table of how long each turn took. Ctrl-C ends the conversation.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edgevoice import host
from edgevoice.commands import settings_options
from edgevoice.console import Console, spans_table
from edgevoice.errors import (
    EXIT_FAILURE,
    EXIT_OK,
    AudioError,
    ConfigError,
    MissingDependencyError,
)
from edgevoice.read_ahead import read_ahead
from edgevoice.settings import Settings

if TYPE_CHECKING:
    from edgevoice.questions import SpokenQuestion
    from edgevoice.talk import Conversation

HELP = "talk with the agent (microphone, or --wav question.wav --out answer.wav)"

_DEMO_FOLDER = Path("talk")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    asked = parser.add_mutually_exclusive_group()
    asked.add_argument(
        "--wav",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="ask these recordings, one after another, each when the last has been answered",
    )
    asked.add_argument(
        "--demo",
        type=Path,
        nargs="?",
        const=_DEMO_FOLDER,
        metavar="FOLDER",
        help="ask five questions spoken by flite (or espeak-ng); writes answers.wav and "
        "report.html into FOLDER (default: talk)",
    )
    asked.add_argument(
        "--auto", action="store_true", help="the microphone where there is one, else --demo"
    )
    parser.add_argument(
        "--fast", action="store_true", help="recordings only: as fast as the models go"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the agent's voice as WAV")
    parser.add_argument(
        "--out-both", type=Path, metavar="FILE", help="write both voices: user left, agent right"
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="write a page of HTML")
    parser.add_argument(
        "--record",
        type=Path,
        metavar="DIR",
        help="keep both voices, events and evidence in a folder of DIR, for `edgevoice replay`",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    settings_options.add_all(parser)


def run(options: argparse.Namespace) -> int:
    """Hold the conversation; 1 when a recorded question got no answer."""
    settings = settings_options.read(options)
    read_ahead(settings)  # before the imports that wait for the disk
    console = Console(sys.stderr if options.json else sys.stdout)
    # Everything that can be wrong with what was asked for is said before seconds of loading.
    folder = _demo_folder(options, settings, console)
    if options.fast and not (options.wav or folder):
        raise ConfigError("--fast goes with --wav or --demo; a microphone has one speed")
    questions = _questions(options, folder)
    agent_wav, report = options.out, options.report
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        agent_wav, report = agent_wav or folder / "answers.wav", report or folder / "report.html"
    for path in (agent_wav, options.out_both, report):
        _check_writable(path)

    conversation = _converse(settings, questions, console, options.fast, options.record)
    _write(conversation, settings, agent_wav, options.out_both, report)
    _conclude(conversation, questions, console, options.json)
    if not options.json:
        for path in (agent_wav, options.out_both, report):
            if path is not None:
                console.line(f"wrote {path}")
    if conversation.failure is not None:
        raise conversation.failure
    return EXIT_OK if all(conversation.answered) else EXIT_FAILURE


def _demo_folder(options: argparse.Namespace, settings: Settings, console: Console) -> Path | None:
    if not options.auto:
        folder: Path | None = options.demo
        return folder
    from edgevoice.audio.ports import open_ports

    try:
        open_ports(settings.audio)
    except (AudioError, MissingDependencyError) as error:
        console.line(f"no conversation by microphone: {error}")
        console.line("asking recorded questions instead")
        return _DEMO_FOLDER
    return None


def _questions(options: argparse.Namespace, folder: Path | None) -> list[SpokenQuestion]:
    from edgevoice.questions import from_file, speak_questions

    if folder is not None:
        return speak_questions()
    return [from_file(path) for path in options.wav or ()]


def _check_writable(path: Path | None) -> None:
    if path is not None and not path.absolute().parent.is_dir():
        raise AudioError(f"cannot write {path}: no folder {path.parent}")


def _converse(
    settings: Settings,
    questions: list[SpokenQuestion],
    console: Console,
    fast: bool,
    record: Path | None,
) -> Conversation:
    from edgevoice import talk
    from edgevoice.audio.cleaning import clean_caller, clean_microphone
    from edgevoice.load_governor import LoadGovernor
    from edgevoice.load_policy import rules
    from edgevoice.loading import cheaper, load_engines
    from edgevoice.session import Pace
    from edgevoice.tapes import Tapes

    tapes = Tapes(record, settings) if record is not None else None
    # What the settings ask for in vain is said before seconds of loading.
    canceller = (clean_caller if questions else clean_microphone)(settings.audio)
    spare = cheaper(settings)
    engines = load_engines(settings, patient=fast)
    governor = LoadGovernor(rules(settings), spare)
    try:
        if not questions:
            console.line("speak when you like; Ctrl-C ends the conversation")
            return talk.with_microphone(
                engines, settings, canceller, console.watch, tapes, governor=governor
            )
        return talk.with_questions(
            engines,
            settings,
            canceller,
            questions,
            console.watch,
            pace=Pace.LOCK_STEP if fast else Pace.REAL_TIME,
            tapes=tapes,
            # In lock step the models' own time is in no figure, and there is nothing to judge.
            governor=None if fast else governor,
        )
    finally:
        governor.close()
        engines.close()


def _write(
    conversation: Conversation,
    settings: Settings,
    agent_wav: Path | None,
    both_wav: Path | None,
    report: Path | None,
) -> None:
    import numpy as np

    from edgevoice.audio.wav import write_wav
    from edgevoice.frames import SAMPLE_RATE_HZ

    record = conversation.record
    length = max(record.user.size, record.agent.size)
    user, agent = (np.pad(t, (0, length - t.size)) for t in (record.user, record.agent))
    if agent_wav is not None:
        write_wav(agent_wav, agent, SAMPLE_RATE_HZ)
    if both_wav is not None:
        write_wav(both_wav, np.stack((user, agent), axis=1), SAMPLE_RATE_HZ)
    if report is not None:
        from edgevoice.report import write_report

        write_report(report, record, settings, conversation.cold_start_ms)


def _conclude(
    conversation: Conversation, questions: list[SpokenQuestion], console: Console, as_json: bool
) -> None:
    missed = [
        question.name
        for question, answered in zip(questions, conversation.answered, strict=True)
        if not answered
    ]
    if as_json:
        turns = [
            {
                "user": exchange.user,
                "agent": exchange.agent,
                "interrupted": exchange.interrupted,
                "spans_ms": exchange.spans_ms,
            }
            for exchange in conversation.exchanges
        ]
        result = {
            "turns": turns,
            "unanswered": missed,
            "cold_start_ms": round(conversation.cold_start_ms),
            "dropped_frames": conversation.dropped_frames,
            "peak_memory_mb": host.peak_memory_mb(),
        }
        print(json.dumps(result, ensure_ascii=False))
        return
    console.line("")
    if conversation.exchanges:
        console.line(spans_table(conversation.exchanges))
        if conversation.record.lock_step:
            console.line("(--fast: the time that the models took is not in these figures)")
    console.line(
        f"listening {conversation.cold_start_ms / 1000:.1f} s after the start; "
        f"{conversation.dropped_frames} frames dropped, {host.peak_memory_mb()} MiB at most"
    )
    for name in missed:
        console.line(f"no answer to {name}")
