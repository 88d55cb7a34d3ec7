"""A self-contained HTML page of one export: no file beside it, no address in it.

Owns the page's content; the drawings are :mod:`edgevoice.export.front_chart`'s, the looks
:mod:`edgevoice.report_style`'s.
"""

from __future__ import annotations

import math
from datetime import datetime
from html import escape
from pathlib import Path

from edgevoice import host
from edgevoice.errors import ConfigError
from edgevoice.export import front_chart, gates, publish, recorded, summary
from edgevoice.export.candidates import Candidate
from edgevoice.export.pipeline import Outcome
from edgevoice.export.plan import Request
from edgevoice.quant.recipe import TensorChoice, by_type
from edgevoice.report_style import CSS
from edgevoice.whole_file import write_whole

MOST_TENSORS = 40
"""Rows of the table of tensors that stayed high; the manifest has them all."""
_HIGH = ("float32", "float16", "bfloat16", "F32", "F16", "BF16")


def write(path: Path, request: Request, outcome: Outcome) -> None:
    """Write the page; it appears whole, by a rename.

    Raises:
        ConfigError: The file cannot be written.
    """
    page = render(request, outcome, datetime.now().astimezone())
    try:
        write_whole(path, page.encode())
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error


def render(request: Request, outcome: Outcome, made_at: datetime) -> str:
    """Return the page of an export that ended at ``made_at``."""
    title = f"Export of {outcome.plan.source.name}"
    body = "".join(
        (
            f"<h1>{escape(title)}</h1>",
            f'<p class="soft">{made_at:%Y-%m-%d %H:%M %Z} · {escape(outcome.plan.facts.title)}</p>',
            _tiles(outcome),
            _charts(outcome),
            _table(outcome),
            "<h2>Gates</h2>",
            *(_gates(candidate) for candidate in outcome.candidates),
            "<h2>Tensors</h2>",
            *(_tensors(c) for c in outcome.candidates if c.written.tensors),
            _facts(request, outcome),
        )
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}{front_chart.CSS}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )


def _tiles(outcome: Outcome) -> str:
    passed = [c for c in outcome.candidates if c.passed and not c.scheme.is_float]
    smallest = min(passed, key=lambda c: c.bytes, default=None)
    fastest = min(
        (c for c in passed if not math.isnan(c.speed)), key=lambda c: c.speed, default=None
    )
    tiles = [
        (str(len(outcome.published)), "published"),
        (str(len(outcome.candidates)), "made and measured"),
        (summary.size(outcome.reference.bytes), "float"),
    ]
    if smallest is not None:
        tiles.append(
            (summary.size(smallest.bytes), f"smallest that passed, {smallest.scheme.name}")
        )
    if fastest is not None:
        tiles.append((f"{fastest.speed:.2f}", f"time over float, {fastest.scheme.name}"))
    cells = "".join(
        f'<div class="card"><b>{escape(value)}</b><span class="soft">{escape(name)}</span></div>'
        for value, name in tiles
    )
    return f'<div class="tiles">{cells}</div>'


def _charts(outcome: Outcome) -> str:
    stage = outcome.plan.family.stage
    found = summary.points(stage, outcome.reference, outcome.candidates)
    figure, ideal = gates.QUALITY[stage]
    bound = next((b for b in outcome.plan.bounds if b.figure == figure), None)
    allowed = abs(bound.value - ideal) if bound else 0.0
    loss = f"{figure} above float's" if ideal == 0.0 else f"{ideal:g} − {figure}"
    quality = front_chart.draw(found, [p.loss for p in found], f"{loss} (less is better)", allowed)
    speed = front_chart.draw(
        found, [p.time_ratio for p in found], "run time over float (less is better)", 1.0
    )
    key = "".join(
        f'<span><i style="background:var(--{colour})"></i>{name}</span>'
        for colour, name in (
            ("agent", "on the Pareto front of size, quality and run time"),
            ("user", "met its bounds"),
            ("bad", "missed a bound (hollow)"),
        )
    )
    return (
        '<h2>Size, quality, speed</h2><div class="charts">'
        f'<div class="card"><div class="chart">{quality}</div></div>'
        f'<div class="card"><div class="chart">{speed}</div></div></div>'
        f'<div class="key">{key}</div>'
    )


