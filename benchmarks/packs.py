"""Exports recogniser packs and small listening models in every scheme; size, quality and speed.

    python benchmarks/packs.py FAMILY SOURCE [--material FOLDER] [--schemes int8 fp16] [--threads 1]

Each candidate is measured against the float artifact in the engine that will run it, in turn. A
pack's words are held against what float writes (`word differences`), so that no transcripts are
needed; the other stages' figures are those of their gates.
"""

import argparse
import importlib
import tempfile
from collections.abc import Callable
from pathlib import Path

from edgevoice import manifest
from edgevoice.engines.recogniser import load_recogniser
from edgevoice.errors import EdgevoiceError
from edgevoice.export import family as families
from edgevoice.export import gates
from edgevoice.export.calibration import Calibration
from edgevoice.export.candidates import artifact
from edgevoice.export.checks import costs, recordings
from edgevoice.export.families import pack_search
from edgevoice.export.family import Family, Job
from edgevoice.export.words import word_errors
from edgevoice.quant.recipe import by_type
from edgevoice.quant.scheme import find
from edgevoice.settings import RecogniserSettings
from edgevoice.stages import RecogniserModel


def words(
    reference: Path, candidate: Path, material: Path | None, threads: int
) -> dict[str, float]:
    """Words that differ from float's, and the time to write the longest recording's."""
    clips = recordings.speech(material)
    first, second = (pack_search.transcribe(f, clips, threads) for f in (reference, candidate))
    longest = max(clips, key=lambda clip: len(clip.samples))
    settings = RecogniserSettings(threads=threads)
    models = [load_recogniser(folder, settings) for folder in (reference, candidate)]

    def decode(model: RecogniserModel) -> None:
        recogniser = model.open()
        recogniser.accept(longest.samples)
        recogniser.conclude()

    return {
        "words": float(sum(map(len, first))),
        "word_differences": float(sum(map(word_errors, first, second))),
        "size_ratio": costs.size_ratio(reference, candidate),
        **costs.speed(lambda: decode(models[0]), lambda: decode(models[1])),
    }


def measure(
    family: Family, reference: Path, candidate: Path, material: Path | None, threads: int
) -> gates.Figures:
    if family.stage == "recogniser":
        return words(reference, candidate, material, threads)
    module, _, function = family.checker.partition(":")
    measurement: Callable[..., gates.Figures] = getattr(importlib.import_module(module), function)
    return measurement(reference, candidate, material, threads)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("family", choices=sorted(families.MODULES))
    parser.add_argument("source", type=Path)
    parser.add_argument("--material", type=Path)
    parser.add_argument("--schemes", nargs="+")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    family = families.load(options.family)
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        (root / "work").mkdir()
        job = Job(root / "work", Calibration(options.material), options.threads)
        reference = root / "reference"
        reference.mkdir()
        written = family.convert(options.source, reference, job)
        manifest.write(artifact(family, "fp32", "fp32", reference, written), reference)
        for name in options.schemes or family.schemes[1:]:
            folder = root / name
            folder.mkdir()
            try:
                written = family.quantise(reference, find(name), family.recipe(name), folder, job)
                manifest.write(artifact(family, name, name, folder, written), folder)
                figures = measure(family, reference, folder, options.material, options.threads)
            except EdgevoiceError as error:
                print(f"{name}: {error}")
                continue
            print(f"{name}: {', '.join(f'{k} {v:.4g}' for k, v in figures.items())}")
            print(f"  {dict(by_type(written.tensors))}")
            for note in written.notes:
                print(f"  {note}")
            if family.stage != "recogniser":
                for verdict in gates.judge(figures, gates.bounds_for(family.stage, {})):
                    print(f"  {verdict}")


if __name__ == "__main__":
    main()
