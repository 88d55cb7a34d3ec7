"""Every scheme of a voice beside its float weights: size, speed in both engines, quality.

    python benchmarks/export_speech.py FAMILY=SOURCE... [--only SCHEME...] [--sentences N] [--json]

For example `piper=voices/joe kokoro=voices/kokoro`. Every candidate is made by the exporter's own
family, timed against float in turn in the same engine (the interval is the 95 % one of the median
ratio), and says the gate's sentences, which Whisper reads back. Kokoro's float weights come from
`benchmarks/float_again.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgevoice import host, manifest
from edgevoice.export import family as families
from edgevoice.export.calibration import Calibration, default_sentences
from edgevoice.export.candidates import artifact
from edgevoice.export.checks import speech
from edgevoice.export.family import Family, Job
from edgevoice.quant import scheme as schemes

CANDIDATES: dict[str, tuple[str, dict[str, str]]] = {
    "fp16": ("fp16", {}),
    "int8 (quantize_dynamic)": ("int8", {"products": "onnxruntime"}),
    "int8": ("int8", {}),
    "int8-mixed": ("int8-mixed", {}),
    "int8-static min-max": ("int8-static", {"calibration": "min-max"}),
    "int8-static entropy": ("int8-static", {"calibration": "entropy", "sentences": "4"}),
    "int8-static percentile": ("int8-static", {"calibration": "percentile", "sentences": "4"}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("voices", nargs="+", metavar="FAMILY=SOURCE")
    parser.add_argument("--only", nargs="+", choices=list(CANDIDATES), default=list(CANDIDATES))
    parser.add_argument("--sentences", type=int, default=30)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = []
    for given in arguments.voices:
        name, _, source = given.partition("=")
        for row in voice(families.load(name), Path(source), arguments):
            rows.append(row)
            if not arguments.json:
                print(line(row), flush=True)
    if arguments.json:
        print(
            json.dumps({"cores": os.cpu_count(), "load": os.getloadavg(), "rows": rows}, indent=2)
        )


def voice(family: Family, source: Path, arguments: Any) -> Iterator[dict[str, Any]]:
    sentences = default_sentences("speech")[: arguments.sentences]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job = Job(work=folder, calibration=Calibration())
        reference = folder / "fp32"
        reference.mkdir()
        written = family.convert(source, reference, job)
        manifest.write(artifact(family, "fp32", "fp32", reference, written), reference)
        runners = speech.contenders(reference, reference)
        listener = speech.listener()
        for label in arguments.only:
            scheme_name, options = CANDIDATES[label]
            candidate = folder / label.replace(" ", "-")
            candidate.mkdir()
            scheme = schemes.find(scheme_name)
            recipe = family.recipe(scheme_name)
            try:
                done = family.quantise(
                    reference, scheme, recipe, candidate, replace(job, options=options)
                )
            except Exception as error:  # a quantiser that cannot is a result
                yield {"voice": family.name, "scheme": label, "failed": str(error)[:120]}
                continue
            engine = {**written.engine, **done.engine}
            whole = replace(done, engine=engine)
            trial = artifact(family, candidate.name, scheme_name, candidate, whole)
            manifest.write(trial, candidate)
            yield row(family.name, label, (reference, candidate), (runners, sentences, listener))


def row(
    name: str, label: str, folders: tuple[Path, Path], how: tuple[Sequence[str], Sequence[str], Any]
) -> dict[str, Any]:
    reference, candidate = folders
    runners, sentences, listener = how
    speeds = {}
    for runner in runners:
        for threads in (1, 2) if host.cores() > 1 else (1,):
            pair = speech.Pair.load(reference, candidate, runner, threads)
            ratio = speech.timed(pair.reference, pair.candidate, sentences)
            speeds[f"{runner} {threads}"] = [ratio.median, ratio.low, ratio.high]
    said = speech.Pair.load(reference, candidate, runners[0], 2).said(sentences)
    sizes = [graph_bytes(folder) for folder in (candidate, reference)]
    return {
        "voice": name,
        "scheme": label,
        "bytes": sizes[0],
        "size_ratio": sizes[0] / sizes[1],
        "speed": speeds,
        **speech.quality(said, listener),
    }


def graph_bytes(folder: Path) -> int:
    """Return the size of the whole graph, without the parts that an engine cut it into."""
    return sum(path.stat().st_size for path in folder.glob("*.onnx"))


def line(row: dict[str, Any]) -> str:
    if "failed" in row:
        return f"| {row['voice']} | {row['scheme']} | {row['failed']} |"
    speeds = " | ".join(
        f"{key}: {mid:.2f} ({low:.2f} to {high:.2f})"
        for key, (mid, low, high) in row["speed"].items()
    )
    return (
        f"| {row['voice']} | {row['scheme']} | {row['size_ratio']:.3f} | {speeds} "
        f"| {row['wer_points']:+.2f} of {100 * row['wer_reference']:.1f} "
        f"| {row['log_mel_distance_db']:.2f} |"
    )


if __name__ == "__main__":
    main()
