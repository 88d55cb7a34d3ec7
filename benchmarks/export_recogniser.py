"""Whisper in every scheme: size, errors on real speech, disagreement with float, run time.

    python benchmarks/export_recogniser.py --source FOLDER --clips /a/folder/of/recordings

The source is a CTranslate2 folder or a checkpoint. Every artifact is made here, loaded by the
runtime's own engine, and hears the LibriVox clips and those of `--clips` (`transcripts.tsv` and
sound files that sox reads). Run times are paired ratios to float's in the same process.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import recordings

from edgevoice import manifest
from edgevoice.audio.wav import read_wav
from edgevoice.engines.recogniser import load_recogniser
from edgevoice.export import candidates, family, paired
from edgevoice.export.calibration import Calibration, Clip
from edgevoice.export.checks import recogniser, weights
from edgevoice.export.checks.recogniser import Comparison, Words
from edgevoice.export.checks.recordings import librivox
from edgevoice.export.family import Job
from edgevoice.export.words import normalise
from edgevoice.quant.recipe import Recipe
from edgevoice.quant.scheme import find
from edgevoice.settings import RecogniserSettings

# Without its recipe: what the mixture of 4 and 8 bits is worth.
PLAIN = ("int4", "int4-asymmetric")
TIMED_S = 8.0
"""Speech that is decoded once a pair."""


def make(source: Path, home: Path) -> dict[str, Path]:
    """Write the artifact of every scheme below ``home``."""
    whisper = family.load("whisper")
    job = Job(home / "work", Calibration())
    plans = [(name, name, whisper.recipe(name)) for name in whisper.schemes]
    plans += [(f"{name}, plain", name, Recipe()) for name in PLAIN]
    made: dict[str, Path] = {}
    for label, name, recipe in plans:
        folder = home / label.replace(", ", "-")
        folder.mkdir()
        scheme = find(name)
        if scheme.is_float:
            written = whisper.convert(source, folder, job)
            engine = written.engine
        else:
            written = whisper.quantise(made["fp32"], scheme, recipe, folder, job)
        described = candidates.artifact(whisper, folder.name, name, folder, written)
        manifest.write(dataclasses.replace(described, engine=engine), folder)
        made[label] = folder
        print(f"made {label}", file=sys.stderr)
    return made


def from_folder(folder: Path, wavs: Path) -> list[Clip]:
    return [Clip(r.name, read_wav(r.path)[0], r.text) for r in recordings.from_folder(folder, wavs)]


def measure(
    folder: Path,
    reference: Path,
    sets: dict[str, Sequence[Clip]],
    written: dict[str, tuple[Words, ...]],
    pairs: int,
) -> dict[str, float]:
    """Measure ``folder``; ``written`` is what the artifact ``reference`` writes of ``sets``."""
    row: dict[str, float] = {
        "bytes": sum(f.size for f in manifest.read(folder).files),
        "weight_excess": weights.compare(reference, folder)["weight_excess"],
    }
    for threads in (1, 2):
        settings = RecogniserSettings(threads=threads)
        first, second = (load_recogniser(f, settings) for f in (reference, folder))
        if threads == 1:
            for name, clips in sets.items():
                said = tuple(normalise(clip.text) for clip in clips)
                heard = recogniser.transcribe(second, clips)
                figures = Comparison(said, written[name], heard).figures()
                row |= {f"{name}_{key}": value for key, value in figures.items()}
        clips = recogniser.sample([c for s in sets.values() for c in s], TIMED_S)
        ratio = paired.compare(
            functools.partial(recogniser.transcribe, first, clips),
            functools.partial(recogniser.transcribe, second, clips),
            pairs,
        )
        row |= {
            f"ratio_{threads}": ratio.median,
            f"ratio_{threads}_low": ratio.low,
            f"ratio_{threads}_high": ratio.high,
        }
    return row


def table(rows: dict[str, dict[str, float]], sets: Sequence[str]) -> str:
    int8 = rows.get("int8", {}).get("bytes", float("nan"))
    heads = ["scheme", "MB", "to int8"]
    heads += [f"{s} {what}" for s in sets for what in ("WER %", "disagreement %")]
    heads += ["run time, 1 thread", "2 threads", "worst column, over rounding"]
    lines = ["| " + " | ".join(heads) + " |", "| --- " * len(heads) + "|"]
    for label, row in rows.items():
        cells = [label, f"{row['bytes'] / 1e6:.1f}", f"{row['bytes'] / int8:.3f}"]
        for name in sets:
            cells += [f"{100 * row[f'{name}_wer']:.2f}", f"{100 * row[f'{name}_disagreement']:.2f}"]
        for threads in (1, 2):
            low, high = (row[f"ratio_{threads}_{end}"] for end in ("low", "high"))
            cells.append(f"{row[f'ratio_{threads}']:.2f} ({low:.2f} to {high:.2f})")
        cells.append(f"{row['weight_excess']:.3f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, required=True, help="Whisper's weights")
    parser.add_argument("--clips", type=Path, help="folder with transcripts.tsv and recordings")
    parser.add_argument("--schemes", nargs="*", help="only these rows")
    parser.add_argument("--pairs", type=int, default=7, help="paired runs (7)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        (home / "wav").mkdir()
        sets: dict[str, Sequence[Clip]] = {"LibriVox": librivox()}
        if arguments.clips is not None:
            sets[arguments.clips.name] = from_folder(arguments.clips, home / "wav")
        sets = {name: clips for name, clips in sets.items() if clips}
        made = make(arguments.source, home)
        float_model = load_recogniser(made["fp32"], RecogniserSettings(threads=1))
        written = {n: recogniser.transcribe(float_model, clips) for n, clips in sets.items()}
        rows: dict[str, dict[str, float]] = {}
        for label, folder in made.items():
            if arguments.schemes and label not in arguments.schemes:
                continue
            rows[label] = measure(folder, made["fp32"], sets, written, arguments.pairs)
            print(table({label: rows[label]}, tuple(sets)).splitlines()[-1], file=sys.stderr)
    if arguments.json:
        print(json.dumps(rows, indent=1))
    else:
        print(table(rows, tuple(sets)))


if __name__ == "__main__":
    main()
