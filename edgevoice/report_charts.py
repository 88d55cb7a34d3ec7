"""The drawings of a conversation's report, as SVG text: both voices, who had the floor, marks.

Colours are CSS classes (:mod:`edgevoice.report_style`), so that one page serves light and dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgevoice.events import Notice, StateNotice
from edgevoice.exchanges import Exchange
from edgevoice.frames import Int16, ms_to_samples
from edgevoice.recording import SessionRecord

WIDTH = 1200
_LEFT = 56  # room for the lanes' names
_LANE = 64
_BAND = 14
_LABEL_ROW = 15
_CHARACTER = 6.4  # width of one character of a label at 11 px, on the generous side

_MARK_NAMES = {
    "paused": "pause known",
    "transcribed": "transcript",
    "judged": "end of turn judged",
    "first_token": "first token",
    "first_clause": "first clause",
    "first_audio": "speech made",
    "endpoint": "endpoint",
    "first_sound": "first sound",
}


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of the session's time that is drawn :data:`WIDTH` wide."""

    start_ms: float
    end_ms: float

    def x(self, at_ms: float) -> float:
        """Return where ``at_ms`` lies, clipped to the drawing."""
        share = (at_ms - self.start_ms) / max(1.0, self.end_ms - self.start_ms)
        return _LEFT + min(1.0, max(0.0, share)) * (WIDTH - _LEFT)


def overview(record: SessionRecord, exchanges: Sequence[Exchange]) -> str:
    """Draw the whole conversation; the page's script moves the line ``#cursor`` along it."""
    window = Window(0.0, max(1000.0, record.duration_ms))
    top = 18
    numbers = "".join(
        f'<text class="number" x="{window.x(exchange.speech_end_ms):.1f}" y="12" '
        f'text-anchor="middle">{number}</text>'
        for number, exchange in enumerate(exchanges, 1)
    )
    height = top + _lanes_height() + 22
    return (
        f'<svg id="overview" viewBox="0 0 {WIDTH} {height}" role="img" data-left="{_LEFT}" '
        f'data-ms="{window.end_ms:.0f}"><title>Both voices over the whole conversation</title>'
        f"{numbers}{_lanes(record, window, top)}{_axis(window, 0.0, top + _lanes_height())}"
        f'<line id="cursor" x1="{_LEFT}" x2="{_LEFT}" y1="{top}" y2="{top + _lanes_height()}"/>'
        "</svg>"
    )


def turn(record: SessionRecord, exchange: Exchange) -> str:
    """Draw one turn from the end of the user's speech to the first sound, with its marks."""
    heard_ms = exchange.spans_ms.get("first_sound", max(exchange.spans_ms.values(), default=0.0))
    lead_ms = min(2000.0, max(600.0, heard_ms * 0.5))
    window = Window(
        max(0.0, exchange.speech_end_ms - lead_ms), exchange.speech_end_ms + heard_ms + lead_ms
    )
    marks = [("end of speech", 0.0)]
    marks += [
        (f"{_MARK_NAMES.get(name, name)} {span:.0f}", span)
        for name, span in sorted(exchange.spans_ms.items(), key=lambda item: item[1])
    ]
    rows: list[float] = []
    labels = ""
    lines: list[tuple[float, int, str]] = []
    for label, span in marks:
        x = window.x(exchange.speech_end_ms + span)
        width = len(label) * _CHARACTER + 10
        ends = x + 4 + width > WIDTH
        left = x - 4 - width if ends else x
        row = next((i for i, taken in enumerate(rows) if taken <= left), len(rows))
        rows[row : row + 1] = [left + width + 4]
        anchor = "end" if ends else "start"
        labels += (
            f'<text class="label" x="{x - 4 if ends else x + 4:.1f}" '
            f'y="{(row + 1) * _LABEL_ROW - 4}" text-anchor="{anchor}">{label}</text>'
        )
        lines.append((x, row, "mark start" if label == "end of speech" else "mark"))
    top = len(rows) * _LABEL_ROW + 4
    bottom = top + _lanes_height()
    drawn = "".join(
        f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{row * _LABEL_ROW + 3}" '
        f'y2="{bottom}"/>'
        for x, row, kind in lines
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {bottom + 22}" role="img">'
        f"<title>From the end of the question to the first sound of the answer</title>"
        f"{_lanes(record, window, top)}{drawn}{labels}"
        f"{_axis(window, exchange.speech_end_ms, bottom)}</svg>"
    )


