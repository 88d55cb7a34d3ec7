"""Recognisers of raw sound with CTC, from Hugging Face checkpoints.

wav2vec2 and its like through optimum-onnx, as one graph that sherpa-onnx runs as it runs
Omnilingual ASR. Owns what a source must look like and the order of the steps; tracing, rewriting
and quantising lie in :mod:`edgevoice.export.optimum_ctc`, :mod:`edgevoice.export.ctc_graph` and
:mod:`edgevoice.export.families.sherpa_pack`.

No published checkpoint was at hand: every architecture was exported from small random weights,
where its scores were within 2e-5 of torch's (of their spread), and sherpa-onnx 2.0.1 wrote what
transformers' own greedy decoding writes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgevoice.errors import ArtifactError, ExportError, refuse_unknown, unknown
from edgevoice.export import hf_checkpoint, torch_program
from edgevoice.export.families import sherpa_pack
from edgevoice.export.families.pack_layout import TOKENS, Layout, Part
from edgevoice.export.family import Job, SourceFacts, Written
from edgevoice.quant.recipe import Override

PROGRAM = "optimum_ctc.py"
ARCHITECTURES = (
    *("wav2vec2", "wav2vec2-conformer", "hubert", "wavlm", "data2vec-audio", "unispeech"),
    *("unispeech-sat", "sew", "sew-d"),
)
OPTIONS: Mapping[str, str] = {"python": torch_program.OPTION}
_PREPROCESSOR = "preprocessor_config.json"
_VOCABULARY = "vocab.json"
_SAMPLE_RATE_HZ = 16_000
# The largest difference to torch's scores, over their spread: float32 sums in another order.
TOLERANCE = 1e-3
# Where the model takes sound as loud as it is and sherpa-onnx gives it normalised: as much as a
# norm over time behind the first convolution leaves of it, and far below what is left without.
LOUDNESS_TOLERANCE = 0.03


def recognises(source: Path) -> bool:
    """Whether ``source`` is a checkpoint of an architecture that is exported here, with CTC."""
    try:
        config = hf_checkpoint.read_config(source)
    except ArtifactError:
        return False
    return config.get("model_type") in ARCHITECTURES and _has_ctc(config)


def inspect(source: Path) -> SourceFacts:
    """Read headers; see :class:`edgevoice.export.family.Family`.

    Raises:
        ArtifactError: Weights or the vocabulary are missing, damaged, or of a kind that no engine
            of edgevoice's reads.
    """
    config = hf_checkpoint.read_config(source)
    kind = str(config.get("model_type", ""))
    if kind not in ARCHITECTURES:
        raise ArtifactError(f"{source}: {unknown('architecture', kind, ARCHITECTURES)}")
    if not _has_ctc(config):
        raise ArtifactError(
            f"{source} is {', '.join(config.get('architectures') or ())}, which writes no text; "
            "take a checkpoint that was fine-tuned with CTC"
        )
    words = _vocabulary(source)
    _check_extractor(source)
    return torch_program.facts(
        source,
        str(config.get("_name_or_path") or kind),
        {"architecture": kind, "layers": config.get("num_hidden_layers"), "tokens": words},
    )


def convert(source: Path, out: Path, job: Job) -> Written:
    """Write ``model.onnx`` in float32 and ``tokens.txt``.

    Raises:
        ArtifactError: The checkpoint has no blank, or weights that are no numbers.
        ConfigError: An option is not known.
        ExportError: optimum fails, or sherpa-onnx would give the graph something else than it was
            trained on.
        MissingDependencyError: torch and optimum cannot be installed.
    """
    from edgevoice.export import ctc_graph, llm_tidy
    from edgevoice.export.onnx_graph import save
    from edgevoice.quant import tensors

    refuse_unknown("option", job.options, OPTIONS)
    traced = job.work / "optimum"
    torch_program.run(PROGRAM, source, traced, job)
    facts: dict[str, Any] = json.loads((traced / "facts.json").read_text(encoding="utf-8"))
    tokens = ctc_graph.Tokens.of(facts, source)
    normalised = bool(facts["normalised"])
    with job.meter("rewrite the graph", None):
        model = llm_tidy.optimised(traced / "model.onnx", job.work, job.threads, "BASIC")
        tensors.require_finite(model)
        llm_tidy.name_weights(model)
        ctc_graph.adapt(model, tokens, normalised)
        save(model, out / "model.onnx")
    tokens.write(out / TOKENS)
    off = ctc_graph.distance(out / "model.onnx", traced / "check.npz", tokens, job.threads)
    if not off <= (TOLERANCE if normalised else LOUDNESS_TOLERANCE):
        raise ExportError(
            f"{source}: the graph is {off:.2g} of the scores' spread away from torch: "
            + ("it computes something else" if normalised else _LOUDNESS)
        )
    notes = [f"scores within {off:.1g} of torch's (of their spread)"]
    if tokens.silent:
        notes.append(f"{len(tokens.silent)} tokens that are no text count as blank")
    return Written({"sample_rate_hz": _SAMPLE_RATE_HZ}, tensors.choices(model), tuple(notes))


_LOUDNESS = (
    "it was trained on sound as loud as it came (do_normalize is false), and sherpa-onnx gives it "
    "normalised; take a checkpoint whose feature extractor normalises"
)


def _has_ctc(config: Mapping[str, Any]) -> bool:
    return any(str(name).endswith("ForCTC") for name in config.get("architectures") or ())


def _vocabulary(source: Path) -> int:
    path = source / _VOCABULARY
    if not path.is_file():
        raise ArtifactError(f"{source} has no {_VOCABULARY}; take all files of the checkpoint")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtifactError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(found, dict) or not found:
        raise ArtifactError(f"{path} names no tokens; take all files of the checkpoint")
    if any(isinstance(value, dict) for value in found.values()):
        raise ArtifactError(
            f"{path} has a vocabulary for each language, whose weights are adapters (MMS); they "
            "are not exported, take a checkpoint of one language"
        )
    tokenizer = source / "tokenizer_config.json"
    if tokenizer.is_file() and "Phoneme" in tokenizer.read_text(encoding="utf-8"):
        raise ArtifactError(f"{source} writes phonemes (its tokenizer says so), no words")
    return len(found)


def _check_extractor(source: Path) -> None:
    path = source / _PREPROCESSOR
    if not path.is_file():
        raise ArtifactError(f"{source} has no {_PREPROCESSOR}; take all files of the checkpoint")
    try:
        rate_hz = json.loads(path.read_text(encoding="utf-8")).get("sampling_rate", 16_000)
    except (ValueError, AttributeError) as error:
        raise ArtifactError(f"{path} cannot be read as JSON: {error}") from error
    if rate_hz != _SAMPLE_RATE_HZ:
        raise ArtifactError(f"{path}: sampling_rate is {rate_hz}, {_SAMPLE_RATE_HZ} is needed")


# Stored as float16, since treatments round products alone: 9 of wav2vec2-base's 95 million
# weights are in convolutions.
_HALVED = (
    Override("model.onnx:*[cC]onv*", "fp16", "no integer product multiplies convolutions here"),
    Override("model.onnx:onnx::Slice*", "fp16", "positions of wav2vec2-conformer, no product"),
    Override("model.onnx:*Expand*", "fp16", "positions of sew-d, multiplied head by head"),
)

FAMILY = replace(
    sherpa_pack.family(
        sherpa_pack.Pack(
            name="hf-ctc",
            artifact_family="omnilingual-asr-ctc",
            takes="Hugging Face checkpoint with CTC: wav2vec2, hubert, wavlm, data2vec-audio, ...",
            layout=Layout((Part("model"),), scores="model"),
            options=OPTIONS,
            keeps=_HALVED,
        )
    ),
    recognises=recognises,
    inspect=inspect,
    convert=convert,
)
