"""One candidate: built or taken up again, loaded and measured in child processes, judged.

Owns the figures that every stage shares (size, load time, peak memory, sound weights, nothing
lost). The stage's own come from the family's checker (:mod:`edgevoice.export.gates`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgevoice import manifest
from edgevoice.errors import ExportError
from edgevoice.export import gates, soundness
from edgevoice.export.family import Family, Written
from edgevoice.export.gates import Bound, Verdict
from edgevoice.manifest import ArtifactFile, Manifest
from edgevoice.progress import Meter, silent
from edgevoice.quant import child
from edgevoice.quant.scheme import Scheme

LOAD_TIMEOUT_S = 600.0
MEASURE_TIMEOUT_S = 3600.0
_MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Footprint:
    """What the artifact in ``folder`` costs and holds.

    Attributes:
        load_s: Of the runtime's own load, in a fresh process.
        peak_memory_mb: Of that process, MiB.
        non_finite: Tensors with NaN, or with infinity outside a mask.
        metadata: Keys that the files carry.
    """

    folder: Path
    files: tuple[ArtifactFile, ...]
    load_s: float
    peak_memory_mb: float
    non_finite: tuple[str, ...]
    metadata: frozenset[str]

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(f.size for f in self.files)


@dataclass(frozen=True, slots=True)
class Candidate:
    """What one scheme made of the model, and how it stood the gates.

    Attributes:
        scheme: How it is written.
        asked: The scheme for which it was made; another one when it is a fallback.
        folder: Its files; None when there are none (its making failed).
        written: What the family says of them.
        files: Hashed.
        figures: Everything that was measured.
        engine: What the checker adds to the manifest's ``engine``.
        verdicts: One a bound.
        failure: Why it could not be made or measured, "" when it was.
    """

    scheme: Scheme
    asked: Scheme
    folder: Path | None = None
    written: Written = field(default_factory=Written)
    files: tuple[ArtifactFile, ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)
    engine: Mapping[str, Any] = field(default_factory=dict)
    verdicts: tuple[Verdict, ...] = ()
    failure: str = ""

    @property
    def passed(self) -> bool:
        """Whether every bound was met."""
        return not self.failure and all(v.passed for v in self.verdicts)

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(f.size for f in self.files)

    @property
    def why_not(self) -> str:
        """One line: what failed, or the bounds that were missed."""
        return self.failure or "; ".join(str(v) for v in self.verdicts if not v.passed)

    def quality_loss(self, stage: str) -> float:
        """Return how much worse than float's the stage's quality figure is; NaN if not measured.

        Better than float counts as no loss: it is the noise of what was measured on.
        """
        figure, ideal = gates.QUALITY[stage]
        loss = self.figures.get(figure, math.nan) - ideal
        return max(-loss if ideal else loss, 0.0)  # in this order NaN stays NaN

    @property
    def speed(self) -> float:
        """Run time over float's; NaN if not measured."""
        if self.scheme.is_float:
            return 1.0
        found = (self.figures[name] for name in gates.SPEED if name in self.figures)
        return next(found, math.nan)


def footprint(folder: Path, what: str, threads: int, meter: Meter = silent) -> Footprint:
    """Load and look through the artifact in ``folder``, in child processes.

    Raises:
        ExportError: It cannot be loaded by its engine, or its files cannot be read.
    """
    described = manifest.read(folder)
    with meter(f"load {what}", None) as advance:
        came = child.run(
            "edgevoice.export.footprint:inspect",
            {"folder": folder, "threads": threads},
            f"loading {what}",
            timeout_s=LOAD_TIMEOUT_S,
            advance=advance,
        )
    return Footprint(
        folder,
        described.files,
        float(came["load_s"]),
        float(came["peak_memory_mb"]),
        tuple(came["non_finite"]),
        frozenset(came["metadata"]),
    )


def measure(
    candidate: Candidate,
    reference: Footprint,
    *,
    family: Family,
    bounds: tuple[Bound, ...],
    material: Path | None,
    threads: int,
    meter: Meter = silent,
) -> Candidate:
    """Return ``candidate`` (its folder has a manifest) with figures and verdicts.

    A child that crashes is the candidate's failure, not the exporter's.
    """
    assert candidate.folder is not None
    name = candidate.scheme.name
    try:
        own = footprint(candidate.folder, name, threads, meter)
        with meter(f"measure {name}", None) as advance:
            came = child.run(
                family.checker,
                {
                    "reference": reference.folder,
                    "candidate": candidate.folder,
                    "material": material,
                    "threads": threads,
                },
                f"measuring {name}",
                timeout_s=MEASURE_TIMEOUT_S,
                advance=advance,
            )
    except ExportError as error:
        return replace(candidate, failure=str(error))
    engine = came.pop("engine", {})
    figures = {key: float(value) for key, value in came.items()}
    figures |= _common(own, reference)
    verdicts = gates.judge(figures, bounds_of(candidate.scheme, bounds))
    return replace(candidate, figures=figures, engine=engine, verdicts=verdicts)


def bounds_of(scheme: Scheme, bounds: tuple[Bound, ...]) -> tuple[Bound, ...]:
    """Return the bounds that ``scheme`` has to meet: its own values where the user set none.

    The float artifact is its own reference: its run time beside itself is noise, and one in forty
    such intervals would lie above 1.
    """
    if not scheme.is_float:
        return tuple(
            b if b.asked else replace(b, value=scheme.bounds.get(b.figure, b.value)) for b in bounds
        )
    return tuple(b for b in bounds if not b.figure.endswith("_ratio_low"))


def note_on_weights(found: Footprint) -> str:
    """Return a line that names tensors that are not finite, "" when all are."""
    if not found.non_finite:
        return ""
    more = len(found.non_finite) - _MOST_NAMED
    named = ", ".join(found.non_finite[:_MOST_NAMED])
    return f"NaN or infinity in {named}{f' and {more} more' if more > 0 else ''}"


def artifact(
    family: Family, name: str, scheme: str, folder: Path, written: Written, **rest: Any
) -> Manifest:
    """Return the manifest of the files in ``folder``; what ``written`` says of its scheme wins."""
    from edgevoice.store import describe

    return Manifest(
        name=name,
        stage=family.stage,
        family=family.artifact_family,
        format=family.format,
        scheme=written.scheme or scheme,
        files=describe(folder),
        tensors={choice.name: choice.type for choice in written.tensors},
        **{"licence": "", "source": "", "engine": dict(written.engine), **rest},
    )


def _common(own: Footprint, reference: Footprint) -> dict[str, float]:
    there = {f.path for f in own.files if f.size}
    beside = {f.path for f in reference.files if Path(f.path).suffix not in soundness.WEIGHTS}
    return {
        "size_bytes": float(own.bytes),
        "reference_bytes": float(reference.bytes),
        "size_ratio": own.bytes / reference.bytes,
        "load_s": own.load_s,
        "load_extra_s": own.load_s - reference.load_s,
        "peak_memory_mb": own.peak_memory_mb,
        "memory_ratio": own.peak_memory_mb / reference.peak_memory_mb,
        "non_finite_weights": float(len(own.non_finite)),
        "missing_files": float(len(beside - there)),
        "missing_metadata": float(len(reference.metadata - own.metadata)),
    }
