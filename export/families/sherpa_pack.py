"""Recogniser packs for sherpa-onnx: from a float pack to int8, int4, a mix, or float16 storage.

A kind of pack is one :class:`Pack` value, in a module of its own; :func:`family` makes the
exporter's family of it. A pack comes out as it went in: the same graphs by role, the same metadata,
the same tokens, all checked. A pack that is quantised already passes through, checked, under
``int8``; nobody can make it better from its own weights.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from glob import escape
from pathlib import Path
from typing import Any

import onnx

from edgevoice.errors import ArtifactError, ConfigError
from edgevoice.export.families import pack_layout, pack_search
from edgevoice.export.families.pack_layout import KEPT, TOKENS, Layout
from edgevoice.export.family import AS_IS, Family, Job, SourceFacts, Written
from edgevoice.export.onnx_graph import load, save
from edgevoice.quant import float16, treatments
from edgevoice.quant.recipe import HALF, KEEP, Override, Recipe, TensorChoice
from edgevoice.quant.scheme import Scheme
from edgevoice.quant.tensors import choices, require_finite, rounded_to

SCHEMES = ("fp32", "fp16", "int8", "int8-mixed", "int8-weights", "int4", "int4-asymmetric")
CHECKER = "edgevoice.export.checks.recogniser:measure"
_ORT_MAGIC = b"ORTM"
_LARGE = 1 << 14

Engine = Callable[[Mapping[str, Mapping[str, str]], Mapping[str, str]], Mapping[str, Any]]
"""From every role's metadata and the user's options to what the manifest tells the recogniser."""


@dataclass(frozen=True, slots=True)
class Pack:
    """One kind of pack.

    Attributes:
        name: The exporter's family.
        takes: What a source looks like, for people.
        layout: Its graphs.
        artifact_family: The manifest's, when it is not ``name``.
        engine: What the manifest has to say beside the files.
        options: What ``--option`` may set, for ``engine``.
        keeps: Overrides of every scheme that quantises, with reasons; a tensor is called
            ``ROLE.onnx:NAME`` there.
    """

    name: str
    takes: str
    layout: Layout
    artifact_family: str = ""
    engine: Engine = field(default=lambda _metadata, _options: {})
    options: Mapping[str, str] = field(default_factory=dict)
    keeps: tuple[Override, ...] = ()


def family(pack: Pack) -> Family:
    """Make the exporter's family of ``pack``."""
    return Family(
        name=pack.name,
        artifact_family=pack.artifact_family or pack.name,
        stage="recogniser",
        format="onnx",
        takes=pack.takes,
        schemes=SCHEMES,
        default_scheme="int8",
        recognises=partial(_recognises, pack),
        inspect=partial(_inspect, pack),
        convert=partial(_convert, pack),
        quantise=_Quantiser(pack),
        checker=CHECKER,
        recipes={name: Recipe(pack.keeps) for name in SCHEMES if name not in ("fp32", "fp16")},
        options=pack.options,
        needs={"onnx": "edgevoice[convert]"},
    )


def _recognises(pack: Pack, source: Path) -> bool:
    try:
        found = pack_layout.files(source, pack.layout)
        tokens = pack_layout.read_tokens(source / TOKENS, pack.layout)
        _models(pack, found, len(tokens))
    except (ArtifactError, OSError):
        return False
    return True


def _inspect(pack: Pack, source: Path) -> SourceFacts:
    found = pack_layout.files(source, pack.layout)
    tokens = pack_layout.read_tokens(source / TOKENS, pack.layout)
    models = _models(pack, found, len(tokens))
    size = sum(path.stat().st_size for path in found.values())
    weights = [c for model in models.values() for c in choices(model)]
    integers = [r for r in found if r not in models] + [*pack_layout.quantised(models)]
    return SourceFacts(
        title=", ".join(path.name for path in found.values()),
        parameters=sum(choice.elements for choice in weights),
        source_bytes=size,
        peak_memory_bytes=3 * size,  # the graph, its rewritten copy, and its bytes to write
        detail={"tokens": len(tokens), "quantised already": ", ".join(integers) or "no"},
    )


def _convert(pack: Pack, source: Path, out: Path, job: Job) -> Written:
    found = pack_layout.files(source, pack.layout)
    tokens = pack_layout.read_tokens(source / TOKENS, pack.layout)
    models = _models(pack, found, len(tokens))
    for model in models.values():
        require_finite(model)
    for role, path in found.items():
        shutil.copyfile(path, out / f"{role}{path.suffix}")
    _copy_rest(source, out)
    integers = pack_layout.quantised(models)
    said = [f"{role}.onnx is in integers already and stays as it is" for role in integers]
    said += [f"{r}{p.suffix} passes through unread" for r, p in found.items() if r not in models]
    scheme = _kept_scheme(found, models)
    return Written(_engine(pack, models, job), _choices(models), tuple(said), scheme)


