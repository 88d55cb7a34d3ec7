"""Two profiles, figure by figure: a ratio, its interval, and what is worse beyond the noise.

The noise has three parts. What differs between the rounds of a run is in each ratio's interval.
That many figures are looked at is met by a stricter level for each (Bonferroni), so that one false
alarm in twenty comparisons is what to expect of all figures together. And other work on the
machine comes and goes for longer than a run lasts, which no spread within a run can show. So what
is compared is the time less what a stage waited for a core
(:class:`edgevoice.profiler.workload.Stopwatch`), where both profiles have it; and a time is worse
only when it is so by the yardstick's measure too, which sees a slower clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from edgevoice.profiler.figures import FIGURES, YARDSTICK, Figure
from edgevoice.profiler.profile_file import SCHEMA, Profile
from edgevoice.profiler.spread import Ratio, Rounds, estimate, ratio

Verdict = Literal["worse", "better", "same", "unknown"]

FALSE_ALARMS = 0.05
LEAST_CHANGE = 1.03
"""A surely measured change below this is none that anybody would act on."""

_TOLD_CONDITIONS = ("load", "device", "turns", "quick")


@dataclass(frozen=True, slots=True)
class Change:
    """What became of one figure.

    Attributes:
        key: The figure's.
        less_waiting: Whether the waiting for a core is left out of what follows.
        before: Median of the first profile.
        after: Of the second.
        ratio: After over before.
        low: Lower end of its 95 % interval.
        high: Upper end.
        verdict: Beyond the noise or not; "unknown" where there are too few rounds to say.
    """

    key: str
    less_waiting: bool
    before: float
    after: float
    ratio: float
    low: float
    high: float
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two profiles.

    Attributes:
        changes: Of every figure that both have.
        yardstick: What became of the machine's own speed.
        differences: Lines on what else is not the same: machine, models, settings, conditions.
    """

    changes: tuple[Change, ...]
    yardstick: Change | None
    differences: tuple[str, ...]

    @property
    def regressions(self) -> tuple[Change, ...]:
        """What is worse beyond the noise."""
        return tuple(change for change in self.changes if change.verdict == "worse")

    @property
    def worse_stages(self) -> tuple[str, ...]:
        """The stages of the regressions, in a turn's order."""
        return tuple(dict.fromkeys(FIGURES[change.key].stage for change in self.regressions))

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values; what is not known is null."""
        return {
            "schema": f"{SCHEMA}-comparison",
            "schema_version": 1,
            "worse_stages": self.worse_stages,
            "changes": [_plain(change) for change in self.changes],
            "yardstick": _plain(self.yardstick) if self.yardstick else None,
            "differences": self.differences,
        }


def compare(first: Profile, second: Profile) -> Comparison:
    """Return what became of every figure from ``first`` to ``second``."""
    shared = [key for key in FIGURES if key in first.samples and key in second.samples]
    judged = [key for key in shared if FIGURES[key].judged]
    confidence = 1.0 - 2.0 * FALSE_ALARMS / max(1, len(judged))  # one side of it counts
    walls = _both(first.samples, second.samples)
    frees = _both(first.free, second.free)
    changes = []
    for key in shared:
        # The machine's own speed, by the same clock.
        clock = frees if key in frees else walls
        before, after = clock[key]
        found = ratio(before, after)
        machine = ratio(*clock[YARDSTICK]) if YARDSTICK in clock else None
        verdict = _verdict(FIGURES[key], found, machine, confidence)
        medians = estimate(before).value, estimate(after).value
        changes.append(
            Change(key, clock is frees, *medians, found.value, *found.interval(), verdict)
        )
    return Comparison(
        tuple(change for change in changes if change.key != YARDSTICK),
        next((change for change in changes if change.key == YARDSTICK), None),
        tuple(_differences(first, second)),
    )


def _both(
    first: Mapping[str, Rounds], second: Mapping[str, Rounds]
) -> dict[str, tuple[Rounds, Rounds]]:
    return {key: (first[key], second[key]) for key in first if key in second}


def _verdict(figure: Figure, measured: Ratio, machine: Ratio | None, confidence: float) -> Verdict:
    if not figure.judged:
        return "same"
    views = [_worsening(figure, measured)]
    if figure.timed and machine is not None:
        views.append(views[0].over(machine))
    bounds = [view.interval(confidence) for view in views]
    if any(math.isnan(low) for low, _ in bounds):
        return "unknown"
    if all(low > LEAST_CHANGE for low, _ in bounds):
        return "worse"
    if all(high < 1.0 / LEAST_CHANGE for _, high in bounds):
        return "better"
    return "same"


def _worsening(figure: Figure, measured: Ratio) -> Ratio:
    """Return the ratio turned so that above 1 is worse."""
    if figure.better == "lower":
        return measured
    return Ratio(1.0 / measured.value, measured.spread, measured.degrees)


def _differences(first: Profile, second: Profile) -> Iterator[str]:
    for what, before, after in (
        ("machine", first.host, second.host),
        ("version of", first.versions, second.versions),
        ("model of", _names(first), _names(second)),
        ("condition", _told(first), _told(second)),
        ("setting", _flat(first.settings), _flat(second.settings)),
    ):
        for name in dict.fromkeys((*before, *after)):
            old, new = before.get(name), after.get(name)
            if old != new:
                yield f"{what} {name}: {old} -> {new}"


def _names(profile: Profile) -> dict[str, str]:
    """Name each stage's model with the beginning of its manifest's hash."""
    return {
        stage: f"{model['name']} ({model['manifest_sha256'][:12]})"
        for stage, model in profile.models.items()
    }


def _told(profile: Profile) -> dict[str, Any]:
    return {name: profile.conditions.get(name) for name in _TOLD_CONDITIONS}


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{s}.{key}": value for s, keys in settings.items() for key, value in keys.items()}


def _plain(change: Change) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in asdict(change).items()
    }
