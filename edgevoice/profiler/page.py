"""A self-contained HTML page of a profile: no file beside it, no address in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from edgevoice.profiler import charts
from edgevoice.profiler.figures import FIGURES, STAGES
from edgevoice.profiler.profile_file import Profile
from edgevoice.profiler.running_on import told
from edgevoice.profiler.spread import estimate
from edgevoice.profiler.table import interval, number
from edgevoice.report_style import CSS

_TILES = (
    ("conversation.voice_to_voice_ms", "end of the question to the first sound, p50"),
    ("conversation.peak_memory_mb", "most memory, all stages"),
    ("conversation.cold_start_ms", "start to listening"),
    ("language-model.decode_kept_tokens_per_s", "decode"),
    ("recogniser.real_time_factor", "recognition, of real time"),
    ("speech.real_time_factor", "synthesis, of real time"),
)
_SOAK_CURVES = (
    ("temperature_c", "Temperature of the hottest zone", "C"),
    ("clock_mhz", "Clock, mean of all cores", "MHz"),
    ("memory_mb", "Resident memory", "MiB"),
)


def render(profile: Profile) -> str:
    """Return the page."""
    body = "".join(
        (
            "<h1>edgevoice on this device</h1>"
            f'<p class="soft">{escape(profile.measured_at)}: {escape(profile.host["processor"])}, '
            f"{escape(profile.host['cores'])} cores</p>",
            _tiles(profile),
            *_budgets(profile),
            *_turn(profile),
            '<h2>Figures</h2><p class="soft">"Alone" is the time less what a stage waited for a '
            "core while other work had it.</p>",
            _table(profile),
            "<h2>Samples by round</h2>",
            '<p class="soft">A row for each round, from the first to the last; the line is the '
            "median, the shade its 95 % interval, the broken line the 90th percentile.</p>",
            f'<div class="charts">{"".join(_distributions(profile))}</div>',
            *_soak(profile),
            "<h2>Made with</h2>",
            _facts(profile),
        )
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>edgevoice on this device</title><style>{CSS}{charts.CSS}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )


def _tiles(profile: Profile) -> str:
    cells = "".join(
        f'<div class="card"><b>{number(profile.estimates[key][50].value)} '
        f'{escape(FIGURES[key].unit)}</b><span class="soft">{name}</span></div>'
        for key, name in _TILES
        if key in profile.estimates
    )
    return f'<div class="tiles">{cells}</div>'


def _budgets(profile: Profile) -> Iterator[str]:
    if not profile.budgets:
        return
    rows = "".join(
        f'<tr><td class="{"missed" if budget.missed else ""}">{escape(str(budget))}</td></tr>'
        for budget in profile.budgets
    )
    name = escape(str(profile.conditions.get("device", "")))
    yield f'<h2>Budgets of {name}</h2><div class="card wide"><table>{rows}</table></div>'


def _turn(profile: Profile) -> Iterator[str]:
    if profile.waterfall:
        drawn = charts.waterfall(profile.waterfall)
        yield (
            '<h2>One turn</h2><p class="soft">The turn in the middle of all; 0 is the end of the '
            "user's speech. Thin bars are what a call did inside: tokens, pieces of sound.</p>"
            f'<div class="card"><div class="chart">{drawn}</div></div>'
        )


def _table(profile: Profile) -> str:
    rows = ""
    for stage in STAGES:
        keys = [key for key in profile.estimates if FIGURES[key].stage == stage]
        if not keys:
            continue
        model = str(profile.models.get(stage, {}).get("name", ""))
        where = told(profile.ran_on.get(stage, ()))
        model = escape(", ".join(filter(None, (model, where))))
        rows += (
            f'<tr class="sum"><td colspan="8">{stage} <span class="soft">{model}</span></td></tr>'
        )
        rows += "".join(_row(profile, key) for key in keys)
    headings = "".join(
        f"<th>{h}</th>" for h in ("p50", "95 % interval", "p90", "p95", "samples", "p50 alone")
    )
    return (
        '<div class="card wide"><table><tr><th class="left">figure</th><th class="left">unit</th>'
        f"{headings}</tr>{rows}</table>{_missing(profile.not_measured)}</div>"
    )


def _row(profile: Profile, key: str) -> str:
    figure, found = FIGURES[key], profile.estimates[key]
    cells = (
        number(found[50].value),
        interval(found[50].low, found[50].high),
        number(found[90].value),
        number(found[95].value),
        str(profile.count(key)),
        number(estimate(profile.free[key]).value) if key in profile.free else "",
    )
    return (
        f'<tr><td>{escape(figure.title)}</td><td class="left">{escape(figure.unit)}</td>'
        + "".join(f"<td>{cell}</td>" for cell in cells)
        + "</tr>"
    )


def _missing(reasons: Mapping[str, str]) -> str:
    lines = (
        f"{FIGURES[what].title if what in FIGURES else what}: {why}"
        for what, why in reasons.items()
    )
    return "".join(f'<p class="soft">not measurable here: {escape(line)}</p>' for line in lines)


def _distributions(profile: Profile) -> Iterator[str]:
    for key, found in profile.estimates.items():
        figure = FIGURES[key]
        yield (
            f'<div class="card"><h4>{escape(f"{figure.stage}: {figure.title}, {figure.unit}")}</h4>'
            f"{charts.by_round(key, profile.samples[key], dict(found))}</div>"
        )


def _soak(profile: Profile) -> Iterator[str]:
    soak = profile.soak
    if soak is None:
        return
    yield f'<h2>{soak["duration_s"]:.0f} s of work without a pause</h2><div class="charts">'
    curves = [
        (title, unit, [(v["at_s"], v[name]) for v in soak["vitals"] if v[name] is not None])
        for name, title, unit in _SOAK_CURVES
    ]
    held = [(turn["at_s"], turn["wall_s"]) for turn in soak["conversations"]]
    curves.append(("Time that a conversation took", "s", held))
    for title, unit, points in curves:
        drawn = charts.over_time(title, unit, points) if len(points) > 1 else _nothing(title)
        yield f'<div class="card"><h4>{title}, {unit}</h4>{drawn}</div>'
    yield "</div>"


def _nothing(title: str) -> str:
    return f'<p class="soft">{title}: not measurable here, the kernel does not tell it.</p>'


def _facts(profile: Profile) -> str:
    conditions: Mapping[str, Any] = {
        "load average at the start": profile.conditions.get("load_average"),
        "busy processes beside it": profile.conditions.get("load"),
        "rounds": profile.conditions.get("rounds"),
        "measured for": f"{profile.conditions.get('took_s')} s",
    }
    own = {f"the profiler's own: {k.replace('_', ' ')}": v for k, v in profile.overhead.items()}
    models = {f"{s} model": f"{m['name']}, {m['scheme']}" for s, m in profile.models.items()}
    rows = "".join(
        f"<tr><td>{escape(str(name))}</td><td>{escape(str(value))}</td></tr>"
        for name, value in {
            **profile.host,
            **models,
            **profile.versions,
            **conditions,
            **own,
        }.items()
    )
    return f'<div class="card wide"><table class="facts">{rows}</table></div>'
