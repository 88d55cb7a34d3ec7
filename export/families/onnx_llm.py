"""Language models as ONNX graphs with their cache, from Hugging Face checkpoints.

llama, qwen2, qwen3, smollm and gemma through optimum-onnx, which runs in an environment of its own
(:mod:`edgevoice.export.optimum_export`); this module checks the source, has the graph rewritten
for the device, holds it against torch's own logits, and quantises it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from tokenizers import Tokenizer

from edgevoice.errors import ArtifactError, ConfigError, ExportError, unknown
from edgevoice.export import llm_tidy, llm_trace, safetensors_header
from edgevoice.export.family import Family, Job, SourceFacts, Written
from edgevoice.export.graph_wires import Unrecognised
from edgevoice.export.llm_graph import Heads, fuse_attention
from edgevoice.quant import activations, float16, int4, int8, tensors
from edgevoice.quant.recipe import KEEP, Override, Recipe
from edgevoice.quant.scheme import Scheme

FILE = "model.onnx"
TOKENIZER = "tokenizer.json"
ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "smollm3", "mistral")
MOST_POSITIONS = 8192
CALIBRATION_TOKENS = 768
_WINDOW_TOKENS = 256
# The largest difference to torch's logits, over the logits' own spread: float32 sums in another
# order. SmolLM2-135M: 3e-5; a rotation or a mask that is wrong: above 0.1.
TOLERANCE = 1e-3
OPTIONS: Mapping[str, str] = {
    "context": f"positions that the artifact can hold (default: the model's, {MOST_POSITIONS} "
    "at most)",
    "chat-template": "a Jinja file, for a model that brings no chat template",
    "importance": "off: round to 4 bits without weighing the activations (default: on)",
    "python": "an interpreter that has torch and optimum-onnx, in place of one made for it",
}


def recognises(source: Path) -> bool:
    """Whether ``source`` is the checkpoint of a language model that is exported here."""
    try:
        return _config(source).get("model_type") in ARCHITECTURES
    except ArtifactError:
        return False


def inspect(source: Path) -> SourceFacts:
    """Read headers; see :class:`edgevoice.export.family.Family`.

    Raises:
        ArtifactError: Weights, tokenizer or chat template are missing, damaged, or unknown.
    """
    config = _config(source)
    kind = str(config.get("model_type", ""))
    if kind not in ARCHITECTURES:
        raise ArtifactError(f"{source}: {unknown('architecture', kind, ARCHITECTURES)}")
    if not any((source / name).is_file() for name in (TOKENIZER, "tokenizer.model", "vocab.json")):
        raise ArtifactError(f"{source} has no {TOKENIZER}; take all files of the checkpoint")
    parameters = safetensors_header.check(source)
    size = sum(f.stat().st_size for f in source.rglob("*") if f.is_file())
    return SourceFacts(
        title=str(config.get("_name_or_path") or kind),
        parameters=parameters,
        source_bytes=size,
        # SmolLM2-135M peaked at 2.9 GB, of which 0.6 GB are torch's libraries.
        peak_memory_bytes=(600 << 20) + 18 * (parameters or size // 2),
        detail={"architecture": kind, "layers": config.get("num_hidden_layers")},
    )


def convert(source: Path, out: Path, job: Job) -> Written:
    """Write ``out/model.onnx`` in float32; see :class:`edgevoice.export.family.Family`.

    Raises:
        ArtifactError: The checkpoint has no chat template, or weights that are no numbers.
        ConfigError: An option cannot be used as written.
        ExportError: optimum fails, the graph is not as expected, or computes something else.
        MissingDependencyError: torch and optimum cannot be installed.
    """
    _check_options(job.options)
    traced = job.work / "optimum"
    llm_trace.trace(source, traced, job)
    facts: dict[str, Any] = json.loads((traced / "facts.json").read_text())
    template = _template(facts, job, source)
    context = _context(facts, job)
    with job.meter("rewrite the graph", None):
        model = llm_tidy.optimised(traced / FILE, job.work, job.threads)
        tensors.require_finite(model)
        before = len(model.graph.node)
        heads = Heads(
            facts["query_heads"], facts["key_heads"], tuple(facts["windows"]), facts["softcap"]
        )
        try:
            fuse_attention(model, heads, context)
        except Unrecognised as error:
            raise ExportError(
                f"{source}: the graph of {facts['architecture']!r} is written in a way that is "
                f"not known here ({error}); export it as GGUF instead"
            ) from error
        llm_tidy.name_weights(model)
        tied = llm_tidy.tie(model)
        llm_tidy.save(model, out / FILE)
    shutil.copyfile(traced / TOKENIZER, out / TOKENIZER)
    off = llm_trace.distance(out / FILE, traced / "check.npz", job.threads)
    if not off <= TOLERANCE:
        raise ExportError(
            f"{source}: the rewritten graph is {off:.2g} of the logits' spread away from torch, "
            f"{TOLERANCE:g} is allowed; export it as GGUF instead"
        )
    notes = [
        f"attention fused: {before} nodes to {len(model.graph.node)}",
        f"logits within {off:.1g} of torch's (of their spread), read in pieces",
    ]
    if tied:
        notes.append(f"{tied} serves as embedding and as logits, stored once")
    engine = {
        "chat_template": template,
        "context_tokens": context,
        **{key: facts[key] for key in ("bos_token", "eos_token", "end_tokens")},
    }
    return Written(engine, tensors.choices(model), tuple(notes))


def quantise(reference: Path, scheme: Scheme, recipe: Recipe, out: Path, job: Job) -> Written:
    """Write ``out/model.onnx`` in ``scheme``; see :class:`edgevoice.export.family.Family`.

    Raises:
        ConfigError: An override asks for what this family does not write.
    """
    _check_options(job.options)
    shutil.copyfile(reference / TOKENIZER, out / TOKENIZER)
    model = onnx.load(reference / FILE)
    notes: list[str] = []
    if scheme.method != "float":
        importance = _importance(model, reference, job) if scheme.bits == 4 else {}
        if importance:
            notes.append("rounding errors weighed with the activations of the calibration text")
        _round(model, scheme, recipe, importance, notes)
    llm_tidy.save(model, out / FILE)
    return Written({}, tensors.choices(model), tuple(notes))


def _importance(
    model: onnx.ModelProto, reference: Path, job: Job
) -> dict[str, NDArray[np.float32]]:
    """Return what the calibration text puts into each product."""
    if job.options.get("importance", "on") == "off":
        return {}
    tokenizer = Tokenizer.from_file(str(reference / TOKENIZER))
    text = "\n".join(job.calibration.sentences())
    ids = tokenizer.encode(text, add_special_tokens=False).ids[:CALIBRATION_TOKENS]
    caches = {
        value.name: value.type.tensor_type.shape.dim
        for value in model.graph.input
        if value.name.startswith("past_key_values.")
    }

    def feed(tokens: list[int]) -> dict[str, NDArray[Any]]:
        shapes = {n: (1, d[1].dim_value, len(tokens), d[3].dim_value) for n, d in caches.items()}
        return {
            "input_ids": np.array([tokens], np.int64),
            "total_length": np.array([len(tokens)], np.int32),
            "logits_from": np.array([len(tokens) - 1], np.int64),
            **{name: np.zeros(shape, np.float32) for name, shape in shapes.items()},
        }

    windows = [ids[i : i + _WINDOW_TOKENS] for i in range(0, len(ids), _WINDOW_TOKENS)]
    with job.meter("weigh the activations", None):
        return activations.mean_squares(model, map(feed, windows), job.work, job.threads)


def _round(
    model: onnx.ModelProto,
    scheme: Scheme,
    recipe: Recipe,
    importance: Mapping[str, NDArray[np.float32]],
    notes: list[str],
) -> None:
    names = [t.name for t in model.graph.initializer]
    wanted = {name: recipe.treatment(name, scheme.name) for name in names}
    kept = [name for name in names if wanted[name] == KEEP]
    for treatment in dict.fromkeys(wanted.values()):
        others = [name for name in names if wanted[name] != treatment]
        if treatment in _BLOCKS:
            bits, symmetric = _BLOCKS[treatment]
            made = int4.quantise(
                model,
                bits,
                32,
                symmetric,
                others,
                operators=("MatMul", "Gather"),
                importance=importance if bits == 4 else None,
            )
            notes.append(f"{len(made)} matrices in blocks of {bits} bits")
        elif treatment == "int8":
            done = int8.quantise(model, others)
            # A matrix that is embedding and logits at once has no dynamic form.
            made = int4.quantise(model, 8, 32, True, others, operators=("MatMul", "Gather"))
            notes.append(f"{len(done)} matrices in int8, {len(made)} in blocks of 8 bits")
        elif treatment not in (KEEP, "fp16"):
            raise ConfigError(unknown("treatment", treatment, (*_BLOCKS, "int8", "fp16", KEEP)))
    # Angles of far positions need float32's digits.
    stored = float16.store(model, (*kept, "rotation_*"))
    if stored:
        notes.append(f"{len(stored)} tensors stored as float16")


_BLOCKS: Mapping[str, tuple[int, bool]] = {
    "int4": (4, True),
    "int4-asymmetric": (4, False),
    "int8-weights": (8, True),
}


def _config(source: Path) -> dict[str, Any]:
    path = source / "config.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} is not a checkpoint's configuration: {error}") from error
    if not isinstance(found, dict):
        raise ArtifactError(f"{path} is not a checkpoint's configuration: no object")
    return found


def _template(facts: Mapping[str, Any], job: Job, source: Path) -> str:
    if named := job.options.get("chat-template"):
        try:
            return Path(named).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"option chat-template={named!r} cannot be read: {error}") from error
    if not facts["chat_template"]:
        raise ArtifactError(
            f"{source} has no chat template, so it is not a model that answers; take its "
            "-instruct or -chat variant, or name a template with --option chat-template=FILE"
        )
    return str(facts["chat_template"])


def _context(facts: Mapping[str, Any], job: Job) -> int:
    most = int(facts["positions"])
    raw = job.options.get("context", str(min(most, MOST_POSITIONS)))
    if not raw.isdigit() or not 256 <= int(raw) <= most:
        raise ConfigError(f"option context={raw!r} must be from 256 to {most}, the model's own")
    return int(raw)


def _check_options(options: Mapping[str, str]) -> None:
    if strange := set(options) - set(OPTIONS):
        raise ConfigError(unknown("option", min(strange), OPTIONS))


_REASON = "SmolLM2-135M, KL divergence: embedding in 4 bits 0.38, in 8 bits 0.28; with activations "
_REASON += "weighed 0.135, and with the values' projections in 8 bits (1.6 MB) 0.091"
_FOUR_BITS = Recipe(
    tuple(
        Override(pattern, "int8-weights", _REASON)
        for pattern in ("*embed_tokens.weight", "*lm_head.weight", "*v_proj.weight")
    )
)

FAMILY = Family(
    name="onnx-llm",
    artifact_family="onnx-llm",
    stage="language-model",
    format="onnx",
    takes="Hugging Face checkpoint of llama, qwen2, qwen3, smollm or gemma",
    schemes=("fp32", "fp16", "int8", "int8-weights", "int4", "int4-asymmetric"),
    default_scheme="int4-asymmetric",
    recognises=recognises,
    inspect=inspect,
    convert=convert,
    quantise=quantise,
    checker="edgevoice.export.checks.language_model:measure",
    recipes={"int4": _FOUR_BITS, "int4-asymmetric": _FOUR_BITS},
    options=OPTIONS,
    needs={"onnx": "onnx", "tokenizers": "tokenizers", "jinja2": "Jinja2"},
)
