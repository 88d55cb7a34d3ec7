"""The gates: figures of a candidate beside its float reference, and the bounds that they meet.

A measurement is a function of this shape, run in a child process (native code may abort, and a
child's peak memory is its own)::

    measure(reference: Path, candidate: Path, material: Path | None, threads: int) -> Figures

``reference`` and ``candidate`` are artifact folders with manifests; both are loaded by the
runtime's own engine, the one that will run them, and measured in turn (a, b, a, b...), so that a
noisy machine is noisy for both. ``material`` is the user's folder of recordings or text, None for
the default. Figures are plain numbers; a name says its unit, and ``*_ratio`` is candidate over
reference. A measurement that chose between engines may add a mapping under the key ``engine``: it
goes into the manifest's ``engine``, over what the family wrote there.

Owns bounds and verdicts; each stage's measurement lies in :mod:`edgevoice.export.checks`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from edgevoice.errors import refuse_unknown

Figures = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Bound:
    """``figure`` must be at most, or at least, ``value``.

    Attributes:
        asked: The user said so.
        format: Of the artifacts that it is for, "" for all.
    """

    figure: str
    relation: Literal["at most", "at least"]
    value: float
    why: str = ""
    asked: bool = False
    format: str = ""

    def holds(self, measured: float) -> bool:
        """Whether ``measured`` meets the bound; NaN never does."""
        if math.isnan(measured):
            return False
        return measured <= self.value if self.relation == "at most" else measured >= self.value


@dataclass(frozen=True, slots=True)
class Verdict:
    """One bound, and what was measured."""

    bound: Bound
    measured: float

    @property
    def passed(self) -> bool:
        """Whether the bound was met."""
        return self.bound.holds(self.measured)

    def __str__(self) -> str:
        mark = "met" if self.passed else "missed"
        came = "not measured" if math.isnan(self.measured) else f"{self.measured:.4g}"
        allowed = f"{self.bound.relation} {self.bound.value:g}"
        return f"{self.bound.figure} {came}, allowed {allowed}: {mark}"


_SIZE = Bound("size_ratio", "at most", 1.0, "an artifact that is no smaller is no gain")
# speed_ratio_low is the lower end of the 95 % interval of the paired ratio of run times: slower
# than float beyond what this machine's noise explains.
_SPEED = Bound("speed_ratio_low", "at most", 1.0, "slower than float fails like worse than float")
# Whisper tiny.en: at most 1.1 in int8 and in int4; SmolLM2-135M 1.2 in int8, 1.4 in int4. One scale
# for a whole tensor makes 4 to 27, a scale of zero or weights of another place 7 and more. Voices:
# Piper joe 1.2, Kokoro 1.4; onnxruntime's own quantize_dynamic, which gives a tensor one scale,
# makes 443 of Piper's.
_EXCESS = Bound(
    "weight_excess", "at most", 3.0, "error of the worst output column, over rounding's"
)

BOUNDS: Mapping[str, tuple[Bound, ...]] = {
    "recogniser": (
        Bound("wer_points", "at most", 1.0, "word error rate above float's, percentage points"),
        # Errors of both signs cancel in wer_points, here they add up. Whisper tiny.en, 39 LJ Speech
        # clips: 0.002 in int8, 0.039 in int4.
        Bound("disagreement", "at most", 0.10, "words written otherwise than float writes them"),
        _EXCESS,
        _SPEED,
        _SIZE,
    ),
    "language-model": (
        Bound("kl_divergence", "at most", 0.15, "mean nats per token between next-token choices"),
        Bound("same_top_token", "at least", 0.80, "share of tokens where the first choice is kept"),
        Bound("perplexity_ratio", "at most", 1.10),
        Bound("prefill_ratio_low", "at most", 1.0, "run time per token of the prompt"),
        Bound("decode_ratio_low", "at most", 1.0, "run time per token of the answer"),
        # A GGUF file's damage ends its measurement instead (quant.drift).
        replace(_EXCESS, format="onnx"),
        _SIZE,
    ),
    "speech": (
        Bound("wer_points", "at most", 1.0, "of Whisper on what it says, above float's"),
        Bound("log_mel_distance_db", "at most", 4.0, "Kokoro has 3.0 in int8; Piper is stricter"),
        Bound("duration_ratio", "at most", 1.1),
        Bound("duration_ratio", "at least", 0.9),
        Bound("level_difference_db", "at most", 1.5),
        Bound("clipped_share", "at most", 0.001),
        _EXCESS,
        _SPEED,
        _SIZE,
    ),
    "vad": (
        Bound("agreement", "at least", 0.99, "windows judged alike"),
        _SPEED,
        _SIZE,
    ),
    "end-of-turn": (
        Bound("agreement", "at least", 0.97, "clips judged alike"),
        _SPEED,
        _SIZE,
    ),
    "speaker": (
        Bound("cosine", "at least", 0.98, "of the recording where the embeddings differ most"),
        _SPEED,
        _SIZE,
    ),
    "wake-word": (
        Bound("agreement", "at least", 0.999, "moments judged alike; a false call is a nuisance"),
        Bound("score_difference", "at most", 0.05, "at the moment where the scores differ most"),
        Bound("embedding_cosine", "at least", 0.99, "a head that hears no wake word agrees anyway"),
        _SPEED,
        _SIZE,
    ),
}


COMMON: tuple[Bound, ...] = (
    Bound("non_finite_weights", "at most", 0, "tensors with NaN, or with infinity outside a mask"),
    Bound("missing_files", "at most", 0, "files beside the weights that the float artifact has"),
    Bound("missing_metadata", "at most", 0, "keys that the float artifact's files carry"),
    Bound("memory_ratio", "at most", 1.5, "peak of a load; fp16 storage is widened while it loads"),
    Bound("load_extra_s", "at most", 5.0, "load time above float's"),
)
"""Bounds of every stage, on figures that the exporter measures itself."""

QUALITY: Mapping[str, tuple[str, float]] = {
    "recogniser": ("wer_points", 0.0),
    "language-model": ("kl_divergence", 0.0),
    "speech": ("log_mel_distance_db", 0.0),
    "vad": ("agreement", 1.0),
    "end-of-turn": ("agreement", 1.0),
    "speaker": ("cosine", 1.0),
    "wake-word": ("embedding_cosine", 1.0),
}
"""The figure by which candidates of a stage are compared, and what float itself has."""

SPEED = ("speed_ratio", "decode_ratio", "speed_ratio_low", "decode_ratio_low")
"""Run time over float's: the first of these that was measured."""


