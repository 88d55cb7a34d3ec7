"""A self-contained HTML page of one conversation: no file beside it, no address in it.

Owns the page's content; the drawings are :mod:`edgevoice.report_charts`', the looks
:mod:`edgevoice.report_style`'s.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from datetime import datetime
from html import escape
from pathlib import Path

import numpy as np

from edgevoice import host, report_charts
from edgevoice.audio.wav import encode_wav
from edgevoice.console import COLUMNS
from edgevoice.errors import AudioError
from edgevoice.events import DecisionNotice, ErrorNotice
from edgevoice.exchanges import Exchange, ExchangeLog
from edgevoice.frames import SAMPLE_RATE_HZ
from edgevoice.latency import percentile
from edgevoice.recording import SessionRecord
from edgevoice.report_style import CSS, SCRIPT
from edgevoice.settings import Settings
from edgevoice.whole_file import write_whole

AUDIO_LIMIT_S = 240.0
"""Sound that a page carries; it takes 10 MB as base64, and browsers open that at once."""

_KEY = (
    ("line", "listening"),
    ("user", "user speaking"),
    ("wait", "waiting whether the turn is over"),
    ("think", "thinking"),
    ("agent", "agent speaking"),
)


def write_report(
    path: Path, record: SessionRecord, settings: Settings, cold_start_ms: float
) -> None:
    """Write the page; it appears whole, by a rename.

    Raises:
        AudioError: The file cannot be written.
    """
    page = render(record, settings, cold_start_ms, datetime.now().astimezone())
    try:
        write_whole(path, page.encode())
    except OSError as error:
        raise AudioError(f"cannot write {path}: {error.strerror}") from error


def render(
    record: SessionRecord, settings: Settings, cold_start_ms: float, held_at: datetime
) -> str:
    """Return the page of a conversation that was held at ``held_at``."""
    exchanges = ExchangeLog.of(record.notices).exchanges
    body = "".join(
        (
            f"<h1>A conversation with edgevoice</h1>"
            f'<p class="soft">{held_at:%Y-%m-%d %H:%M %Z}</p>',
            _tiles(record, exchanges, cold_start_ms),
            _remarks(record),
            _timeline(record, exchanges),
            "<h2>Turns</h2>" if exchanges else "",
            *(_turn(record, exchange, number) for number, exchange in enumerate(exchanges, 1)),
            _table(exchanges),
            _facts(settings),
            _decisions(record),
        )
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>A conversation with edgevoice</title><style>{CSS}</style></head>"
        f"<body><main>{body}</main><script>{SCRIPT}</script></body></html>\n"
    )


def _tiles(record: SessionRecord, exchanges: Sequence[Exchange], cold_start_ms: float) -> str:
    sounds = [e.spans_ms["first_sound"] for e in exchanges if "first_sound" in e.spans_ms]
    tiles = (
        (_ms(percentile(sounds, 50)), "end of speech to first sound, p50"),
        (_ms(percentile(sounds, 90)), "the same, p90"),
        (str(len(exchanges)), "turns"),
        (str(sum(e.interrupted for e in exchanges)), "interrupted answers"),
        (f"{record.duration_ms / 1000:.1f} s", "length"),
        (f"{cold_start_ms / 1000:.1f} s", "start of the process to listening"),
    )
    cells = "".join(
        f'<div class="card"><b>{value}</b><span class="soft">{name}</span></div>'
        for value, name in tiles
    )
    return f'<div class="tiles">{cells}</div>'


def _remarks(record: SessionRecord) -> str:
    remarks = []
    if record.lock_step:
        remarks.append(
            "This conversation was not held in real time (--fast): the time that the models took "
            "is in none of the figures below."
        )
    if record.truncated:
        remarks.append("The conversation went on after what is shown here.")
    remarks += [notice.message for notice in record.notices if isinstance(notice, ErrorNotice)]
    return "".join(f'<p class="error">{escape(remark)}</p>' for remark in remarks)


def _timeline(record: SessionRecord, exchanges: Sequence[Exchange]) -> str:
    key = "".join(
        f'<span><i style="background:var(--{colour})"></i>{name}</span>' for colour, name in _KEY
    )
    return (
        '<h2>Timeline</h2><div class="card"><div class="chart">'
        f'{report_charts.overview(record, exchanges)}</div><div class="key">{key}</div>'
        f"{_audio(record)}</div>"
    )


def _audio(record: SessionRecord) -> str:
    limit = round(AUDIO_LIMIT_S * SAMPLE_RATE_HZ)
    length = max(record.user.size, record.agent.size)
    if not length:
        return ""
    mixed = np.zeros(min(length, limit), dtype=np.int32)
    for track in (record.user[:limit], record.agent[:limit]):
        mixed[: track.size] += track
    samples = np.clip(mixed, -32768, 32767).astype(np.int16)
    sound = base64.b64encode(encode_wav(samples, SAMPLE_RATE_HZ)).decode("ascii")
    player = f'<audio controls preload="metadata" src="data:audio/wav;base64,{sound}"></audio>'
    if length <= limit:
        return player
    return f'{player}<p class="soft">The first {AUDIO_LIMIT_S:.0f} s.</p>'


def _turn(record: SessionRecord, exchange: Exchange, number: int) -> str:
    sound = exchange.spans_ms.get("first_sound", math.nan)
    unheard = f' <span class="unheard">{escape(exchange.unheard)}</span>'
    cut = ' <span class="cut">(interrupted)</span>' if exchange.interrupted else ""
    agent = escape(exchange.agent) if exchange.agent else '<span class="soft">no answer</span>'
    start_s = max(0.0, exchange.speech_end_ms - 3000.0) / 1000.0
    return (
        f'<section class="card turn"><header><h3>Turn {number}</h3>'
        f"<span>first sound after {_ms(sound)}</span>"
        f'<button data-s="{start_s:.2f}">play</button></header>'
        f'<dl class="said"><dt>user</dt><dd>{escape(exchange.user)}</dd>'
        f"<dt>agent</dt><dd>{agent}{unheard if exchange.unheard else ''}{cut}</dd></dl>"
        f'<div class="chart">{report_charts.turn(record, exchange)}</div></section>'
    )


def _table(exchanges: Sequence[Exchange]) -> str:
    if not exchanges:
        return '<p class="soft">Nobody said anything.</p>'
    headings = "".join(f"<th>{heading}</th>" for _, heading in COLUMNS)
    rows = "".join(
        f"<tr><td>{number}</td>"
        + "".join(f"<td>{_figure(e.spans_ms.get(span, math.nan))}</td>" for span, _ in COLUMNS)
        + "</tr>"
        for number, e in enumerate(exchanges, 1)
    )
    for share in (50, 90):
        figures = (
            percentile([e.spans_ms[span] for e in exchanges if span in e.spans_ms], share)
            for span, _ in COLUMNS
        )
        cells = "".join(f"<td>{_figure(figure)}</td>" for figure in figures)
        rows += f'<tr class="sum"><td>p{share}</td>{cells}</tr>'
    return (
        "<h2>Milliseconds after the end of the user's speech</h2>"
        f'<div class="card wide"><table><tr><th>turn</th>{headings}</tr>{rows}</table></div>'
    )


def _facts(settings: Settings) -> str:
    listening = settings.recogniser.heard_with()
    models = {
        "voice activity": settings.vad.model,
        **{stage.replace("-", " "): model for stage, model in listening.items()},
        "end of turn": settings.end_of_turn.model or "none",
        "language model": settings.language_model.endpoint_model or settings.language_model.model,
        "voice": settings.speech.model,
    }
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>"
        for name, value in {**host.facts(), **models, **host.versions()}.items()
    )
    return f'<h2>Made with</h2><div class="card wide"><table class="facts">{rows}</table></div>'


def _decisions(record: SessionRecord) -> str:
    decisions = [notice for notice in record.notices if isinstance(notice, DecisionNotice)]
    rows = "".join(
        f"<tr><td>{decision.at_ms / 1000:.2f} s</td><td>{escape(decision.decision)}</td><td>"
        + escape(", ".join(f"{name} {value}" for name, value in decision.evidence.items()))
        + "</td></tr>"
        for decision in decisions
    )
    return (
        f"<details><summary>{len(decisions)} turn-taking decisions and their evidence</summary>"
        f'<div class="card wide"><table class="facts">{rows}</table></div></details>'
    )


def _figure(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.0f}"


def _ms(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.0f} ms"
