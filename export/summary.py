"""An export's figures as rows: for the table on stdout, the JSON, and the report.

Owns the choice of the columns and the Pareto front; nothing is measured here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgevoice.export import candidates, gates, publish, recorded
from edgevoice.export.candidates import Candidate, Footprint
from edgevoice.export.gates import Bound
from edgevoice.export.pipeline import Outcome
from edgevoice.export.plan import Plan
from edgevoice.quant.recipe import by_type

MB = 1_000_000
HEADINGS = ("SCHEME", "SIZE", "OF FLOAT", "TIME", "QUALITY", "LOAD", "MEMORY", "GATES", "")


@dataclass(frozen=True, slots=True)
class Point:
    """One way to write the model; ``loss`` and ``time_ratio`` are better when they are smaller.

    Attributes:
        loss: Distance of the stage's quality figure from float's.
        time_ratio: Run time over float's.
        front: No other that met its bounds is as good in all three and better in one.
    """

    name: str
    bytes: int
    loss: float
    time_ratio: float
    passed: bool
    front: bool = False


def points(stage: str, reference: Footprint, found: Sequence[Candidate]) -> tuple[Point, ...]:
    """Return float and every measured candidate, smallest first, with the front marked."""
    plain = [Point("float", reference.bytes, 0.0, 1.0, True)]
    plain += [
        Point(c.scheme.name, c.bytes, c.quality_loss(stage), c.speed, c.passed)
        for c in found
        if c.figures and not c.scheme.is_float
    ]
    good = [p for p in plain if p.passed]
    return tuple(
        Point(
            p.name,
            p.bytes,
            p.loss,
            p.time_ratio,
            p.passed,
            p.passed and not any(_dominates(o, p) for o in good),
        )
        for p in sorted(plain, key=lambda p: p.bytes)
    )


def _dominates(one: Point, other: Point) -> bool:
    mine = (one.bytes, one.loss, one.time_ratio)
    theirs = (other.bytes, other.loss, other.time_ratio)
    return all(a <= b for a, b in zip(mine, theirs, strict=True)) and mine != theirs


def rows(outcome: Outcome) -> list[list[str]]:
    """Return the table of an export, headings first."""
    stage = outcome.plan.family.stage
    front = {p.name for p in points(stage, outcome.reference, outcome.candidates) if p.front}
    reference = outcome.reference
    table = [list(HEADINGS)]
    table.append(
        [
            "float",
            size(reference.bytes),
            "1.00",
            "1.00",
            "-",
            f"{reference.load_s:.2f} s",
            f"{reference.peak_memory_mb:.0f} MiB",
            "-",
            "",
        ]
    )
    for candidate in outcome.candidates:
        place = outcome.published.get(candidate.scheme.name)
        remark = f"-> {place.name}" if place else ""
        if candidate.scheme.name in front and len(outcome.candidates) > 1:
            remark = f"{remark} (front)".strip()
        table.append(row(candidate, stage, remark))
    return table


def row(candidate: Candidate, stage: str, remark: str = "") -> list[str]:
    """Return one candidate's row."""
    figures = candidate.figures
    quality = gates.QUALITY[stage][0]
    return [
        candidate.scheme.name,
        size(candidate.bytes) if candidate.files else "-",
        cell(figures.get("size_ratio")),
        cell(candidate.speed if figures else None),
        f"{quality} {cell(figures.get(quality), 4)}" if figures else "-",
        f"{cell(figures.get('load_s'))} s" if figures else "-",
        f"{cell(figures.get('peak_memory_mb'), 0)} MiB" if figures else "-",
        gates_cell(candidate),
        remark,
    ]


def gates_cell(candidate: Candidate) -> str:
    """Return "7 met", or the figures that were missed."""
    if candidate.failure:
        return "failed"
    missed = [v.bound.figure for v in candidate.verdicts if not v.passed]
    return f"missed {', '.join(missed)}" if missed else f"{len(candidate.verdicts)} met"


def cell(value: float | None, digits: int = 2) -> str:
    """Return ``value`` rounded, "-" when there is none."""
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def size(count: float) -> str:
    """Return a size in megabytes that a reader can compare."""
    return f"{count / MB:.1f} MB" if count < 100 * MB else f"{count / MB:.0f} MB"


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """Return an export's outcome as plain JSON values."""
    stage = outcome.plan.family.stage
    front = {p.name for p in points(stage, outcome.reference, outcome.candidates) if p.front}
    return {
        "source": outcome.plan.source.origin,
        "family": outcome.plan.family.name,
        "stage": stage,
        "reference": {
            "bytes": outcome.reference.bytes,
            "load_s": recorded.number(outcome.reference.load_s),
            "peak_memory_mb": recorded.number(outcome.reference.peak_memory_mb),
        },
        "candidates": [
            candidate_json(c) | {"front": c.scheme.name in front} for c in outcome.candidates
        ],
        "published": {name: str(path) for name, path in outcome.published.items()},
        "refused": [scheme.name for scheme in outcome.refused],
    }