def _lanes_height() -> int:
    return 2 * _LANE + _BAND


def _lanes(record: SessionRecord, window: Window, top: int) -> str:
    middle = top + _LANE
    low = middle + _BAND
    return (
        f'<text class="lane" x="0" y="{top + _LANE // 2 + 4}">user</text>'
        f'<text class="lane" x="0" y="{low + _LANE // 2 + 4}">agent</text>'
        + _wave(record.user, window, top + _LANE / 2, "user")
        + _phases(record.notices, window, middle, record.duration_ms)
        + _wave(record.agent, window, low + _LANE / 2, "agent")
    )


def _wave(samples: Int16, window: Window, centre: float, kind: str) -> str:
    """Return the envelope of ``samples`` in ``window`` as one closed path."""
    columns = WIDTH - _LEFT
    edges = np.linspace(
        ms_to_samples(window.start_ms), ms_to_samples(window.end_ms), columns + 1
    ).astype(int)
    edges = edges[edges <= samples.size]
    line = f'<line class="zero" x1="{_LEFT}" x2="{WIDTH}" y1="{centre}" y2="{centre}"/>'
    if edges.size < 2 or edges[0] == edges[-1]:
        return line
    part = samples[edges[0] : edges[-1]].astype(np.float32)
    starts = np.minimum(edges[:-1] - edges[0], part.size - 1)
    # A square root lifts quiet speech; this is to be looked at and not to be measured.
    scale = np.sqrt(np.array([1.0]) / 32768.0) * (_LANE / 2 - 2)
    high = np.sqrt(np.maximum(np.maximum.reduceat(part, starts), 0.0)) * scale
    low = np.sqrt(np.maximum(-np.minimum.reduceat(part, starts), 0.0)) * scale
    upper = [f"{_LEFT + i},{centre - h:.1f}" for i, h in enumerate(high)]
    lower = [f"{_LEFT + i},{centre + h:.1f}" for i, h in enumerate(low)]
    return f'{line}<path class="wave {kind}" d="M{"L".join(upper + lower[::-1])}Z"/>'


def _phases(notices: Sequence[Notice], window: Window, y: int, end_ms: float) -> str:
    states = [notice for notice in notices if isinstance(notice, StateNotice)]
    ends = [*(state.at_ms for state in states), end_ms][1:]
    drawn = ""
    for state, until_ms in zip(states, ends, strict=True):
        left, right = window.x(state.at_ms), window.x(until_ms)
        if right - left > 0.2:
            name = state.state.replace("_", " ")
            drawn += (
                f'<rect class="phase {state.state}" x="{left:.1f}" y="{y}" '
                f'width="{right - left:.1f}" height="{_BAND}"><title>{name}</title></rect>'
            )
    return drawn


def _axis(window: Window, zero_ms: float, y: int) -> str:
    span_s = (window.end_ms - window.start_ms) / 1000.0
    steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)
    step_s = next((step for step in steps if span_s / step <= 14), steps[-1])
    first = int(np.ceil((window.start_ms - zero_ms) / 1000.0 / step_s))
    last = int(np.floor((window.end_ms - zero_ms) / 1000.0 / step_s))
    ticks = ""
    for number in range(first, last + 1):
        x = window.x(zero_ms + number * step_s * 1000.0)
        anchor = "end" if x > WIDTH - 20 else "middle"
        ticks += (
            f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{y}" y2="{y + 4}"/>'
            f'<text class="time" x="{x:.1f}" y="{y + 16}" text-anchor="{anchor}">'
            f"{number * step_s:g} s</text>"
        )
    return ticks
