"""Language models as ONNX graphs with their cache, from Hugging Face checkpoints.

llama, qwen2, qwen3, smollm and gemma through optimum-onnx. Owns what a source must look like, and
what is offered; the steps are :mod:`edgevoice.export.llm_artifact`'s, which needs more packages.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgevoice.errors import ArtifactError, refuse_unknown, unknown
from edgevoice.export import hf_checkpoint, torch_program
from edgevoice.export.family import Family, Job, SourceFacts, Written
from edgevoice.quant.recipe import Override, Recipe
from edgevoice.quant.scheme import Scheme

TOKENIZER = "tokenizer.json"
ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "smollm3", "mistral")
MOST_POSITIONS = 8192
OPTIONS: Mapping[str, str] = {
    "context": f"positions that the artifact can hold (default: the model's, {MOST_POSITIONS} "
    "at most)",
    "chat-template": "a Jinja file, for a model that brings no chat template",
    "importance": "off: round to 4 bits without weighing the activations (default: on)",
    "python": torch_program.OPTION,
}


def recognises(source: Path) -> bool:
    """Whether ``source`` is the checkpoint of a language model that is exported here."""
    try:
        return hf_checkpoint.read_config(source).get("model_type") in ARCHITECTURES
    except ArtifactError:
        return False


def inspect(source: Path) -> SourceFacts:
    """Read headers; see :class:`edgevoice.export.family.Family`.

    Raises:
        ArtifactError: Weights, tokenizer or chat template are missing, damaged, or unknown.
    """
    config = hf_checkpoint.read_config(source)
    kind = str(config.get("model_type", ""))
    if kind not in ARCHITECTURES:
        raise ArtifactError(f"{source}: {unknown('architecture', kind, ARCHITECTURES)}")
    if not any((source / name).is_file() for name in (TOKENIZER, "tokenizer.model", "vocab.json")):
        raise ArtifactError(f"{source} has no {TOKENIZER}; take all files of the checkpoint")
    return torch_program.facts(
        source,
        str(config.get("_name_or_path") or kind),
        {"architecture": kind, "layers": config.get("num_hidden_layers")},
        # SmolLM2-135M peaked at 2.9 GB with torch.
        bytes_per_parameter=18,
        stored_bytes=2,
    )


def convert(source: Path, out: Path, job: Job) -> Written:
    """Write the float artifact; see :func:`edgevoice.export.llm_artifact.convert`."""
    from edgevoice.export import llm_artifact

    refuse_unknown("option", job.options, OPTIONS)
    return llm_artifact.convert(source, out, job)


def quantise(reference: Path, scheme: Scheme, recipe: Recipe, out: Path, job: Job) -> Written:
    """Write a candidate; see :func:`edgevoice.export.llm_artifact.quantise`."""
    from edgevoice.export import llm_artifact

    return llm_artifact.quantise(reference, scheme, recipe, out, job)


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
