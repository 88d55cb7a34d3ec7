"""Shows a conversation in a terminal (or a pipe) while it goes on, and its figures at the end."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Sequence
from typing import TextIO

from edgevoice.events import (
    ErrorNotice,
    LoadNotice,
    Notice,
    ProviderNotice,
    StateNotice,
    TranscriptNotice,
)
from edgevoice.exchanges import Exchange
from edgevoice.latency import percentile
from edgevoice.load_policy import MEANINGS, Step

COLUMNS = (
    ("endpoint", "endpoint"),
    ("transcribed", "transcript"),
    ("first_token", "first token"),
    ("first_clause", "first clause"),
    ("first_sound", "first sound"),
)
"""Span and heading of each column of the table."""

_SPEAKER = {"user": "you  ", "agent": "agent"}


class Console:
    """Prints what the session notices.

    Args:
        out: Where to print. On a terminal, text that is not final is one line that is rewritten;
            elsewhere only final lines are printed.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._live = out.isatty()
        self._unfinished = False

    def watch(self, notice: Notice) -> None:
        """Show one notice."""
        match notice:
            case StateNotice(state="listening") if self._live:
                self._rewrite("      (listening)")
            case TranscriptNotice(role=role, text=text, final=False) if self._live:
                self._rewrite(f"{_SPEAKER[role]} … {text}")
            case TranscriptNotice(role=role, text=text, final=True, interrupted=interrupted):
                mark = " (interrupted)" if interrupted else ""
                self.line(f"{_SPEAKER[role]} > {text}{mark}")
            case ProviderNotice(stage=stage, provider=provider, passed_over=reasons) if reasons:
                self.line(f"      ! {stage} runs on {provider}; {'; '.join(reasons)}")
            case LoadNotice(direction="down", step=step, detail=detail):
                self.line(f"      ! less work: {MEANINGS[Step(step)]} ({detail})")
            case LoadNotice(direction="up", step=step, detail=detail):
                self.line(f"      ! no longer: {MEANINGS[Step(step)]} ({detail})")
            case ErrorNotice(message=message, fatal=False):
                self.line(f"      ! {message}")
            case _:
                pass

    def line(self, text: str) -> None:
        """Print a line that stays."""
        self._wipe()
        print(text, file=self._out, flush=True)

    def _rewrite(self, text: str) -> None:
        room = shutil.get_terminal_size().columns - 1
        shown = text if len(text) <= room else "…" + text[-(room - 1) :]
        print(f"\r\x1b[K{shown}", end="", file=self._out, flush=True)
        self._unfinished = True

    def _wipe(self) -> None:
        if self._unfinished:
            print("\r\x1b[K", end="", file=self._out)
            self._unfinished = False


def spans_table(exchanges: Sequence[Exchange]) -> str:
    """Return the table of every turn's spans and their medians, in ms after the end of speech."""
    widths = [max(len(heading), 6) for _, heading in COLUMNS]
    headings = (heading.rjust(width) for (_, heading), width in zip(COLUMNS, widths, strict=True))
    lines = [
        "ms after the end of the user's speech",
        "  ".join(["turn", *headings]),
    ]
    for number, exchange in enumerate(exchanges, 1):
        figures = (exchange.spans_ms.get(span) for span, _ in COLUMNS)
        note = "  (interrupted)" if exchange.interrupted else ""
        lines.append(_row(f"{number:4d}", figures, widths) + note)
    medians = (
        percentile([e.spans_ms[span] for e in exchanges if span in e.spans_ms], 50)
        for span, _ in COLUMNS
    )
    lines.append(_row(" p50", medians, widths))
    return "\n".join(lines)


def _row(label: str, figures: Iterable[float | None], widths: Sequence[int]) -> str:
    cells = [label]
    for figure, width in zip(figures, widths, strict=True):
        unknown = figure is None or math.isnan(figure)  # nan: no turn has this span
        cells.append(("-" if unknown else f"{figure:.0f}").rjust(width))
    return "  ".join(cells)
