"""Two profiles, figure by figure: a ratio, its interval, and what is worse beyond the noise.

What is compared is the time less what a stage waited for a core
(:class:`edgevoice.profiler.workload.Stopwatch`), where both profiles have it, and of that not all
samples' median: other work on a machine only ever adds time, in spells that last longer than a
round and come in one run and not in the next. Two views are free of it as far as can be:

- *at best*: the best sample of every round, and of these the lower quartile. It hardly moves with
  other work, and names whatever every call has more to do.
- *as a rule*: the median of every round, and of these the lower quartile, which sees what slows
  more than half of the calls.

A figure is worse when either view says so beyond the noise. The noise has three parts: what differs
between the rounds of a run is in each ratio's interval; what differs between two runs of one build
and is in no run's rounds is added to it (:data:`VIEWS`, measured on a busy machine); and that many
figures are looked at, twice, is met by a stricter level for each (Bonferroni), so that one false
alarm in twenty comparisons is the most to expect of all figures together. A time must be worse by
the yardstick's measure too where the yardstick shows that the machine's own speed has changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from edgevoice.latency import percentile
from edgevoice.profiler.figures import FIGURES, YARDSTICK, Figure
from edgevoice.profiler.profile_file import SCHEMA, Profile
from edgevoice.profiler.running_on import short
from edgevoice.profiler.spread import Ratio, Rounds, ratio

Verdict = Literal["worse", "better", "same", "unknown"]

FALSE_ALARMS = 0.05
LEAST_CHANGE = 1.03
"""A surely measured change below this is none that anybody would act on."""

View = Literal["at best", "as a rule"]

VIEWS: Mapping[View, float] = {"at best": 0.02, "as a rule": 0.05}
"""Each view's standard error of a logarithm between two runs of one build, beyond what their rounds
show. On 2 cores with other work that came and went, the whole error (root mean square over all
stages' figures, 6 runs) was 0.030 and 0.054."""

_QUARTILE = 25.0

_TOLD_CONDITIONS = ("load", "device", "turns", "quick")


@dataclass(frozen=True, slots=True)
class Change:
    """What became of one figure.

    Attributes:
        key: The figure's.
        view: What is compared of the samples.
        before: That, of the first profile.
        after: Of the second.
        ratio: After over before.
        low: Lower end of its 95 % interval.
        high: Upper end.
        verdict: Beyond the noise or not; "unknown" where there are too few rounds to say.
        less_waiting: Whether the waiting for a core is left out of all that.
    """

    key: str
    view: View
    before: float
    after: float
    ratio: float
    low: float
    high: float
    verdict: Verdict
    less_waiting: bool = False


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
    # One side of it counts; each is looked at in every view.
    confidence = 1.0 - 2.0 * FALSE_ALARMS / max(1, len(judged) * len(VIEWS))
    walls = _both(first.samples, second.samples)
    frees = _both(first.free, second.free)
    machines = [
        {view: _seen(YARDSTICK, view, clock[YARDSTICK]) for view in VIEWS}
        if YARDSTICK in clock
        else {}
        for clock in (walls, frees)
    ]
    changes = []
    for key in shared:
        free = key in frees
        both = (frees if free else walls)[key]
        views = [_change(key, view, both, machines[free].get(view), confidence) for view in VIEWS]
        told = min(views, key=lambda change: _GRAVITY.index(change.verdict))
        changes.append(replace(told, less_waiting=free))
    return Comparison(
        tuple(change for change in changes if change.key != YARDSTICK),
        next((change for change in changes if change.key == YARDSTICK), None),
        tuple(_differences(first, second)),
    )


_GRAVITY: Sequence[Verdict] = ("worse", "better", "same", "unknown")


def _change(
    key: str,
    view: View,
    both: tuple[Rounds, Rounds],
    machine: Ratio | None,
    confidence: float,
) -> Change:
    found = _seen(key, view, both)
    before, after = (_value(key, view, rounds) for rounds in both)
    verdict = _verdict(FIGURES[key], found, machine, confidence)
    return Change(key, view, before, after, found.value, *found.interval(), verdict)


def _seen(key: str, view: View, both: tuple[Rounds, Rounds]) -> Ratio:
    figure = FIGURES[key]
    before, after = (_each_round(figure, view, rounds) for rounds in both)
    found = ratio(before, after, _share(figure))
    return found.widened(VIEWS[view]) if figure.timed else found


def _value(key: str, view: View, rounds: Rounds) -> float:
    figure = FIGURES[key]
    return percentile([x for (x,) in _each_round(figure, view, rounds)], _share(figure))


def _each_round(figure: Figure, view: View, rounds: Rounds) -> list[list[float]]:
    """Return one value for each round that has samples."""
    if view == "as a rule":
        return [[percentile(row, 50.0)] for row in rounds if row]
    best = min if figure.better == "lower" else max
    return [[best(row)] for row in rounds if row]


def _share(figure: Figure) -> float:
    """Return which percentile of the rounds is compared: their better quarter's end."""
    return _QUARTILE if figure.better == "lower" else 100.0 - _QUARTILE


def _both(
    first: Mapping[str, Rounds], second: Mapping[str, Rounds]
) -> dict[str, tuple[Rounds, Rounds]]:
    return {key: (first[key], second[key]) for key in first if key in second}


def _verdict(figure: Figure, measured: Ratio, machine: Ratio | None, confidence: float) -> Verdict:
    if not figure.judged:
        return "same"
    ratios = [_worsening(figure, measured)]
    if figure.timed and machine is not None and _is_sure(machine):
        ratios.append(ratios[0].over(machine))
    bounds = [each.interval(confidence) for each in ratios]
    if any(math.isnan(low) for low, _ in bounds):
        return "unknown"
    if all(low > LEAST_CHANGE for low, _ in bounds):
        return "worse"
    if all(high < 1.0 / LEAST_CHANGE for _, high in bounds):
        return "better"
    return "same"


def _is_sure(machine: Ratio) -> bool:
    """Whether the machine's own speed has changed; otherwise its ratio is but another noise."""
    low, high = machine.interval()
    return low > 1.0 or high < 1.0


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
        ("provider of", _ran_on(first), _ran_on(second)),
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


def _ran_on(profile: Profile) -> dict[str, str]:
    return {stage: short(found) for stage, found in profile.ran_on.items()}


def _told(profile: Profile) -> dict[str, Any]:
    return {name: profile.conditions.get(name) for name in _TOLD_CONDITIONS}


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{s}.{key}": value for s, keys in settings.items() for key, value in keys.items()}


def _plain(change: Change) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in asdict(change).items()
    }
