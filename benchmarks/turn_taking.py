"""Turn-taking in figures: answers at once, stops at once, is not fooled. Beside a serial cascade.

    python benchmarks/turn_taking.py [--part latency pauses interruptions disturbances speculation
                                      echo] [--limit N] [--minutes 10] [--json FILE]
                                     [--passes second both]

Everything but `echo` runs in real time through the daemon's WebSocket, with the default bundle;
`echo` runs whole sessions in lock step (see `echo.py`). Needs voicebench, flite and the bundle.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import conversation
from disturbances import disturbances
from overlaps import disturb, interrupt, interruptions, ordinary_talk
from pauses import paused
from recordings import librivox, questions
from spoken_turns import Turn, ask, figures

UNSPECULATIVE = ["--set", "turns.speculation_budget=0"]
TALKATIVE = ["--set", "language_model.max_answer_tokens=400"]
"""So that one answer is long enough for several disturbances."""

Part = Callable[["Bench"], dict[str, Any]]


class Bench:
    """Servers that are started when they are first wanted, and what the command line says."""

    def __init__(self, folder: Path, arguments: argparse.Namespace) -> None:
        self.folder = folder
        self.limit: int = arguments.limit
        self.minutes: float = arguments.minutes
        self.sets = [part for each in arguments.set for part in ("--set", each)]
        self.passes: list[str] = arguments.passes
        self._servers = contextlib.ExitStack()
        self._urls: dict[tuple[str, ...], str] = {}

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *raised: object) -> None:
        self._servers.close()

    def subjects(self) -> list[tuple[str, str, tuple[str, ...]]]:
        """Name, subject and options of what `latency` compares: edgevoice as often as wanted."""
        own = [
            (f"{each} listening", ("--set", f"recogniser.passes={each}")) for each in self.passes
        ]
        ours = [(name, "edgevoice", options) for name, options in own or [("edgevoice", ())]]
        return [*ours, ("cascade", "cascade", ())]

    def url(self, subject: str, *options: str) -> str:
        key = (subject, *options)
        if key not in self._urls:
            sets = self.sets if subject == "edgevoice" else []
            command = [*conversation.SUBJECTS[subject], *sets, *options]
            log = self.folder / f"{len(self._urls)}.log"
            self._urls[key] = self._servers.enter_context(conversation.running(command, log))
        return self._urls[key]


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def latency(bench: Bench) -> dict[str, Any]:
    recordings = (questions(bench.folder) + librivox())[: bench.limit]
    urls = {name: bench.url(subject, *options) for name, subject, options in bench.subjects()}
    tallies = asyncio.run(conversation.converse(urls, recordings, [], 1))
    human = {r.name for r in recordings if r.human}
    found = {name: conversation.summary(tally, human) for name, tally in tallies.items()}
    kept = ("asked", "missed", "talked_over_the_user", "latency_p50_ms", "latency_p90_ms")
    kept += ("latency_max_ms", "wer_all")
    result: dict[str, Any] = {name: {k: row[k] for k in kept} for name, row in found.items()}
    *own, cascade = (row["latency_p50_ms"] for row in found.values())
    result["ratio of p50"] = ", ".join(f"{each / cascade:.3f}" for each in own)
    return result


def pauses(bench: Bench) -> dict[str, Any]:
    turns: dict[str, list[Turn]] = {name: [] for name in conversation.SUBJECTS}
    for case in paused(bench.folder)[: bench.limit]:
        for name, heard in turns.items():
            heard.append(ask(bench.url(name), case.name, case.samples))
            tell(f"{case.pause_ms:.0f} ms {name}: {heard[-1]}")
    return {
        name: {
            "turns with a pause": len(heard),
            "answered early": sum(t.answered_early for t in heard),
            "ended early, unheard": sum(t.ended_early and not t.answered_early for t in heard),
            "early": [t.name for t in heard if t.answered_early],
            **figures(heard),
        }
        for name, heard in turns.items()
    }


def speculation(bench: Bench) -> dict[str, Any]:
    subjects = {"on": bench.url("edgevoice"), "off": bench.url("edgevoice", *UNSPECULATIVE)}
    cases = [(r.name, conversation.read_wav(r.path, 16_000)) for r in questions(bench.folder)[:15]]
    cases = cases[::2] + [(p.name, p.samples) for p in paused(bench.folder)[::3]]
    turns: dict[str, list[Turn]] = {name: [] for name in subjects}
    for name, samples in cases[: bench.limit]:
        for subject, url in subjects.items():
            turns[subject].append(ask(url, name, samples, listen_s=5.0))
            tell(f"speculation {subject}: {turns[subject][-1]}")
    result: dict[str, Any] = {name: figures(heard) for name, heard in turns.items()}
    for name, heard in turns.items():
        work = sum(t.tokens for t in heard)
        result[name]["tokens read or written"] = work
        result[name]["share of them wasted"] = round(
            sum(t.wasted_tokens for t in heard) / max(1, work), 3
        )
        result[name]["answers begun"] = sum(t.begun for t in heard)
        result[name]["answers dropped"] = sum(t.dropped for t in heard)
    return result


def interrupted(bench: Bench) -> dict[str, Any]:
    return {
        name: interrupt(bench.url(name), name, interruptions(bench.folder)[: bench.limit], tell)
        for name in conversation.SUBJECTS
    }


def disturbed(bench: Bench) -> dict[str, Any]:
    chosen = disturbances()[:: max(1, 64 // bench.limit)] if bench.limit < 60 else disturbances()
    url = bench.url("edgevoice", *TALKATIVE)
    return {"edgevoice": disturb(url, chosen, ordinary_talk(bench.folder), tell)}


def echo(bench: Bench) -> dict[str, Any]:
    out = bench.folder / "echo.json"
    command = [sys.executable, str(Path(__file__).with_name("echo.py")), "--json", str(out)]
    sets = [part for part in bench.sets if part != "--set"]
    command += ["--minutes", str(bench.minutes), "--interruptions", str(min(30, bench.limit))]
    subprocess.run([*command, *(p for s in sets for p in ("--set", s))], check=True)
    rows = json.loads(out.read_text(encoding="utf-8"))
    return {f"{row.pop('return loss, dB'):g} dB": row for row in rows}


PARTS: dict[str, Part] = {
    "latency": latency,
    "pauses": pauses,
    "interruptions": interrupted,
    "disturbances": disturbed,
    "speculation": speculation,
    "echo": echo,
}


def table(rows: dict[str, Any]) -> str:
    """Return one part's figures as Markdown: a column for each subject."""
    columns = {name: row for name, row in rows.items() if isinstance(row, dict)}
    keys = dict.fromkeys(
        k for row in columns.values() for k, v in row.items() if not isinstance(v, list)
    )
    lines = ["| | " + " | ".join(columns) + " |", "| --- |" + " ---: |" * len(columns)]
    for key in keys:
        cells = (str(row.get(key, "")) for row in columns.values())
        lines.append(f"| {key.replace('_', ' ')} | " + " | ".join(cells) + " |")
    for name, row in columns.items():
        lines += [f"\n{name}, {k}: {'; '.join(map(str, v))}" for k, v in row.items() if _named(v)]
    lines += [f"\n{key}: {value}" for key, value in rows.items() if key not in columns]
    return "\n".join(lines)


def _named(value: Any) -> bool:
    return isinstance(value, list) and bool(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--limit", type=int, default=1000, help="of cases in each part")
    parser.add_argument("--minutes", type=float, default=10.0, help="of the agent's speech (echo)")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument(
        "--passes",
        nargs="+",
        default=[],
        choices=("first", "second", "both"),
        help="latency: compare edgevoice with these passes listening, all in the same run",
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch, Bench(Path(scratch), arguments) as bench:
        for part in arguments.part:
            load = os.getloadavg()[0]
            tell(f"== {part} (load {load:.1f})")
            results[part] = PARTS[part](bench)
            results[part]["load before"] = round(load, 1)
            print(f"\n## {part}\n\n{table(results[part])}", flush=True)
            if arguments.json is not None:
                arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