def _table(outcome: Outcome) -> str:
    head, *lines = summary.rows(outcome)
    headings = "".join(f"<th>{escape(h.capitalize())}</th>" for h in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>" for line in lines
    )
    return (
        f'<h2>Candidates</h2><div class="card wide"><table><tr>{headings}</tr>{body}</table></div>'
    )


def _gates(candidate: Candidate) -> str:
    name = escape(candidate.scheme.name)
    if candidate.failure:
        return (
            f'<div class="card"><h3>{name}</h3><p class="error">{escape(candidate.failure)}</p>'
            "</div>"
        )
    body = "".join(
        f"<tr><td>{escape(v['figure'])}</td><td>{_plain(v['measured'])}</td>"
        f"<td>{escape(v['allowed'])}</td>"
        f'<td class="{"met" if v["passed"] else "missed"}">'
        f"{'met' if v['passed'] else 'missed'}</td></tr>"
        for v in publish.verdicts(candidate)
    )
    judged = {v.bound.figure for v in candidate.verdicts}
    body += "".join(
        f"<tr><td>{escape(name)}</td><td>{_plain(recorded.number(value))}</td><td></td><td></td></tr>"
        for name, value in sorted(candidate.figures.items())
        if name not in judged
    )
    opened = "" if candidate.passed else " open"
    return (
        f"<details{opened}><summary>{name}: {escape(summary.gates_cell(candidate))}</summary>"
        f'<div class="card wide"><table><tr><th>Figure</th><th>Measured</th><th>Allowed</th>'
        f"<th></th></tr>{body}</table></div></details>"
    )


def _tensors(candidate: Candidate) -> str:
    total = sum(t.bytes for t in candidate.written.tensors) or 1
    shares = "".join(
        f"<tr><td>{escape(kind)}</td><td>{summary.size(count)}</td>"
        f'<td><span class="share" style="width:{120 * count / total:.0f}px"></span></td></tr>'
        for kind, count in by_type(candidate.written.tensors).items()
    )
    high = stayed_high(candidate)
    rows = "".join(
        f"<tr><td>{escape(t.name)}</td><td>{escape(t.type)}</td><td>{t.elements:,}</td>"
        f"<td>{summary.size(t.bytes)}</td></tr>"
        for t in high[:MOST_TENSORS]
    )
    notes = "".join(f'<p class="soft">{escape(note)}</p>' for note in candidate.written.notes)
    more = f", the {MOST_TENSORS} largest of them" if len(high) > MOST_TENSORS else ""
    return (
        f"<details><summary>{escape(candidate.scheme.name)}: {len(high)} of "
        f"{len(candidate.written.tensors)} tensors stayed high{more}</summary>"
        f'<div class="card wide">{notes}<table><tr><th>Type</th><th>Bytes</th><th></th></tr>'
        f"{shares}</table><table><tr><th>Tensor</th><th>Type</th><th>Weights</th><th>Bytes</th>"
        f"</tr>{rows}</table></div></details>"
    )


def stayed_high(candidate: Candidate) -> list[TensorChoice]:
    """Return the tensors that are written in more bits than most, largest first.

    Float types in a quantised artifact; for GGUF, every type but the one of most weights.
    """
    weights: dict[str, int] = {}
    for tensor in candidate.written.tensors:
        weights[tensor.type] = weights.get(tensor.type, 0) + tensor.elements
    usual = max(weights, key=lambda kind: weights[kind], default="")
    per_weight = {t.type: t.bytes / t.elements for t in candidate.written.tensors if t.elements}
    high = [
        t
        for t in candidate.written.tensors
        if t.type != usual
        and (t.type in _HIGH or per_weight.get(t.type, 0) > per_weight.get(usual, 0))
    ]
    return sorted(high, key=lambda t: -t.bytes)


def _facts(request: Request, outcome: Outcome) -> str:
    source = outcome.plan.source
    facts = {
        "source": f"{source.origin} {source.revision}".strip(),
        "licence": publish.licence(request, outcome.plan),
        "family": outcome.plan.family.name,
        "device": outcome.plan.device.title if outcome.plan.device is not None else "any",
        "threads": str(request.threads),
        "seed": str(request.seed),
        **host.facts(),
        **recorded.versions(),
    }
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in facts.items()
    )
    return f'<h2>Made with</h2><div class="card wide"><table class="facts">{rows}</table></div>'


def _plain(value: object) -> str:
    return "not measured" if value is None else f"{value:.4g}"
