"""Does `edgevoice profile compare` name a stage that was made slower, and only that?

    python benchmarks/planted_slowdown.py [--stage end-of-turn] [--ms 30] [--alone]

Profiles three times: plain, plain, and with a sleep in one stage's engine (put there from outside,
by a sitecustomize on PYTHONPATH). The first two must agree; the third must be told from the first.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ENGINES = {
    "vad": ("edgevoice.engines.silero_vad", "SileroVad", "accept"),
    "recogniser": ("edgevoice.engines.sherpa_offline", "OfflineRecogniser", "conclude"),
    "end-of-turn": ("edgevoice.engines.smart_turn", "SmartTurn", "probability"),
    "language-model": ("edgevoice.engines.gguf", "GgufConversation", "prefill"),
    "speech": ("edgevoice.engines.piper", "PiperSpeech", "run"),
}
"""What a call of each stage goes through in the default bundle."""

PLANTED = """
import importlib, sys, time
if any(part.startswith("edgevoice.profiler.") for part in sys.orig_argv):
    kind = getattr(importlib.import_module({module!r}), {kind!r})
    plain = getattr(kind, {method!r})
    def slow(*given, **named):
        time.sleep({seconds!r})
        return plain(*given, **named)
    setattr(kind, {method!r}, slow)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stage", choices=ENGINES, default="end-of-turn")
    parser.add_argument("--ms", type=float, default=30.0)
    parser.add_argument("--alone", action="store_true", help="profile this stage and the VAD alone")
    arguments = parser.parse_args()
    alone = ["--stage", arguments.stage, "--stage", "vad"] if arguments.alone else []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        module, kind, method = ENGINES[arguments.stage]
        planted = PLANTED.format(
            module=module, kind=kind, method=method, seconds=arguments.ms / 1000.0
        )
        (folder / "sitecustomize.py").write_text(planted, encoding="utf-8")
        slow = os.pathsep.join(filter(None, (scratch, os.environ.get("PYTHONPATH", ""))))
        runs = {"first": {}, "again": {}, "slow": {"PYTHONPATH": slow}}
        for name, environment in runs.items():
            began = time.monotonic()
            command = ["profile", "--json", str(folder / f"{name}.json")]
            edgevoice([*command, *alone], environment)
            print(f"# {name}: {time.monotonic() - began:.0f} s", flush=True)
        for name in ("again", "slow"):
            print(f"\n# first against {name}", flush=True)
            code = edgevoice(
                ["profile", "compare", str(folder / "first.json"), str(folder / f"{name}.json")], {}
            )
            print(f"# exit code {code}", flush=True)


def edgevoice(arguments: list[str], environment: dict[str, str]) -> int:
    """Run a command and return its exit code."""
    command = [sys.executable, "-P", "-m", "edgevoice", *arguments]
    return subprocess.run(command, env={**os.environ, **environment}, check=False).returncode


if __name__ == "__main__":
    main()
