"""Figures of a language model beside its float reference: what it chooses, and how fast.

Quality is the KL divergence of the next-token choices on text that no calibration has seen
(llama.cpp's ``--kl-divergence``, Mean KLD and Same top p). Speed is the runtime's own engine at
its own settings, reading a prompt and answering it, both models in turn.

An engine takes part with one line in :data:`SCORERS`: a function of an artifact's folder and a
number of threads that returns a :class:`edgevoice.quant.divergence.Scorer`.
"""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgevoice import manifest
from edgevoice.engines.language_model import load_language_model
from edgevoice.errors import ConfigError, unknown
from edgevoice.export import paired
from edgevoice.export.calibration import Calibration, default_sentences
from edgevoice.export.checks import costs, weights
from edgevoice.export.gates import Figures
from edgevoice.quant import divergence, drift
from edgevoice.quant.divergence import Divergence, Scorer
from edgevoice.settings import LanguageModelSettings
from edgevoice.stages import LanguageModel, Message

SCORERS: Mapping[str, str] = {
    "gguf": "edgevoice.quant.gguf_scores:open_scorer",
    "onnx-llm": "edgevoice.engines.onnx_llm:open_scorer",
}
"""``module:function`` by the manifest's family: ``(artifact: Path, threads: int) -> Scorer``."""

WINDOW_TOKENS = 256
MOST_TOKENS = 2048
PAIRS = 7
_ANSWER_TOKENS = 20
_CONTEXT_TOKENS = 512
# Two prompts of equal length that differ from the start: each is read again after the other.
_SYSTEMS = ("You are a helpful assistant. Keep answers short.", "Tell long stories. Be very kind.")
_QUESTION = (
    "I have a garden behind the house with two old apple trees, a pond, and a wall that is warm "
    "in the evening. Tell me what I could plant along the wall, what the trees need in winter, "
    "and how to keep the pond clear, step by step, with a reason for each step."
)


def measure(reference: Path, candidate: Path, material: Path | None, threads: int) -> Figures:
    """Measure ``candidate`` beside ``reference``; see :mod:`edgevoice.export.gates`.

    Args:
        reference: The float artifact's folder.
        candidate: The other's; of the same vocabulary, whatever its engine.
        material: A folder with ``*.txt``, None for the project's own held-out text.
        threads: For both.

    Raises:
        ArtifactError: One of them cannot be loaded, or a weight is damaged; the line names it.
        ConfigError: The vocabularies differ, or an engine offers no scorer.
    """
    damage = compare_weights(reference, candidate)
    judged = compare_text(reference, candidate, held_out(material), threads, MOST_TOKENS)
    prefill, decode, load_s = compare_speed(reference, candidate, threads)
    return {
        "kl_divergence": judged.kl,
        "kl_divergence_99": judged.kl_99,
        "same_top_token": judged.same_top,
        "perplexity": judged.perplexity,
        "perplexity_ratio": judged.perplexity_ratio,
        "tokens": float(judged.tokens),
        "prefill_ratio": prefill.median,
        "prefill_ratio_low": prefill.low,
        "decode_ratio": decode.median,
        "decode_ratio_low": decode.low,
        "decode_tokens_per_s": 1.0 / decode.second_s if decode.second_s else math.nan,
        **damage,
        "size_ratio": costs.size_ratio(reference, candidate),
        "load_s": load_s,
    }


def held_out(material: Path | None) -> tuple[str, ...]:
    """Return text to judge with: the user's, or the project's that is in no calibration."""
    return Calibration(material).sentences() if material else default_sentences("held-out")


def compare_weights(reference: Path, candidate: Path) -> Figures:
    """Look for damage that a text may not touch; nothing where the formats differ.

    Returns:
        ``weight_error_max`` of GGUF files; of ONNX, what
        :func:`edgevoice.export.checks.weights.compare` says.

    Raises:
        ArtifactError: A tensor of a GGUF file is missing or damaged.
        MissingDependencyError: onnx is not installed.
    """
    described = [manifest.read(artifact) for artifact in (reference, candidate)]
    formats = {artifact.format for artifact in described}
    if formats == {"onnx"}:
        return weights.compare(reference, candidate)
    if formats != {"gguf"}:
        return {}
    first, second = (
        folder / artifact.file(".gguf").path
        for folder, artifact in zip((reference, candidate), described, strict=True)
    )
    found = drift.check(first, second)
    return {"weight_error_max": max(tensor.error for tensor in found.values())}


