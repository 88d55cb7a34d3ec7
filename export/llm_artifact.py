"""Makes a language model's ONNX artifact: traced, rewritten, held against torch, quantised.

The steps of the family `onnx-llm`; each has a module of its own (``llm_trace``, ``llm_tidy``,
``llm_graph``, and those of :mod:`edgevoice.quant`). Needs onnx and tokenizers.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from tokenizers import Tokenizer

from edgevoice.errors import ArtifactError, ConfigError, ExportError
from edgevoice.export import llm_tidy, llm_trace, torch_program
from edgevoice.export.families.onnx_llm import MOST_POSITIONS, TOKENIZER
from edgevoice.export.family import Job, Written
from edgevoice.export.graph_wires import Unrecognised
from edgevoice.export.llm_graph import Heads, fuse_attention
from edgevoice.quant import activations, float16, tensors, treatments
from edgevoice.quant.recipe import INT8, KEEP, Recipe
from edgevoice.quant.scheme import SCHEMES, Scheme

FILE = "model.onnx"
CALIBRATION_TOKENS = 768
_WINDOW_TOKENS = 256
# The largest difference to torch's logits, over the logits' own spread: float32 sums in another
# order. SmolLM2-135M: 3e-5; a rotation or a mask that is wrong: above 0.1.
TOLERANCE = 1e-3


def convert(source: Path, out: Path, job: Job) -> Written:
    """Write ``out/model.onnx`` in float32; see :class:`edgevoice.export.family.Family`.

    Raises:
        ArtifactError: The checkpoint has no chat template, or weights that are no numbers.
        ConfigError: An option cannot be used as written.
        ExportError: optimum fails, the graph is not as expected, or computes something else.
        MissingDependencyError: torch and optimum cannot be installed.
    """
    traced = job.work / "optimum"
    torch_program.run(llm_trace.PROGRAM, source, traced, job)
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


def quantise(
    reference: Path,
    scheme: Scheme,
    recipe: Recipe,
    out: Path,
    job: Job,
) -> Written:
    """Write ``out/model.onnx`` in ``scheme``; see :class:`edgevoice.export.family.Family`.

    Raises:
        ConfigError: An override asks for what this family does not write.
    """
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
    chosen = treatments.choose(model, recipe, scheme.name)
    operators = ("MatMul", "Gather")
    rounded = treatments.round_products(
        model, chosen, operators=operators, importance=importance, largest=scheme.largest
    )
    # A matrix that is embedding and logits at once has no dynamic form.
    left = {name for name in chosen if chosen[name] == INT8} - set(rounded.get(INT8, ()))
    blocks = treatments.round_products(
        model, dict.fromkeys(left, "int8-weights"), operators=operators
    )
    for treatment, names in rounded.items():
        if treatment == INT8:
            tied = sum(map(len, blocks.values()))
            notes.append(f"{len(names)} matrices in int8, {tied} in blocks of 8 bits")
        else:
            bits = SCHEMES[treatment].bits
            notes.append(f"{len(names)} matrices in blocks of {bits:g} bits")
    kept = [name for name, treatment in chosen.items() if treatment == KEEP]
    # Angles of far positions need float32's digits.
    stored = float16.store(model, (*map(escape, kept), "rotation_*"))
    if stored:
        notes.append(f"{len(stored)} tensors stored as float16")


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
