"""Language models as ONNX graphs with their cache, from Hugging Face checkpoints.

llama, qwen2, qwen3, smollm and gemma through optimum-onnx, which runs in an environment of its own
(:mod:`edgevoice.export.optimum_export`); this module checks the source, has the graph rewritten
for the device, holds it against torch's own logits, and quantises it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgevoice.engines.onnx_decoder import Decoder, Network
from edgevoice.errors import ArtifactError, ConfigError, EngineError, ExportError, unknown
from edgevoice.export import llm_tidy, safetensors_header
from edgevoice.export.environments import clean_environment, environment
from edgevoice.export.family import Family, Job, SourceFacts, Written
from edgevoice.export.llm_graph import Heads, Unrecognised, fuse_attention
from edgevoice.quant import float16, int4, int8, tensors
from edgevoice.quant.recipe import KEEP, Recipe
from edgevoice.quant.scheme import Scheme

FILE = "model.onnx"
TOKENIZER = "tokenizer.json"
ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "smollm3", "mistral")
# torch first, or pip takes the CUDA build (gigabytes) for those that depend on it.
REQUIREMENTS = (
    ("torch==2.13.0",),
    ("optimum-onnx==0.1.0", "transformers<4.58", "onnx==1.23.2", "onnxruntime==1.31.1"),
)
# Imports torch, so it is run and never imported.
_PROGRAM = Path(__file__).parents[1] / "optimum_export.py"
MOST_POSITIONS = 8192
# The largest difference to torch's logits, over the logits' own spread: float32 sums in another
# order. SmolLM2-135M: 3e-5; a rotation or a mask that is wrong: above 0.1.
TOLERANCE = 1e-3
OPTIONS: Mapping[str, str] = {
    "context": f"positions that the artifact can hold (default: the model's, {MOST_POSITIONS} "
    "at most)",
    "chat-template": "a Jinja file, for a model that brings no chat template",
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
    _trace(source, traced, job)
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
    off = _distance(out / FILE, traced / "check.npz", job.threads)
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
        _round(model, scheme, recipe, notes)
    llm_tidy.save(model, out / FILE)
    return Written({}, tensors.choices(model), tuple(notes))


def _round(model: onnx.ModelProto, scheme: Scheme, recipe: Recipe, notes: list[str]) -> None:
    names = [t.name for t in model.graph.initializer]
    wanted = {name: recipe.treatment(name, scheme.name) for name in names}
    kept = [name for name in names if wanted[name] == KEEP]
    for treatment in dict.fromkeys(wanted.values()):
        others = [name for name in names if wanted[name] != treatment]
        if treatment in _BLOCKS:
            bits, symmetric = _BLOCKS[treatment]
            made = int4.quantise(model, bits, 32, symmetric, others)
            notes.append(f"{len(made)} matrices in blocks of {bits} bits")
        elif treatment == "int8":
            done = int8.quantise(model, others)
            # A matrix that is embedding and logits at once has no dynamic form.
            made = int4.quantise(model, 8, 32, True, others)
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


def _trace(source: Path, out: Path, job: Job) -> None:
    """Run optimum in an interpreter that has it."""
    command = [str(_interpreter(job)), str(_PROGRAM), str(source.resolve()), str(out.resolve())]
    if job.allow_pickle:
        command.append("--allow-pickle")
    threads = str(job.threads)
    with job.meter("trace with optimum", None):
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
            env={**clean_environment(), "OMP_NUM_THREADS": threads, "TQDM_DISABLE": "1"},
        )
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").splitlines()
        reason = next((line.strip() for line in reversed(said) if line.strip()), "it says nothing")
        raise ExportError(f"{source}: optimum-onnx cannot export it: {reason[:300]}")


def _interpreter(job: Job) -> Path:
    if chosen := job.options.get("python"):
        if not os.access(chosen, os.X_OK):
            raise ConfigError(f"option python={chosen!r} is no program that can be run")
        return Path(chosen)
    if all(importlib.util.find_spec(name) for name in ("torch", "optimum", "transformers")):
        return Path(sys.executable)
    return environment("optimum", REQUIREMENTS, job.meter) / "python"


def _distance(path: Path, check: Path, threads: int) -> float:
    """Return how far the graph's logits are from torch's, in units of their spread.

    Reads in pieces and reads again after forgetting, as a conversation does.
    """
    with np.load(check) as stored:
        tokens, logits = [int(t) for t in stored["tokens"]], np.asarray(stored["logits"])
    decoder = Decoder(Network(path, threads), len(tokens) + 8)
    third = len(tokens) // 3
    try:
        decoder.read(tokens[third:], 0)
        parts = [
            decoder.read(tokens[:third], 0, third),
            decoder.read(tokens[third:-1], third, len(tokens) - 1 - third),
            decoder.read(tokens[-1:], len(tokens) - 1),
        ]
    except EngineError as error:
        raise ExportError(f"the rewritten graph does not run: {error}") from error
    difference = np.abs(np.concatenate(parts) - logits).max()
    return float(difference / max(float(logits.std()), 1e-6))


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


FAMILY = Family(
    name="onnx-llm",
    artifact_family="onnx-llm",
    stage="language-model",
    format="onnx",
    takes="Hugging Face checkpoint of llama, qwen2, qwen3, smollm or gemma",
    schemes=("fp32", "fp16", "int8", "int8-weights", "int4", "int4-asymmetric"),
    default_scheme="int4",
    recognises=recognises,
    inspect=inspect,
    convert=convert,
    quantise=quantise,
    checker="edgevoice.export.checks.language_model:measure",
    recipes={},
    options=OPTIONS,
    needs={"onnx": "onnx", "tokenizers": "tokenizers", "jinja2": "Jinja2"},
)
