"""Profiles and comparisons as lines of text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from edgevoice.profiler.compare import Comparison
from edgevoice.profiler.figures import FIGURES, STAGES
from edgevoice.profiler.profile_file import Profile
from edgevoice.profiler.running_on import told
from edgevoice.profiler.spread import estimate, ratio


def profile_lines(profile: Profile) -> Iterator[str]:
    """Yield every figure with its interval and count, by stage; then what else is to be said."""
    yield (
        f"{'':52}{'p50':>9}  {'95 % interval':>20}{'p90':>9}{'p95':>9}{'n':>5}{'p50 alone*':>12}"
    )
    for stage in STAGES:
        keys = [key for key in profile.estimates if FIGURES[key].stage == stage]
        if keys:
            model = profile.models.get(stage, {}).get("name", "")
            where = told(profile.ran_on.get(stage, ()))
            yield f"{stage}{f': {model}' if model else ''}{f', {where}' if where else ''}"
        for key in keys:
            figure, found = FIGURES[key], profile.estimates[key]
            yield (
                f"  {f'{figure.title}, {figure.unit}':50}{number(found[50].value):>9}  "
                f"{interval(found[50].low, found[50].high):>20}{number(found[90].value):>9}"
                f"{number(found[95].value):>9}{profile.count(key):>5}{_alone(profile, key):>12}"
            )
    if profile.free:
        yield "* less what the stage waited for a core while other work had it"
    for what, why in profile.not_measured.items():
        title = FIGURES[what].title if what in FIGURES else what
        yield f"not measurable here: {title}: {why}"
    yield from _soak_lines(profile)
    own, conditions = profile.overhead, profile.conditions
    spans = ""
    if own["spans_a_turn"]:
        spans = (
            f"{own['span_us']:.1f} us a span, {own['spans_a_turn']:.0f} spans a turn: "
            f"{100 * own['share_of_voice_to_voice']:.2f} % of voice-to-voice; "
        )
    yield (
        f"the profiler itself: {spans}{own['timing_us']:.1f} us a timed sample; waiting took "
        f"{100 * own['parent_share_of_a_core']:.1f} % of a core"
    )
    if (waited := profile.waited_share) is not None:
        yield (
            f"stages waited for a core {waited:.0%} of their time: what else ran took it; the "
            "more, the wider the intervals"
        )
    yield (
        f"{conditions['rounds']} rounds in {conditions['took_s']:.0f} s; load average at the start "
        f"{_load(conditions['load_average'])}; {conditions['load']} busy processes beside it"
    )


def comparison_lines(comparison: Comparison) -> Iterator[str]:
    """Yield every figure's ratio; then the verdict."""
    yield from comparison.differences
    yield f"{'':66}{'before':>9}{'after':>9}{'ratio':>8}  95 % interval"
    yardstick = [comparison.yardstick] if comparison.yardstick else []
    for change in (*comparison.changes, *yardstick):
        figure = FIGURES[change.key]
        title = f"{figure.stage}: {figure.title}, {figure.unit}{'*' if change.less_waiting else ''}"
        title += "" if change.view == "at best" else f", {change.view}"
        verdict = change.verdict.upper() if change.verdict == "worse" else change.verdict
        yield (
            f"{title:66}{number(change.before):>9}{number(change.after):>9}{change.ratio:8.3f}  "
            f"{interval(change.low, change.high):>16}  {verdict if figure.judged else ''}"
        )
    if any(change.less_waiting for change in comparison.changes):
        yield "* less what the stage waited for a core, so that other work counts for little"
    yield "compared is each figure at its best in every round, and the better quarter of rounds"
    if not comparison.regressions:
        yield "nothing is worse beyond the noise"
    for change in comparison.regressions:
        figure = FIGURES[change.key]
        yield (
            f"worse: {figure.stage}: {figure.title}: {number(change.before)} -> "
            f"{number(change.after)} {figure.unit}"
        )


def number(value: float) -> str:
    """Write a figure with three or four digits that count."""
    if math.isnan(value):
        return "-"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def interval(low: float, high: float) -> str:
    """Write an interval."""
    return "too few rounds" if math.isnan(low) else f"{number(low)} to {number(high)}"


def _alone(profile: Profile, key: str) -> str:
    """Write the median less the waiting for a core, "" where that is not known."""
    free = profile.free.get(key)
    return number(estimate(free).value) if free else ""


def _soak_lines(profile: Profile) -> Iterator[str]:
    soak = profile.soak
    if soak is None:
        return
    texts: Mapping[str, str] = {
        "hottest_c": "{} C at most",
        "throttled_share": "throttled {:.0%} of the time",
        "memory_growth_mb_per_min": "memory grows {:+} MiB a minute",
        "slowdown": "conversations take {} times as long at the end",
    }
    parts = [text.format(soak[name]) for name, text in texts.items() if soak.get(name) is not None]
    if soak.get("hottest_c") is None:
        parts.append("the kernel tells no temperature")
    yield f"after {soak['duration_s']:.0f} s of work: {'; '.join(parts)}"
    for key, rounds in soak["after"].items():
        if key in profile.samples and key in FIGURES and FIGURES[key].judged:
            changed = ratio(profile.samples[key], rounds)
            low, high = changed.interval()
            if low > 1 or high < 1:
                figure = FIGURES[key]
                yield (
                    f"  {figure.stage}: {figure.title}: {changed.value:.2f} times "
                    f"({interval(low, high)})"
                )


def _load(averages: object) -> str:
    if not isinstance(averages, (list, tuple)):
        return "not known"
    return " ".join(f"{average:.2f}" for average in averages)