def candidate_json(candidate: Candidate) -> dict[str, Any]:
    """Return a candidate's figures and verdicts as plain JSON values."""
    return {
        "scheme": candidate.scheme.name,
        "asked_for": candidate.asked.name,
        "passed": candidate.passed,
        "failure": candidate.failure,
        "bytes": candidate.bytes,
        "figures": {name: recorded.number(v) for name, v in candidate.figures.items()},
        "verdicts": publish.verdicts(candidate),
        "notes": list(candidate.written.notes),
        "bytes_by_type": dict(by_type(candidate.written.tensors)),
    }


def plan_json(plan: Plan, free_disk: int, free_memory_mb: int) -> dict[str, Any]:
    """Return a plan as plain JSON values."""
    return {
        "source": plan.source.origin,
        "family": plan.family.name,
        "title": plan.facts.title,
        "parameters": plan.facts.parameters,
        "detail": dict(plan.facts.detail),
        "source_bytes": plan.facts.source_bytes,
        "float_bytes": plan.float_bytes,
        "device": plan.device.name if plan.device is not None else "",
        "weight_bits": plan.weight_bits,
        "steps": [
            {
                "scheme": s.scheme.name,
                "bytes": s.bytes,
                "fallbacks": [f.name for f in s.fallbacks],
            }
            for s in plan.steps
        ],
        "gates": [bound_json(b) for b in plan.bounds],
        "disk_bytes": plan.disk_bytes,
        "free_disk_bytes": free_disk,
        "memory_mb": plan.facts.peak_memory_bytes >> 20,
        "free_memory_mb": free_memory_mb,
        "seconds": round(plan.seconds),
        "not_read": [str(p) for p in plan.pickled],
    }


def bound_json(bound: Bound) -> Mapping[str, Any]:
    """Return one bound as plain JSON values."""
    return {
        "figure": bound.figure,
        "relation": bound.relation,
        "value": bound.value,
        "why": bound.why,
    }


def plan_lines(plan: Plan, free_disk: int, free_memory_mb: int) -> list[str]:
    """Return a plan for people."""
    facts = plan.facts
    parameters = f", {facts.parameters / 1e6:.1f} million weights" if facts.parameters else ""
    lines = [
        f"source    {plan.source.origin}",
        f"family    {plan.family.name} ({plan.family.stage}): {facts.title}{parameters}",
        *(f"          {key}: {value}" for key, value in facts.detail.items()),
        *(f"          {p.name} is a pickle and is not read" for p in plan.pickled),
        f"float     about {size(plan.float_bytes)}, from {size(facts.source_bytes)}",
    ]
    if plan.device is not None:
        lines.append(f"device    {plan.device.name}: {plan.device.title}{_narrowed(plan)}")
    for step in plan.steps:
        then = ", ".join(f.name for f in step.fallbacks) or "nothing"
        lines.append(
            f"scheme    {step.scheme.name}: about {size(step.bytes)}; {step.scheme.summary}; "
            f"if a gate fails: {then}"
        )
    for step in plan.steps[:1]:
        for bound in candidates.bounds_of(step.scheme, plan.bounds):
            why = f" ({bound.why})" if bound.why else ""
            lines.append(f"gate      {bound.figure} {bound.relation} {bound.value:g}{why}")
    memory = facts.peak_memory_bytes >> 20
    lines += [
        f"disk      about {size(plan.disk_bytes)} while it runs, {size(free_disk)} free",
        f"memory    about {memory} MiB, {free_memory_mb} MiB available"
        if memory
        else f"memory    not known, {free_memory_mb} MiB available",
        f"time      {_span(plan.seconds)}, give or take a factor of three: 50 MB of weights a "
        "second to convert and again to quantise, and the stage's measurement, as on two x86-64 "
        "cores; fallbacks come on top",
    ]
    return lines


def _narrowed(plan: Plan) -> str:
    if plan.weight_bits == 8:
        return ""
    return f"; int8 weights in {plan.weight_bits} bits: it has no VNNI, and 8 would overflow"


def _span(seconds: float) -> str:
    return f"about {seconds:.0f} s" if seconds < 120 else f"about {seconds / 60:.0f} minutes"
