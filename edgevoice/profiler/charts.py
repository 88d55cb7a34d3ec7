"""Drawings of a profile as SVG text: samples by round, one turn's waterfall, a soak over time.

Colours are CSS classes of :mod:`edgevoice.report_style` and :data:`CSS`, so that one page serves
light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from edgevoice.profiler.figures import FIGURES
from edgevoice.profiler.spread import Estimate, Rounds
from edgevoice.profiler.table import number
from edgevoice.profiler.waterfall import Bar

CSS = """
.charts { display:grid; gap:12px; grid-template-columns:repeat(auto-fit,minmax(380px,1fr)); }
.charts .card { margin:0; } .charts svg { min-width:340px; }
.charts h4 { margin:0 0 4px; font-size:13px; font-weight:600; }
.grid { stroke:var(--line); } .range { fill:var(--agent); opacity:.18; }
.median { stroke:var(--agent); stroke-width:2; }
.upper { stroke:var(--soft); stroke-dasharray:3 3; }
.dot { fill:var(--user); opacity:.75; } .curve { fill:none; stroke:var(--user); stroke-width:1.5; }
.bar { rx:2; fill:var(--line); } .bar.vad, .bar.first-pass, .bar.recogniser { fill:var(--user); }
.bar.end-of-turn { fill:var(--wait); } .bar.language-model { fill:var(--think); }
.bar.speech { fill:var(--agent); } .bar.inner { opacity:.55; } .bar.turn { fill:var(--soft); }
svg .what { fill:var(--ink); font-size:12px; }
td.missed { color:var(--bad); font-weight:600; } td.left, th.left { text-align:left; }
"""

_WIDTH, _LEFT, _RIGHT = 480, 26, 14
_ROW = 11
_TURN_WIDTH, _TURN_LEFT, _TURN_ROW = 1140, 250, 19
_SERIES_HEIGHT = 150
_TICKS = 5
_CHARACTER = 6.6


def by_round(key: str, rounds: Rounds, found: dict[int, Estimate]) -> str:
    """Draw every sample of a figure: a row for each round, the median and its interval behind."""
    figure = FIGURES[key]
    values = [value for row in rounds for value in row]
    middle, low, high = found[50].value, found[50].low, found[50].high
    # An interval from few rounds may be far wider than all that was seen.
    least, most = min(values), max(values)
    margin = (most - least) * 0.15 or abs(most) * 0.05 or 1.0
    ticks = _ticks(max(0.0, least - margin) if least >= 0 else least - margin, most + margin)
    bottom = 8 + len(rounds) * _ROW

    def x(value: float) -> float:
        share = (value - ticks[0]) / (ticks[-1] - ticks[0])
        return _LEFT + min(1.0, max(0.0, share)) * (_WIDTH - _LEFT - _RIGHT)

    parts = [
        f'<line class="grid" x1="{x(t):.1f}" x2="{x(t):.1f}" y1="4" y2="{bottom}"/>'
        f'<text x="{x(t):.1f}" y="{bottom + 14}" text-anchor="middle">{number(t)}</text>'
        for t in ticks
    ]
    if not math.isnan(low):
        width = max(1.0, x(high) - x(low))
        parts.append(
            f'<rect class="range" x="{x(low):.1f}" y="4" width="{width:.1f}" '
            f'height="{bottom - 4}"><title>95 % interval of the median: {number(low)} to '
            f"{number(high)}</title></rect>"
        )
    for row, samples in enumerate(rounds):
        y = 4 + (row + 0.5) * _ROW + 2
        parts += [
            f'<circle class="dot" cx="{x(value):.1f}" cy="{y:.1f}" r="3"><title>round {row + 1}: '
            f"{number(value)} {figure.unit}</title></circle>"
            for value in samples
        ]
    for kind, value in (("median", middle), ("upper", found[90].value)):
        parts.append(
            f'<line class="{kind}" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="4" y2="{bottom}"/>'
        )
    title = escape(f"{figure.stage}: {figure.title}, {figure.unit}")
    return (
        f'<svg viewBox="0 0 {_WIDTH} {bottom + 20}" role="img"><title>{title}</title>'
        f'<text x="0" y="14">1</text><text x="0" y="{bottom - 1}">{len(rounds)}</text>'
        f"{''.join(parts)}</svg>"
    )


def waterfall(bars: Sequence[Bar]) -> str:
    """Draw one turn: a row for each call, what it did inside on the same row, thinner."""
    rows = [bar for bar in bars if bar.stage == "turn" or bar.depth <= 1]
    begin_ms, end_ms = bars[0].begin_ms, bars[0].end_ms
    top, bottom = 6, 6 + len(rows) * _TURN_ROW

    def x(at_ms: float) -> float:
        share = (at_ms - begin_ms) / max(1.0, end_ms - begin_ms)
        return _TURN_LEFT + min(1.0, max(0.0, share)) * (_TURN_WIDTH - _TURN_LEFT - 8)

    parts = [
        f'<line class="{"mark start" if not t else "grid"}" x1="{x(t):.1f}" x2="{x(t):.1f}" '
        f'y1="{top}" y2="{bottom}"/><text x="{x(t):.1f}" y="{bottom + 15}" '
        f'text-anchor="middle">{t:.0f} ms</text>'
        for t in _ticks(begin_ms, end_ms, 9)
        if begin_ms <= t <= end_ms
    ]
    row = -1
    for bar in bars:
        inner = bar.stage != "turn" and bar.depth > 1
        row += not inner
        y = top + row * _TURN_ROW
        width = max(1.0, x(bar.end_ms) - x(bar.begin_ms))
        told = f"{bar.stage}: {bar.name}, {bar.begin_ms:.0f} to {bar.end_ms:.0f} ms"
        told += f" ({bar.end_ms - bar.begin_ms:.1f} ms){f', on {bar.ran_on}' if bar.ran_on else ''}"
        parts.append(
            f'<rect class="bar {bar.stage}{" inner" if inner else ""}" x="{x(bar.begin_ms):.1f}" '
            f'y="{y + (11 if inner else 4)}" width="{width:.1f}" height="{4 if inner else 6}">'
            f"<title>{escape(told)}</title></rect>"
        )
        if not inner:
            indent = 12 * bar.depth
            label = bar.name if bar.stage == "turn" else f"{bar.stage}: {bar.name}"
            label += f" ({bar.ran_on})" if bar.ran_on else ""
            parts.append(f'<text class="what" x="{indent}" y="{y + 12}">{escape(label)}</text>')
            parts.append(_length(bar, x(bar.begin_ms), x(bar.end_ms), y + 12))
    return (
        f'<svg viewBox="0 0 {_TURN_WIDTH} {bottom + 22}" role="img"><title>One turn, from the end '
        f"of the user's speech</title>{''.join(parts)}</svg>"
    )


def over_time(title: str, unit: str, points: Sequence[tuple[float, float]]) -> str:
    """Draw a curve over the seconds of a soak."""
    times = _ticks(0.0, max(at for at, _ in points), 6)
    least, most = (f(value for _, value in points) for f in (min, max))
    margin = (most - least) * 0.15 or abs(most) * 0.05 or 1.0
    levels = _ticks(least - margin, most + margin)
    left, bottom = 46, _SERIES_HEIGHT - 22

    def x(at_s: float) -> float:
        return left + at_s / (times[-1] or 1.0) * (_WIDTH - left - _RIGHT)

    def y(value: float) -> float:
        return bottom - (value - levels[0]) / (levels[-1] - levels[0]) * (bottom - 8)

    parts = [
        f'<line class="grid" x1="{left}" x2="{_WIDTH - _RIGHT}" y1="{y(level):.1f}" '
        f'y2="{y(level):.1f}"/><text x="{left - 5}" y="{y(level) + 4:.1f}" text-anchor="end">'
        f"{number(level)}</text>"
        for level in levels
    ]
    parts += [
        f'<text x="{x(at):.1f}" y="{bottom + 15}" text-anchor="middle">{at:.0f} s</text>'
        for at in times
    ]
    path = "L".join(f"{x(at):.1f},{y(value):.1f}" for at, value in points)
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_SERIES_HEIGHT}" role="img"><title>{escape(title)}, '
        f'{escape(unit)}</title>{"".join(parts)}<path class="curve" d="M{path}"/></svg>'
    )


def _length(bar: Bar, left: float, right: float, y: float) -> str:
    text = f"{bar.end_ms - bar.begin_ms:.0f} ms"
    width = len(text) * _CHARACTER
    if right + 6 + width < _TURN_WIDTH:
        return f'<text x="{right + 5:.1f}" y="{y}">{text}</text>'
    if left - 6 - width > _TURN_LEFT:
        return f'<text x="{left - 5:.1f}" y="{y}" text-anchor="end">{text}</text>'
    return ""  # The bar is as wide as the drawing; its title tells.


def _ticks(least: float, most: float, count: int = _TICKS) -> list[float]:
    """Return round numbers from ``least`` or below to ``most`` or above."""
    step = max((most - least) / count, 1e-9)
    power = 10.0 ** math.floor(math.log10(step))
    step = power * next(f for f in (1.0, 2.0, 2.5, 5.0, 10.0) if power * f >= step * 0.999)
    first, last = math.floor(least / step + 1e-9), math.ceil(most / step - 1e-9)
    return [step * i for i in range(first, max(last, first + 1) + 1)]
