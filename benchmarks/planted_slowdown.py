"""Does `edgevoice profile compare` name a stage that was made slower, and only that?

    python benchmarks/planted_slowdown.py [--stage end-of-turn] [--ms 30] [--times 3] [--load 1]
        [--alone]

Profiles in turn, plain and with a sleep in one stage's engine (put there from outside, by a
sitecustomize on PYTHONPATH), `--times` pairs and one plain one more. Every two plain profiles must
agree; every slow one must be told from every plain one. `--load` keeps processes busy beside all
of it, on and off by the half minute, so that runs differ in what else the machine does.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgevoice.profiler.compare import compare
from edgevoice.profiler.figures import FIGURES
from edgevoice.profiler.profile_file import load
from edgevoice.profiler.second_load import busy

ENGINES = {
    "vad": ("edgevoice.engines.silero_vad", "SileroVad", "accept"),
    "recogniser": ("edgevoice.engines.segmented_recogniser", "OfflineRecogniser", "conclude"),
    "end-of-turn": ("edgevoice.engines.smart_turn", "SmartTurn", "probability"),
    "language-model": ("edgevoice.engines.gguf", "GgufConversation", "prefill"),
    "speech": ("edgevoice.engines.piper", "PiperSpeech", "run"),
}
"""What a call of each stage goes through in the default bundle."""

PLANTED = """
import importlib.abc, importlib.util, sys, time

class Planter(importlib.abc.MetaPathFinder):
    # Loads nothing that would not be loaded: other stages' start and memory stay as they are.
    def find_spec(self, name, path, target=None):
        if name != {module!r}:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module
        def planted(module):
            execute(module)
            kind = getattr(module, {kind!r})
            plain = getattr(kind, {method!r})
            def slow(*given, **named):
                time.sleep({seconds!r})
                return plain(*given, **named)
            setattr(kind, {method!r}, slow)
        spec.loader.exec_module = planted
        return spec

if any(part.startswith("edgevoice.profiler.") for part in sys.orig_argv):
    sys.meta_path.insert(0, Planter())
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stage", choices=ENGINES, default="end-of-turn")
    parser.add_argument("--ms", type=float, default=30.0)
    parser.add_argument("--times", type=int, default=1, help="pairs of profiles")
    parser.add_argument("--load", type=int, default=0, help="busy processes, on and off")
    parser.add_argument("--alone", action="store_true", help="profile this stage and the VAD alone")
    arguments = parser.parse_args()
    alone = ["--stage", arguments.stage, "--stage", "vad"] if arguments.alone else []
    with tempfile.TemporaryDirectory() as scratch, now_and_then(arguments.load):
        folder = Path(scratch)
        module, kind, method = ENGINES[arguments.stage]
        planted = PLANTED.format(
            module=module, kind=kind, method=method, seconds=arguments.ms / 1000.0
        )
        (folder / "sitecustomize.py").write_text(planted, encoding="utf-8")
        slow = os.pathsep.join(filter(None, (scratch, os.environ.get("PYTHONPATH", ""))))
        files: dict[str, list[Path]] = {"plain": [], "slow": []}
        for number in range(2 * arguments.times + 1):
            name = "slow" if number % 2 else "plain"
            path = folder / f"{number}.json"
            began = time.monotonic()
            edgevoice(["profile", "--json", str(path), *alone], slow if name == "slow" else "")
            files[name].append(path)
            rounds = json.loads(path.read_text())["conditions"]["rounds"]
            took_s = time.monotonic() - began
            print(f"# {number}: {name}: {rounds} rounds, {took_s:.0f} s", flush=True)
        agreed = [not worse(a, b) for a, b in itertools.permutations(files["plain"], 2)]
        print(f"two plain profiles: {sum(agreed)} of {len(agreed)} comparisons tell no regression")
        named = [arguments.stage in worse(a, b) for a in files["plain"] for b in files["slow"]]
        print(f"a plain and a slow one: {sum(named)} of {len(named)} name {arguments.stage}")
    if not all((*agreed, *named)):
        sys.exit(1)


def worse(first: Path, second: Path) -> tuple[str, ...]:
    """Compare two profiles, say what is worse, and return its stages."""
    found = compare(load(first), load(second))
    told = [
        f"{FIGURES[c.key].key} {c.before:.4g} -> {c.after:.4g} ({c.low:.2f} to {c.high:.2f} times)"
        for c in found.regressions
    ]
    print(f"  {first.stem} -> {second.stem}: {'; '.join(told) or 'nothing is worse'}", flush=True)
    return found.worse_stages


@contextmanager
def now_and_then(processes: int) -> Iterator[None]:
    """Keep up to so many processes busy, for half a minute each time at most."""
    done = threading.Event()
    chance = random.Random(0)

    def disturb() -> None:
        while not done.is_set():
            with busy(chance.randint(1, processes)):
                done.wait(chance.uniform(3.0, 30.0))
            done.wait(chance.uniform(0.0, 30.0))

    if processes:
        threading.Thread(target=disturb, daemon=True).start()
    try:
        yield
    finally:
        done.set()


def edgevoice(arguments: list[str], path: str) -> None:
    """Run a command, with another PYTHONPATH where one is given."""
    command = [sys.executable, "-P", "-m", "edgevoice", *arguments]
    changed = {"PYTHONPATH": path} if path else {}
    # A missed budget is no matter here.
    subprocess.run(command, env={**os.environ, **changed}, check=False, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
