"""Draws candidates as SVG: size against quality and against run time, and the Pareto front.

Colours are CSS classes of :mod:`edgevoice.report_style` and the report's own, so that one page
serves light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from edgevoice.export.summary import MB, Point

WIDTH = 560
HEIGHT = 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 30, 18, 46
_TICKS = 5
_CHARACTER = 6.4

CSS = """
svg.front { min-width:420px; } .charts { display:grid; gap:12px;
  grid-template-columns:repeat(auto-fit,minmax(440px,1fr)); }
.front .grid { stroke:var(--line); } .front .line { fill:none; stroke:var(--agent);
  stroke-width:1.5; stroke-dasharray:5 4; }
.front circle { fill:var(--user); stroke:var(--card); stroke-width:1.5; }
.front circle.on { fill:var(--agent); } .front circle.missed { fill:var(--card);
  stroke:var(--bad); stroke-width:2; }
.front .name { fill:var(--ink); font-size:12px; }
td.missed { color:var(--bad); } td.met { color:inherit; }
.share { display:inline-block; height:9px; border-radius:3px; background:var(--user); }
"""


def draw(points: Sequence[Point], values: Sequence[float], axis: str, bound: float = 0.0) -> str:
    """Return a drawing of size (x, from zero) against ``values`` (y, smaller is better).

    Args:
        points: What is drawn, one a value; those whose value is NaN are left out.
        values: The y of each point.
        axis: What y is.
        bound: Drawn as a line when it is positive.
    """
    shown = [(p, v) for p, v in zip(points, values, strict=True) if not math.isnan(v)]
    right = max((p.bytes for p, _ in shown), default=1) / MB * 1.05
    top = max([v for _, v in shown] + [bound, 1e-9]) * 1.15

    def x(megabytes: float) -> float:
        return _LEFT + megabytes / right * (WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return HEIGHT - _BOTTOM - max(0.0, value) / top * (HEIGHT - _TOP - _BOTTOM)

    parts = [_axes(x, y, right, top, axis)]
    if bound > 0:
        parts.append(
            f'<line class="mark" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y(bound):.1f}" '
            f'y2="{y(bound):.1f}"/><text x="{WIDTH - _RIGHT}" y="{y(bound) - 4:.1f}" '
            f'text-anchor="end">allowed {bound:g}</text>'
        )
    front = [(x(p.bytes / MB), y(v)) for p, v in shown if p.front]
    if len(front) > 1:
        path = "L".join(f"{a:.1f},{b:.1f}" for a, b in sorted(front))
        parts.append(f'<path class="line" d="M{path}"/>')
    taken: list[tuple[float, float, float]] = []
    for point, value in shown:
        parts.append(_dot(point, value, x(point.bytes / MB), y(value), taken))
    return (
        f'<svg class="front" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
        f"<title>Size against {escape(axis)}</title>{''.join(parts)}</svg>"
    )


def _axes(x: object, y: object, right: float, top: float, axis: str) -> str:
    assert callable(x)
    assert callable(y)
    parts = []
    for step in range(_TICKS + 1):
        size, value = right * step / _TICKS, top * step / _TICKS
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y(value):.1f}" '
            f'y2="{y(value):.1f}"/><text x="{_LEFT - 6}" y="{y(value) + 4:.1f}" '
            f'text-anchor="end">{value:.3g}</text><text x="{x(size):.1f}" '
            f'y="{HEIGHT - _BOTTOM + 16}" text-anchor="middle">{size:.3g}</text>'
        )
    parts.append(
        f'<text x="{(WIDTH + _LEFT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">size, MB</text>'
        f'<text x="{_LEFT}" y="11">{escape(axis)}</text>'
    )
    return "".join(parts)


def _dot(
    point: Point, value: float, x: float, y: float, taken: list[tuple[float, float, float]]
) -> str:
    """Draw one point; its name goes where no earlier name stands."""
    kind = "on" if point.front else "" if point.passed else "missed"
    width = len(point.name) * _CHARACTER + 8
    left = x + 9 if x + 9 + width < WIDTH else x - 9 - width
    line = y + 4
    while any(abs(line - t) < 13 and left < e and left + width > s for s, e, t in taken):
        line -= 13
    taken.append((left, left + width, line))
    told = f"{point.name}: {point.bytes / MB:.1f} MB, {value:.4g}"
    return (
        f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="6"><title>{escape(told)}</title>'
        f'</circle><text class="name" x="{left:.1f}" y="{line:.1f}">{escape(point.name)}</text>'
    )
