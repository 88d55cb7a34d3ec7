"""Speak a text into a WAV file and say how long that took."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from edgevoice import config
from edgevoice.commands import settings_options
from edgevoice.commands.printing import warn_of_provider
from edgevoice.errors import EXIT_OK, AudioError, ConfigError
from edgevoice.settings import SpeechSettings

if TYPE_CHECKING:
    from edgevoice.frames import Float32

HELP = "speak a text into a WAV file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `edgevoice say`."""
    parser.add_argument("text", metavar="TEXT", help="what to say; - reads standard input")
    parser.add_argument("--out", metavar="FILE", required=True, type=Path, help="WAV to write")
    parser.add_argument("--voice", metavar="NAME", help="voice from the catalogue, or its folder")
    parser.add_argument("--speed", type=float, help="above 1 is faster (0.3 to 3)")
    parser.add_argument("--speaker", type=int, help="speaker number of a voice with several")
    parser.add_argument("--engine", help="auto, onnx or sherpa")
    parser.add_argument("--threads", type=int, help="threads of the synthesis")
    settings_options.add_config(parser, "settings to start from")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Speak, write the file, print one line."""
    import numpy as np

    from edgevoice.audio.wav import write_wav
    from edgevoice.engines.clauses import clauses
    from edgevoice.engines.speech import load_speech
    from edgevoice.store import Store

    settings = _settings(arguments)
    text = sys.stdin.read() if arguments.text == "-" else arguments.text
    out: Path = arguments.out
    if not out.parent.is_dir() or out.is_dir():
        raise AudioError(f"cannot write {out}; --out needs a file name in a folder that exists")
    started = time.perf_counter()
    speech = load_speech(Store.default().path(settings.model), settings)
    loaded = time.perf_counter()
    warn_of_provider("speech", speech)
    first_ms = 0.0
    parts: list[Float32] = []
    for piece in clauses([text]):
        for chunk in speech.synthesise(piece):
            first_ms = first_ms or (time.perf_counter() - loaded) * 1000
            parts.append(chunk)
    spent_ms = (time.perf_counter() - loaded) * 1000
    if not parts:
        raise ConfigError(
            f"nothing to say in {text.strip()[:40]!r}: no words are left without markdown and "
            "emoji; give a text with words"
        )
    samples = np.concatenate(parts)
    write_wav(out, samples, speech.sample_rate_hz)
    duration_ms = len(samples) * 1000 / speech.sample_rate_hz
    figures = {
        "file": str(out),
        "voice": settings.model,
        "engine": type(speech).__name__,
        "sample_rate_hz": speech.sample_rate_hz,
        "duration_ms": round(duration_ms, 1),
        "load_ms": round((loaded - started) * 1000, 1),
        "first_sound_ms": round(first_ms, 1),
        "real_time_factor": round(spent_ms / duration_ms, 4),
    }
    if arguments.json:
        print(json.dumps(figures))
    else:
        print(
            f"{out}: {duration_ms / 1000:.2f} s of speech, first sound after {first_ms:.0f} ms, "
            f"real-time factor {spent_ms / duration_ms:.3f}",
            file=sys.stderr,
        )
    return EXIT_OK


def _settings(arguments: argparse.Namespace) -> SpeechSettings:
    """Return [speech] with the options laid over it, checked as the file's keys are."""
    base = settings_options.read(arguments).speech
    given = {
        "model": arguments.voice,
        "speed": arguments.speed,
        "speaker": arguments.speaker,
        "engine": arguments.engine,
        "threads": arguments.threads,
    }
    chosen = {key: value for key, value in given.items() if value is not None}
    merged = dataclasses.asdict(base) | chosen
    return config.parse({"speech": merged}, "options").speech
