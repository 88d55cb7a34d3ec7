"""Response latency, recognition and interruptions, through voicebench: edgevoice and a cascade.

Both are started as processes and asked in turn, round by round, so that whatever else the machine
does falls on both alike. One question is one session. Prints a Markdown table.

    python benchmarks/conversation.py [--rounds 2] [--speech DIR] [--json FILE]

Needs `pip install voicebench==0.2.0`, flite (sox for --speech), and the default bundle.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recordings import Recording, from_folder, interruptions, librivox, questions
from voicebench.adapters import create_adapter
from voicebench.audio import read_wav
from voicebench.metrics import TurnResult, analyze, percentile
from voicebench.runner import run
from voicebench.scenario import AudioSpec, Scenario, StartRule, Turn
from voicebench.wer import wer

from edgevoice.engines.recogniser import load_recogniser
from edgevoice.settings import Settings
from edgevoice.store import Store

SUBJECTS = {
    "edgevoice": [sys.executable, "-m", "edgevoice", "daemon", "run", "--port", "0"],
    "cascade": [sys.executable, str(Path(__file__).with_name("cascade.py")), "--port", "0"],
}
RATE_HZ = 16_000
ANSWER_TIMEOUT_MS = 4500.0
INTERRUPT_AFTER_MS = 1500.0
MAX_STOP_MS = 300.0


@dataclass
class Tally:
    """What one subject did."""

    answers: list[TurnResult] = field(default_factory=list)
    stops: list[TurnResult] = field(default_factory=list)
    human: list[float] = field(default_factory=list)


@contextlib.contextmanager
def running(command: list[str], log: Path) -> Iterator[str]:
    """Start a server, wait until it listens, and yield its URL."""
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"ws://\S+:\d+", line)
            if found is None:
                raise SystemExit(f"{command} did not start: {log.read_text()[-2000:]}")
            print(line.strip(), file=sys.stderr)
            yield found[0]
        finally:
            process.terminate()
            process.wait(20)


async def hold(url: str, name: str, turns: tuple[Turn, ...], max_ms: float) -> list[TurnResult]:
    scenario = Scenario(name=name, turns=turns, tail_ms=ANSWER_TIMEOUT_MS, max_duration_ms=max_ms)
    adapter = create_adapter("websocket", {"url": url})
    return analyze(await run(scenario, adapter)).turns


def length_ms(recording: Recording) -> float:
    return len(read_wav(recording.path, RATE_HZ)) * 1000.0 / RATE_HZ


def question(recording: Recording) -> Turn:
    return Turn(
        id=recording.name,
        audio=AudioSpec(file=recording.path),
        start=StartRule("session_start", 500.0),
        text=recording.text,
        response_timeout_ms=ANSWER_TIMEOUT_MS,
    )


async def ask(url: str, recording: Recording) -> TurnResult:
    max_ms = 500.0 + length_ms(recording) + ANSWER_TIMEOUT_MS + 500.0
    return (await hold(url, recording.name, (question(recording),), max_ms))[0]


async def interrupt(url: str, asked: Recording, over: Recording) -> TurnResult:
    stop = Turn(
        id=over.name,
        audio=AudioSpec(file=over.path),
        start=StartRule("agent_speech_start", INTERRUPT_AFTER_MS, ANSWER_TIMEOUT_MS),
        expect="stop",
        max_stop_ms=MAX_STOP_MS,
    )
    max_ms = length_ms(asked) + ANSWER_TIMEOUT_MS + length_ms(over) + 2000.0
    return (await hold(url, over.name, (question(asked), stop), max_ms))[1]


def reference_wer(model: str, recordings: list[Recording]) -> dict[str, float]:
    """Word error rate of a recogniser that is given each whole recording, by recording."""
    settings = Settings().recogniser
    recogniser = load_recogniser(Store.default().path(model), settings).open()
    rates = {}
    for recording in recordings:
        recogniser.reset()
        recogniser.accept(read_wav(recording.path, RATE_HZ))
        rates[recording.name] = wer(recording.text, recogniser.conclude().text)
    return rates


def mean(values: list[float]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None


def summary(tally: Tally, human: set[str]) -> dict[str, Any]:
    latencies = [t.response_latency_ms for t in tally.answers if t.response_latency_ms is not None]
    stops = [t.stop_latency_ms for t in tally.stops if t.stop_latency_ms is not None]
    rates = {True: [], False: []}  # type: dict[bool, list[float]]
    for turn in tally.answers:
        rates[turn.id in human].append(1.0 if turn.wer is None else turn.wer)
    return {
        "asked": len(tally.answers),
        "missed": sum(not t.responded for t in tally.answers),
        "talked_over_the_user": sum(t.talk_over for t in tally.answers),
        "latency_p50_ms": percentile(latencies, 50),
        "latency_p90_ms": percentile(latencies, 90),
        "latency_max_ms": max(latencies, default=None),
        "wer_all": mean(rates[True] + rates[False]),
        "wer_questions": mean(rates[False]),
        "wer_human": mean(rates[True]),
        "interruptions": len(tally.stops),
        "stopped_in_time": sum(bool(t.stopped) for t in tally.stops),
        "stop_p50_ms": percentile(stops, 50),
        "stop_max_ms": max(stops, default=None),
    }


def table(results: dict[str, dict[str, Any]]) -> str:
    names = list(results)
    lines = ["| | " + " | ".join(names) + " |", "| --- |" + " ---: |" * len(names)]
    for key in next(iter(results.values())):
        cells = ("-" if results[n].get(key) is None else str(results[n][key]) for n in names)
        lines.append(f"| {key.replace('_', ' ')} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


async def converse(
    urls: dict[str, str],
    recordings: list[Recording],
    pairs: list[tuple[Recording, Recording]],
    rounds: int,
) -> dict[str, Tally]:
    tallies = {name: Tally() for name in urls}
    for number in range(rounds):
        for place, recording in enumerate(recordings):
            # Another first each time: what a loaded machine does follows the order.
            begin = place % len(urls)
            for name in [*urls][begin:] + [*urls][:begin]:
                turn = await ask(urls[name], recording)
                tallies[name].answers.append(turn)
                told = f"{turn.response_latency_ms} ms, WER {turn.wer}, {turn.transcript!r}"
                print(f"{number} {recording.name} {name}: {told}", file=sys.stderr)
        for asked, over in pairs if number == 0 else []:
            for name, url in urls.items():
                turn = await interrupt(url, asked, over)
                tallies[name].stops.append(turn)
                print(
                    f"{over.name} {name}: {turn.stop_latency_ms} ms {turn.notes}", file=sys.stderr
                )
    return tallies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--speech", type=Path, help="folder of recordings with transcripts.tsv")
    parser.add_argument("--limit", type=int, default=1000, help="of recordings")
    parser.add_argument("--interruptions", type=int, default=10, help="how many, 10 at most")
    parser.add_argument("--reference-model", default="whisper-tiny.en-fp32")
    parser.add_argument("--subjects", nargs="+", default=list(SUBJECTS), choices=SUBJECTS)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        recordings = (questions(folder) + librivox())[: arguments.limit]
        if arguments.speech is not None:
            recordings += from_folder(arguments.speech, folder)[: arguments.limit]
        pairs = interruptions(folder)[: arguments.interruptions]
        with contextlib.ExitStack() as stack:
            urls = {
                name: stack.enter_context(running(SUBJECTS[name], folder / f"{name}.log"))
                for name in arguments.subjects
            }
            tallies = asyncio.run(converse(urls, recordings, pairs, arguments.rounds))
        human = {r.name for r in recordings if r.human}
        results = {name: summary(tally, human) for name, tally in tallies.items()}
        if (Store.default().root / arguments.reference_model).is_dir():
            rates = reference_wer(arguments.reference_model, recordings)
            results[arguments.reference_model] = {
                "wer_all": mean(list(rates.values())),
                "wer_questions": mean([r for n, r in rates.items() if n not in human]),
                "wer_human": mean([r for n, r in rates.items() if n in human]),
            }
    print(table(results))
    ratio = None
    if {"edgevoice", "cascade"} <= set(results) and results["cascade"]["latency_p50_ms"]:
        ratio = results["edgevoice"]["latency_p50_ms"] / results["cascade"]["latency_p50_ms"]
        print(f"\nresponse latency p50, edgevoice / cascade: {ratio:.2f}")
    if arguments.json is not None:
        turns = {
            name: [vars(t) for t in (*tally.answers, *tally.stops)]
            for name, tally in tallies.items()
        }
        report = {"results": results, "latency_p50_ratio": ratio, "turns": turns}
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
