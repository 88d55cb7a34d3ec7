"""Draws candidates as SVG: size against quality and against run time, and the Pareto front.

Colours are CSS classes of :mod:`edgevoice.report_style` and the report's own, so that one page
serves light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

from edgevoice.export.summary import MB, Point

WIDTH = 560
HEIGHT = 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 30, 18, 46
_TICKS = 5
_CHARACTER = 6.4
_RADIUS = 6
_LINE = 12

CSS = """
svg.front { min-width:420px; } .charts { display:grid; gap:12px;
  grid-template-columns:repeat(auto-fit,minmax(440px,1fr)); }
.front .grid { stroke:var(--line); } .front .line { fill:none; stroke:var(--agent);
  stroke-width:1.5; stroke-dasharray:5 4; }
.front circle { fill:var(--user); stroke:var(--card); stroke-width:1.5; }
.front circle.on { fill:var(--agent); } .front circle.missed { fill:var(--card);
  stroke:var(--bad); stroke-width:2; }
.front .name { fill:var(--ink); font-size:12px; }
.wide td { white-space:nowrap; } td.missed { color:var(--bad); } td.met { color:inherit; }
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
    ticks_x = _ticks(max((p.bytes for p, _ in shown), default=1) / MB * 1.02)
    ticks_y = _ticks(max([v for _, v in shown] + [bound, 1e-9]) * 1.08)

    def x(megabytes: float) -> float:
        return _LEFT + megabytes / ticks_x[-1] * (WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return HEIGHT - _BOTTOM - value / ticks_y[-1] * (HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y(tick):.1f}" '
        f'y2="{y(tick):.1f}"/><text x="{_LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">'
        f"{tick:.4g}</text>"
        for tick in ticks_y
    ]
    parts += [
        f'<text x="{x(tick):.1f}" y="{HEIGHT - _BOTTOM + 16}" text-anchor="middle">'
        f"{tick:.4g}</text>"
        for tick in ticks_x
    ]
    parts.append(
        f'<text x="{(WIDTH + _LEFT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">size, MB</text>'
        f'<text x="{_LEFT}" y="11">{escape(axis)}</text>'
    )
    if bound > 0:
        parts.append(
            f'<line class="mark" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y(bound):.1f}" '
            f'y2="{y(bound):.1f}"/><text x="{_LEFT + 4}" y="{y(bound) - 4:.1f}">'
            f"allowed {bound:g}</text>"
        )
    places = [(x(p.bytes / MB), y(v)) for p, v in shown]
    front = [place for (p, _), place in zip(shown, places, strict=True) if p.front]
    if len(front) > 1:
        path = "L".join(f"{a:.1f},{b:.1f}" for a, b in sorted(front))
        parts.append(f'<path class="line" d="M{path}"/>')
    for (point, value), place in zip(shown, places, strict=True):
        kind = "on" if point.front else "" if point.passed else "missed"
        told = f"{point.name}: {point.bytes / MB:.1f} MB, {value:.4g}"
        parts.append(
            f'<circle class="{kind}" cx="{place[0]:.1f}" cy="{place[1]:.1f}" r="{_RADIUS}">'
            f"<title>{escape(told)}</title></circle>"
        )
    parts += _names([p.name for p, _ in shown], places)
    return (
        f'<svg class="front" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
        f"<title>Size against {escape(axis)}</title>{''.join(parts)}</svg>"
    )


def _ticks(most: float) -> list[float]:
    """Return ticks from zero to ``most`` or just above, at round distances."""
    least = most / _TICKS
    power = 10.0 ** math.floor(math.log10(least))
    step = power * next(f for f in (1.0, 2.0, 2.5, 5.0, 10.0) if power * f >= least * 0.999)
    return [step * i for i in range(math.ceil(most / step) + 1)]


def _names(names: Sequence[str], places: Sequence[tuple[float, float]]) -> Iterator[str]:
    """Write each name beside its point, off other names and points; far ones get a line."""
    # left, right, top, bottom
    taken = [(x - _RADIUS, x + _RADIUS, y - _RADIUS, y + _RADIUS) for x, y in places]
    for name, (x, y) in zip(names, places, strict=True):
        width = len(name) * _CHARACTER + 4
        spots = [
            (left, y + 4 + down)
            for down in sorted(range(-10 * _LINE, 10 * _LINE, _LINE // 2), key=abs)
            for left in (x + 9, x - 9 - width)
            if left > _LEFT and left + width < WIDTH and _TOP < y + down < HEIGHT - _BOTTOM + 4
        ]
        left, line = next(
            (spot for spot in spots if not _covered(spot, width, taken)), (x + 9, y + 4)
        )
        taken.append((left, left + width, line - 10, line + 2))
        if abs(line - y - 4) > _LINE:
            near = left if left > x else left + width
            yield (
                f'<line class="mark" x1="{x:.1f}" y1="{y:.1f}" x2="{near:.1f}" '
                f'y2="{line - 4:.1f}"/>'
            )
        yield f'<text class="name" x="{left:.1f}" y="{line:.1f}">{escape(name)}</text>'


def _covered(
    spot: tuple[float, float], width: float, taken: Sequence[tuple[float, float, float, float]]
) -> bool:
    left, line = spot
    return any(
        left < right and left + width > start and line - 10 < bottom and line + 2 > top
        for start, right, top, bottom in taken
    )
