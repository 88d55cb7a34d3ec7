"""Which layers of a recogniser pack int8 costs words in, found by leaving them out one by one.

Starts from the pack wholly in int8 and listens to what it writes of the calibration speech. Where
that is what float writes, nothing needs to stay. Else every group of layers is put back into
float16 alone; the groups that bring most words back go first, until the words are float's or
nothing helps. Owns the search; what a recipe writes is the family's, the engine is the runtime's.
"""

from __future__ import annotations

import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

import onnx

from edgevoice import manifest, store
from edgevoice.engines.recogniser import load_recogniser
from edgevoice.export.calibration import Clip
from edgevoice.export.checks import recogniser
from edgevoice.export.checks.recogniser import Words
from edgevoice.export.family import Job
from edgevoice.export.words import word_errors
from edgevoice.manifest import Manifest
from edgevoice.quant.recipe import KEEP, Override, Recipe
from edgevoice.settings import RecogniserSettings

MAX_GROUPS = 12
"""More groups than that are joined by neighbours: each costs a pass over the calibration speech."""

_LAYER = re.compile(r"^(.*?[._/]\d+)(?=[._/]|$)")


@dataclass(frozen=True, slots=True)
class Search:
    """The recipe that was found, and what was seen on the way."""

    recipe: Recipe
    notes: tuple[str, ...]


def search(
    models: Mapping[str, onnx.ModelProto],
    recipe: Recipe,
    job: Job,
    write: Callable[[Path, Recipe], object],
    describe: Callable[[Path], None],
) -> Search:
    """Return ``recipe`` with the groups of weights that are better left in float16 before it.

    Args:
        models: The float graphs by role.
        recipe: What is left in float whatever is measured.
        job: Its calibration speech and its folder for temporary files.
        write: Writes the graphs of a recipe into a folder.
        describe: Adds the other files and the manifest.
    """
    clips = job.calibration.clips()

    def heard(trial: Recipe) -> tuple[Words, ...]:
        with tempfile.TemporaryDirectory(dir=job.work) as made:
            folder = Path(made) / "trial"
            folder.mkdir()
            write(folder, trial)
            describe(folder)
            return transcribe(folder, clips, job.threads)

    everything = tuple(Override(f"{role}.onnx:*", KEEP) for role in models)
    said = heard(recipe.behind(everything))
    words = max(1, sum(map(len, said)))

    def lost(trial: Recipe) -> int:
        return sum(map(word_errors, said, heard(trial)))

    least = lost(recipe)
    notes = [f"all in int8: {least} of {words} words differ from float's"]
    if not least:
        return Search(recipe, tuple(notes))
    groups = grouped(models, recipe)
    alone = {name: lost(recipe.behind(chosen)) for name, chosen in groups.items()}
    for name in sorted(alone, key=lambda n: alone[n]):
        if not least or alone[name] > least:
            break
        trial = recipe.behind(groups[name])
        differing = lost(trial)
        if differing < least:
            recipe, least = trial, differing
            notes.append(f"{name} in float16: {least} of {words} words differ")
    return Search(recipe, tuple(notes))


def grouped(
    models: Mapping[str, onnx.ModelProto], recipe: Recipe
) -> dict[str, tuple[Override, ...]]:
    """Return the products' weights by layer, as overrides that store them in float16.

    A weight belongs to the layer that its user's name says (``/encoder/layers.3/...``): exporters
    seldom name the weights themselves.
    """
    by_layer: dict[str, list[str]] = defaultdict(list)
    for role, model in models.items():
        weights = {t.name for t in model.graph.initializer if len(t.dims) == 2}
        for node in model.graph.node:
            for name in node.input:
                tensor = f"{role}.onnx:{name}"
                if name in weights and recipe.treatment(tensor, "int8") != KEEP:
                    path = (node.name or name).lstrip("/")
                    layer = _LAYER.match(path)
                    key = f"{role} {layer[1] if layer else path.split('/')[0]}"
                    if tensor not in by_layer[key]:
                        by_layer[key].append(tensor)
    names = list(by_layer)
    step = -(-len(names) // MAX_GROUPS) or 1
    joined: dict[str, tuple[Override, ...]] = {}
    for start in range(0, len(names), step):
        some = names[start : start + step]
        title = some[0] if len(some) == 1 else f"{some[0]} to {some[-1]}"
        joined[title] = tuple(
            Override(escape(tensor), "fp16", "int8 costs words here")
            for name in some
            for tensor in by_layer[name]
        )
    return joined


def transcribe(folder: Path, clips: Sequence[Clip], threads: int) -> tuple[Words, ...]:
    """Return the words that the runtime's engine writes for each clip."""
    model = load_recogniser(folder, RecogniserSettings(threads=threads))
    try:
        return recogniser.transcribe(model, clips)
    finally:
        model.close()


def describe(folder: Path, family: str, engine: Mapping[str, Any]) -> None:
    """Write a manifest for a trial that is never published."""
    manifest.write(
        Manifest(
            name="trial",
            stage="recogniser",
            family=family,
            format="onnx",
            scheme="int8-mixed",
            licence="",
            source="",
            files=store.describe(folder),
            engine=engine,
        ),
        folder,
    )
