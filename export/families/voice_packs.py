"""Voices that come as sherpa-onnx packs: checked, passed through, and their graphs quantised.

Owns what such packs have in common, given their graphs and companions by a family that is one small
file (:mod:`edgevoice.export.families.kitten`). What a pack must hold is sherpa-onnx's
(`sherpa-onnx/csrc/offline-tts-*-model.cc`).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from edgevoice.errors import ArtifactError
from edgevoice.export.families import voice_graphs
from edgevoice.export.family import Family, Job, SourceFacts, Written
from edgevoice.manifest import FILE_NAME
from edgevoice.quant.recipe import Recipe, TensorChoice
from edgevoice.quant.scheme import Scheme

# No static int8: what such a graph takes is known to sherpa-onnx alone.
SCHEMES = ("fp32", "fp16", "int8", "int8-mixed")
_TOKENS = "tokens.txt"
# The phonemiser brings its own, and it is GPL-3.0-or-later.
_LEFT_OUT = ("espeak-ng-data", FILE_NAME)


@dataclass(frozen=True, slots=True)
class PackLayout:
    """What a kind of pack is made of.

    Attributes:
        name: The family's and sherpa-onnx's.
        graphs: Patterns; each has to match one .onnx file.
        companions: Files that have to lie beside them.
        metadata: Keys that the first graph has to carry.
    """

    name: str
    graphs: tuple[str, ...]
    companions: tuple[str, ...]
    metadata: tuple[str, ...]

    def find(self, folder: Path) -> tuple[Path, ...]:
        """Return the graphs in ``folder``.

        Raises:
            ArtifactError: One is missing or there are several, or a companion is missing.
        """
        found = []
        for pattern in self.graphs:
            matches = [p for p in sorted(folder.glob("*.onnx")) if fnmatchcase(p.name, pattern)]
            if len(matches) != 1:
                raise ArtifactError(
                    f"{folder} has {len(matches)} files {pattern}; a {self.name} pack has one"
                )
            found += matches
        for name in (*self.companions, _TOKENS):
            if not (folder / name).is_file():
                raise ArtifactError(f"{folder / name} is missing; a {self.name} pack has it")
        return tuple(found)

    def recognises(self, source: Path) -> bool:
        """Whether ``source`` looks like such a pack."""
        try:
            return bool(self.find(source))
        except (ArtifactError, OSError):
            return False

    def inspect(self, source: Path) -> SourceFacts:
        """Read sizes and file names."""
        graphs = self.find(source)
        size = sum(path.stat().st_size for path in graphs)
        return SourceFacts(
            title=f"{self.name} pack {source.name}",
            parameters=size // 4,
            source_bytes=sum(p.stat().st_size for p in source.rglob("*") if p.is_file()),
            peak_memory_bytes=6 * max(path.stat().st_size for path in graphs),
            detail={"graphs": ", ".join(path.name for path in graphs)},
        )

    def convert(self, source: Path, out: Path, job: Job) -> Written:
        """Check the pack and copy it."""
        from edgevoice.quant import tensors

        del job
        graphs = self.find(source)
        _check_tokens(source / _TOKENS)
        models = [voice_graphs.load_float(path) for path in graphs]
        known = {p.key: p.value for p in models[0].metadata_props}
        if missing := [key for key in self.metadata if key not in known]:
            raise ArtifactError(
                f"{graphs[0]} lacks sherpa-onnx's metadata {', '.join(missing)}; take the pack "
                "that sherpa-onnx publishes, not the bare model"
            )
        _copy(source, out, ())
        choices: list[TensorChoice] = []
        for path, model in zip(graphs, models, strict=True):
            choices += tensors.choices(model, path.name)
        return Written(_engine_table(known), tuple(choices))

    def quantise(
        self, reference: Path, scheme: Scheme, recipe: Recipe, out: Path, job: Job
    ) -> Written:
        """Write every graph of the pack in ``scheme``; all else is copied."""
        from edgevoice.export.onnx_graph import load

        graphs = self.find(reference)
        _copy(reference, out, tuple(path.name for path in graphs))
        choices: list[TensorChoice] = []
        for path in graphs:
            choices += voice_graphs.write(
                path, out / path.name, scheme, recipe, job, feeds=lambda: ()
            )
        known = {p.key: p.value for p in load(graphs[0]).metadata_props}
        return Written(_engine_table(known), tuple(choices))


def family(layout: PackLayout, takes: str, licence: str = "") -> Family:
    """Return the family of packs of this layout."""
    return Family(
        name=layout.name,
        artifact_family=layout.name,
        stage="speech",
        format="onnx",
        takes=takes,
        schemes=SCHEMES,
        default_scheme="int8-mixed",
        recognises=layout.recognises,
        inspect=layout.inspect,
        convert=layout.convert,
        quantise=layout.quantise,
        checker="edgevoice.export.checks.speech:measure",
        options={"products": voice_graphs.OPTIONS["products"]},
        licence=licence,
    )


def _engine_table(known: Mapping[str, str]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    if known.get("sample_rate", "").isdecimal():
        table["sample_rate_hz"] = int(known["sample_rate"])
    # Voices that were trained on espeak-ng's phonemes get them from edgevoice.
    if known.get("has_espeak") == "1":
        table["espeak_voice"] = known.get("voice", "en-us")
    return table


def _check_tokens(path: Path) -> None:
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not text.rpartition(" ")[2].isdecimal():
            raise ArtifactError(f"{path}, line {number}: {text!r} is not 'symbol id'")


def _copy(source: Path, out: Path, but: tuple[str, ...]) -> None:
    for path in sorted(source.iterdir()):
        if path.name in (*_LEFT_OUT, *but):
            continue
        if path.is_dir():
            shutil.copytree(path, out / path.name)
        else:
            shutil.copyfile(path, out / path.name)
