"""Models of one ONNX graph: checked, passed through, and quantised where that is asked for.

A kind is one :class:`Single` value in a module of its own. Weights may be convolutions and
recurrent layers here, so int8 is onnxruntime's own ``quantize_dynamic`` over every operator that
it knows. Whether the result pays is the gates' to say: these models are small, and often it does
not.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from glob import escape
from pathlib import Path
from typing import Any

import onnx

from edgevoice.errors import ArtifactError
from edgevoice.export.family import Family, Job, SourceFacts, Written
from edgevoice.export.onnx_graph import load, save
from edgevoice.quant import dynamic_int8, float16
from edgevoice.quant.recipe import KEEP, Override, Recipe, TensorChoice
from edgevoice.quant.scheme import FEWER_BITS, Scheme
from edgevoice.quant.tensors import choices, integer_operators, require_finite, rounded_to

SCHEMES = ("fp32", "fp16", "int8")


@dataclass(frozen=True, slots=True)
class Single:
    """One kind of model.

    Attributes:
        name: Exporter's family, and the manifest's.
        stage: The manifest's.
        takes: What a source looks like, for people.
        default_scheme: One of :data:`SCHEMES`.
        checker: Of the stage.
        refuses: Returns why the runtime cannot run a graph, "" when it can.
        narrow: Cuts away, in place, what the runtime never runs; before a candidate is written.
        engine: What the manifest says to the runtime.
        files: The graphs; a source of one may have any name.
        licence: SPDX expression, "" when it differs by source.
        int8_keeps: What int8 leaves in float, with reasons; a tensor is ``FILE:NAME`` there.
    """

    name: str
    stage: str
    takes: str
    default_scheme: str
    checker: str
    refuses: Callable[[onnx.ModelProto], str]
    narrow: Callable[[onnx.ModelProto], object] = lambda _model: None
    engine: Callable[[onnx.ModelProto], Mapping[str, Any]] = lambda _model: {}
    files: tuple[str, ...] = ("model.onnx",)
    licence: str = ""
    int8_keeps: tuple[Override, ...] = ()


def family(single: Single) -> Family:
    """Make the exporter's family of ``single``."""
    return Family(
        name=single.name,
        artifact_family=single.name,
        stage=single.stage,
        format="onnx",
        takes=single.takes,
        schemes=SCHEMES,
        default_scheme=single.default_scheme,
        recognises=partial(_recognises, single),
        inspect=partial(_inspect, single),
        convert=partial(_convert, single),
        quantise=_Quantiser(single),
        checker=single.checker,
        recipes={"int8": Recipe(single.int8_keeps)},
        licence=single.licence,
        needs={"onnx": "edgevoice[convert]"},
    )


def _files(single: Single, source: Path) -> dict[str, Path]:
    """Return the source's graphs by the names that they have in the artifact."""
    if source.is_file() and len(single.files) == 1:
        return {single.files[0]: source}
    if len(single.files) == 1:
        graphs = sorted(source.glob("*.onnx"))
        if len(graphs) != 1:
            raise ArtifactError(
                f"{source} has {len(graphs)} .onnx files, one is needed; name the file itself"
            )
        return {single.files[0]: graphs[0]}
    missing = [name for name in single.files if not (source / name).is_file()]
    if missing:
        raise ArtifactError(f"{source} lacks {', '.join(missing)}")
    return {name: source / name for name in single.files}


def _models(single: Single, source: Path) -> dict[str, tuple[Path, onnx.ModelProto]]:
    models = {name: (path, load(path)) for name, path in _files(single, source).items()}
    path, model = models[single.files[-1]]
    if wrong := single.refuses(model):
        raise ArtifactError(f"{path} is no {single.name} graph: {wrong}")
    return models


def _recognises(single: Single, source: Path) -> bool:
    try:
        _models(single, source)
    except (ArtifactError, OSError):
        return False
    return True


def _inspect(single: Single, source: Path) -> SourceFacts:
    models = _models(single, source)
    size = sum(path.stat().st_size for path, _ in models.values())
    integers = [name for name, (_, model) in models.items() if integer_operators(model)]
    return SourceFacts(
        title=", ".join(path.name for path, _ in models.values()),
        parameters=sum(c.elements for _, model in models.values() for c in choices(model)),
        source_bytes=size,
        peak_memory_bytes=4 * size,
        detail={"quantised already": ", ".join(integers) or "no"},
    )


def _convert(single: Single, source: Path, out: Path, job: Job) -> Written:
    del job
    models = _models(single, source)
    for name, (path, model) in models.items():
        require_finite(model)
        shutil.copyfile(path, out / name)
    return _written(single, {name: model for name, (_, model) in models.items()}, ())


@dataclass(frozen=True, slots=True)
class _Quantiser:
    single: Single

    def __call__(
        self, reference: Path, scheme: Scheme, recipe: Recipe, out: Path, job: Job
    ) -> Written:
        models: dict[str, onnx.ModelProto] = {}
        notes: list[str] = []
        kept = False
        for name, (path, model) in _models(self.single, reference).items():
            if integer_operators(model):
                if scheme.name != "int8":
                    raise ArtifactError(
                        f"{name} is quantised already, {scheme.name} cannot be made of it; "
                        "take the float graph, or --scheme int8 to check and keep it"
                    )
                shutil.copyfile(path, out / name)
                models[name] = model
                kept = True
                notes.append(f"{name} is quantised already: kept, checked")
                continue
            self.single.narrow(model)
            weights = [tensor.name for tensor in model.graph.initializer]
            keep = [w for w in weights if recipe.treatment(f"{name}:{w}", "") == KEEP]
            if scheme.name == "int8":
                models[name] = _in_bytes(model, keep, scheme, job.work)
            else:
                float16.store(model, [escape(weight) for weight in keep])
                models[name] = model
            save(models[name], out / name)
        written = _written(self.single, models, tuple(notes))
        return replace(written, weight_bits=8) if kept else written


def _in_bytes(
    model: onnx.ModelProto, keep: list[str], scheme: Scheme, work: Path
) -> onnx.ModelProto:
    """Let onnxruntime quantise what it can; it reads and writes files."""
    before, after = work / "float.onnx", work / "int8.onnx"
    users = {i: node.name for node in model.graph.node for i in node.input}
    try:
        save(model, before)
        kept = [users[name] for name in keep if name in users]
        fewer = scheme.weight_bits == FEWER_BITS
        dynamic_int8.write_stock(before, after, kept, fewer_bits=fewer)
        return onnx.load(str(after))
    finally:
        before.unlink(missing_ok=True)
        after.unlink(missing_ok=True)


def _written(
    single: Single, models: Mapping[str, onnx.ModelProto], notes: tuple[str, ...]
) -> Written:
    tensors: tuple[TensorChoice, ...] = tuple(
        choice for name, model in models.items() for choice in choices(model, name)
    )
    integers = any(integer_operators(model) for model in models.values())
    scheme = rounded_to(tensors) if integers else ""
    return Written(single.engine(models[single.files[-1]]), tensors, notes, scheme)


def input_shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Return every input's name and shape; 0 for a size that is open."""
    return {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in model.graph.input
    }