@dataclass(frozen=True, slots=True)
class _Quantiser:
    pack: Pack

    def __call__(
        self, reference: Path, scheme: Scheme, recipe: Recipe, out: Path, job: Job
    ) -> Written:
        pack = self.pack
        found = pack_layout.files(reference, pack.layout)
        models = _models(pack, found, 0)
        engine = _engine(pack, models, job)
        _copy_rest(reference, out)
        if len(models) < len(found) or pack_layout.quantised(models):
            if scheme.name != "int8":
                raise ArtifactError(
                    f"this pack is quantised already, {scheme.name} cannot be made of it; take the "
                    "float pack, or --scheme int8 to check and keep it"
                )
            for role, path in found.items():
                shutil.copyfile(path, out / f"{role}{path.suffix}")
            said = ("quantised already: kept, checked",)
            return Written(engine, _choices(models), said, _kept_scheme(found, models))
        notes: list[str] = []
        if scheme.options.get("mixed"):
            in_bytes = replace(scheme, name="int8")
            found_best = pack_search.search(
                models,
                recipe,
                job,
                lambda folder, trial: _write(reference, trial, folder, in_bytes),
                partial(_describe, pack, engine, reference),
            )
            recipe, notes = found_best.recipe, [*found_best.notes]
            _write(reference, recipe, out, in_bytes)
            written = _store_rest(out, recipe)
        else:
            written = _write(reference, recipe, out, scheme)
        kept = [c.name for c in written if c.type == "float32" and c.elements >= _LARGE]
        if kept:
            notes.append(f"{len(kept)} large tensors stay in float")
        return Written(engine, written, tuple(notes))


def _write(folder: Path, recipe: Recipe, out: Path, scheme: Scheme) -> tuple[TensorChoice, ...]:
    written: list[TensorChoice] = []
    for path in sorted(folder.glob("*.onnx")):
        model = load(path)

        chosen = treatments.choose(model, recipe, scheme.name, path.name)
        treatments.round_products(model, chosen, largest=scheme.largest)
        float16.store(model, [escape(n) for n in _names(model) if chosen.get(n) != HALF])
        if set(chosen.values()) != {KEEP}:
            float16.store_exact(model)  # it costs nothing
        save(model, out / path.name)
        written += choices(model, path.name)
    return tuple(written)


def _store_rest(folder: Path, recipe: Recipe) -> tuple[TensorChoice, ...]:
    """Store as float16 what no product multiplies (convolutions); what is kept stays float32."""
    written: list[TensorChoice] = []
    for path in sorted(folder.glob("*.onnx")):
        model = load(path)
        keep = [n for n in _names(model) if recipe.treatment(f"{path.name}:{n}", "") == KEEP]
        float16.store(model, [escape(name) for name in keep])
        save(model, path)
        written += choices(model, path.name)
    return tuple(written)


def _names(model: onnx.ModelProto) -> list[str]:
    return [tensor.name for tensor in model.graph.initializer]


def _describe(pack: Pack, engine: Mapping[str, Any], reference: Path, folder: Path) -> None:
    """Add what the runtime's own engine needs to load the graphs in ``folder``."""
    _copy_rest(reference, folder)
    pack_search.describe(folder, pack.artifact_family or pack.name, engine)


def _models(pack: Pack, found: Mapping[str, Path], tokens: int) -> dict[str, onnx.ModelProto]:
    """Load and check every graph but those in onnxruntime's own format, which onnx cannot read."""
    models: dict[str, onnx.ModelProto] = {}
    for part in pack.layout.parts:
        path = found[part.role]
        if path.suffix == ".ort":
            if path.open("rb").read(8)[4:] != _ORT_MAGIC:
                raise ArtifactError(f"{path} is not in onnxruntime's format; fetch it again")
            continue
        models[part.role] = load(path)
        pack_layout.check_metadata(part, pack_layout.metadata_of(models[part.role]), path)
        if tokens and part.role == pack.layout.scores:
            pack_layout.check_scores(models[part.role], tokens, path)
    return models


def _engine(pack: Pack, models: Mapping[str, onnx.ModelProto], job: Job) -> Mapping[str, Any]:
    metadata = {role: pack_layout.metadata_of(model) for role, model in models.items()}
    return {"sample_rate_hz": 16_000, **pack.engine(metadata, job.options)}


def whole_numbers(
    metadata: Mapping[str, str], options: Mapping[str, str], names: Mapping[str, str]
) -> dict[str, int]:
    """Return the manifest's whole numbers: from the option of that name, or from the metadata.

    Args:
        metadata: Of one graph.
        options: The user's; they win.
        names: From the manifest's name to the metadata's.

    Raises:
        ConfigError: An option is no whole number.
    """
    found = {}
    for name, key in names.items():
        value = options.get(name, metadata.get(key, ""))
        if name in options and not value.isdigit():
            raise ConfigError(f"--option {name}={value}: a whole number is needed")
        if value.isdigit():
            found[name] = int(value)
    return found


def _kept_scheme(found: Mapping[str, Path], models: Mapping[str, onnx.ModelProto]) -> str:
    """Return what a pack that passes through is written in, "" for float."""
    if len(models) < len(found):
        return AS_IS
    return rounded_to(_choices(models)) if pack_layout.quantised(models) else ""


def _choices(models: Mapping[str, onnx.ModelProto]) -> tuple[TensorChoice, ...]:
    return tuple(c for role, model in models.items() for c in choices(model, f"{role}.onnx"))


def _copy_rest(source: Path, out: Path) -> None:
    for name in KEPT:
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)


# What sherpa-onnx's and icefall's own scripts leave in float.
DECODER_IN_FLOAT = Override(
    "decoder.onnx:*", KEEP, "an embedding and one small layer: int8 saves little and costs words"
)
JOINER_IN_FLOAT = Override(
    "joiner.onnx:*", KEEP, "runs once a frame and token and decides every word; under 5 % of a pack"
)