def bounds_for(
    stage: str, overrides: Mapping[str, float], artifact_format: str = "onnx"
) -> tuple[Bound, ...]:
    """Return the bounds of ``stage`` with the values that the user set.

    Raises:
        ConfigError: An override names a figure that this stage does not bound.
    """
    return _with(_of(stage, artifact_format), overrides)


def all_bounds(
    stage: str,
    overrides: Mapping[str, float],
    family: Mapping[str, float] | None = None,
    artifact_format: str = "onnx",
) -> tuple[Bound, ...]:
    """Return what an export is held against: the bounds of ``stage`` and :data:`COMMON`.

    Args:
        stage: A key of :data:`BOUNDS`.
        overrides: The user's values, which stand above all others.
        family: The family's own values, which stand above the stage's.
        artifact_format: The manifest's.

    Raises:
        ConfigError: An override names a figure that none of them bounds.
    """
    known = tuple(
        replace(b, value=(family or {}).get(b.figure, b.value))
        for b in (*_of(stage, artifact_format), *COMMON)
    )
    return _with(known, overrides)


def _of(stage: str, artifact_format: str) -> tuple[Bound, ...]:
    return tuple(b for b in BOUNDS[stage] if b.format in ("", artifact_format))


def _with(bounds: Sequence[Bound], overrides: Mapping[str, float]) -> tuple[Bound, ...]:
    refuse_unknown("bound", overrides, (b.figure for b in bounds))
    chosen = list(bounds)
    for figure, value in overrides.items():
        # A figure that is bounded on both sides gets the nearer side moved.
        at = min(
            (i for i, b in enumerate(bounds) if b.figure == figure),
            key=lambda i: abs(bounds[i].value - value),
        )
        chosen[at] = replace(bounds[at], value=value, asked=True)
    return tuple(chosen)


def table() -> str:
    """Return all bounds as a Markdown table, for the documentation."""
    lines = ["| stage | figure | allowed | |", "| --- | --- | --- | --- |"]
    for stage, bounds in (*BOUNDS.items(), ("every stage", COMMON)):
        lines += [
            f"| {f'{stage} ({b.format})' if b.format else stage} | `{b.figure}` "
            f"| {b.relation} {b.value:g} | {b.why} |"
            for b in bounds
        ]
    return "\n".join(lines)


def judge(figures: Figures, bounds: Sequence[Bound]) -> tuple[Verdict, ...]:
    """Hold ``figures`` against ``bounds``; a figure that was not measured is NaN, and misses."""
    return tuple(Verdict(b, float(figures.get(b.figure, math.nan))) for b in bounds)


if __name__ == "__main__":
    print(table())