def compare_text(
    reference: Path,
    candidate: Path,
    sentences: Sequence[str],
    threads: int,
    most_tokens: int = MOST_TOKENS,
) -> Divergence:
    """Compare the choices of two artifacts on ``sentences``.

    Raises:
        ArtifactError: One of them cannot be loaded.
        ConfigError: The vocabularies differ, or an engine offers no scorer.
    """
    first = open_scorer(reference, threads)
    try:
        second = open_scorer(candidate, threads)
        try:
            if first.vocabulary_size != second.vocabulary_size:
                raise ConfigError(
                    f"{candidate} has a vocabulary of {second.vocabulary_size}, the reference "
                    f"one of {first.vocabulary_size}; compare it with its own float model"
                )
            tokens = first.tokenise("\n".join(sentences))[:most_tokens]
            return divergence.compare(first, second, _windows(tokens))
        finally:
            second.close()
    finally:
        first.close()


def compare_speed(
    reference: Path, candidate: Path, threads: int
) -> tuple[paired.PairedRatio, paired.PairedRatio, float]:
    """Return the ratios of prefill and decode times per token, and the candidate's load time."""
    settings = LanguageModelSettings(
        context_tokens=_CONTEXT_TOKENS, threads=threads, max_answer_tokens=_ANSWER_TOKENS
    )
    first = load_language_model(reference, settings)
    begun = time.perf_counter()
    second = load_language_model(candidate, settings)
    load_s = time.perf_counter() - begun
    runs = [_Runs(model.open()) for model in (first, second)]
    try:
        for run in runs:
            run.both()
        for number in range(PAIRS):
            # Each pair in the other order than the one before it.
            for run in runs if number % 2 else reversed(runs):
                run.both()
    finally:
        for run in runs:
            run.close()
        first.close()
        second.close()
    prefill, decode = (
        paired.summarise(list(zip(getattr(runs[0], of), getattr(runs[1], of), strict=True))[1:])
        for of in ("prefill_s", "decode_s")
    )
    return prefill, decode, load_s


def open_scorer(artifact: Path, threads: int) -> Scorer:
    """Load ``artifact`` to score text with, by its manifest's family.

    Raises:
        ArtifactError: It cannot be loaded.
        ConfigError: Its engine offers no scorer.
    """
    family = manifest.read(artifact).family
    if family not in SCORERS:
        raise ConfigError(unknown("language model family", family, SCORERS))
    module, _, function = SCORERS[family].partition(":")
    opened: Scorer = getattr(importlib.import_module(module), function)(artifact, threads)
    return opened


class _Runs:
    """One conversation and the seconds per token that it took, each time on another prompt."""

    def __init__(self, conversation: LanguageModel) -> None:
        self._conversation = conversation
        self.prefill_s: list[float] = []
        self.decode_s: list[float] = []

    def both(self) -> None:
        system = _SYSTEMS[len(self.prefill_s) % 2]
        prompt = [Message("system", system), Message("user", _QUESTION)]
        begun = time.perf_counter()
        evaluated = self._conversation.prefill(prompt)
        self.prefill_s.append((time.perf_counter() - begun) / max(evaluated, 1))
        begun = time.perf_counter()
        pieces = sum(1 for _ in self._conversation.generate(prompt))
        # A model that answers nothing at all has no speed.
        self.decode_s.append((time.perf_counter() - begun) / pieces if pieces else math.nan)

    def close(self) -> None:
        self._conversation.close()


def _windows(tokens: Sequence[int]) -> list[Sequence[int]]:
    cut = [tokens[i : i + WINDOW_TOKENS] for i in range(0, len(tokens), WINDOW_TOKENS)]
    return [window for window in cut if len(window) > 1]
