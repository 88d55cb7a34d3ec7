"""The file of a profile: JSON with a version, everything in it that a comparison needs.

Raw samples are in it by round, so that intervals can be computed again; percentiles are there for
whoever reads it without edgevoice.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgevoice.errors import ConfigError
from edgevoice.profiler.budgets import Budget
from edgevoice.profiler.figures import FIGURES, YARDSTICK
from edgevoice.profiler.rounds import Measured
from edgevoice.profiler.running_on import RanOn
from edgevoice.profiler.spread import Estimate, Rounds, estimates
from edgevoice.profiler.waterfall import Bar

SCHEMA = "edgevoice-profile"
SCHEMA_VERSION = 1
SHARES = (50, 90, 95)

BETWEEN_RUNS = 0.03
"""Standard error of a time's logarithm from one run to the next that rounds of a run do not show:
where the code lies in memory, which core, how warm."""

_CROWDING = 0.5
"""Of what other work took in this run, by the logarithm: so much it may take less or more in the
next. Of 700 pairs of medians from 9 runs on a busy machine 76 % agreed within the intervals that
rounds alone gave, and 99 % within these."""


@dataclass(frozen=True, slots=True)
class Profile:
    """One run of the profiler, as it is written and read.

    Attributes:
        measured_at: ISO 8601, with the offset from UTC.
        host: Name and value of every fact of the machine.
        versions: Of the packages, by name.
        models: By stage: name, family, scheme, manifest_sha256, files.
        ran_on: By stage, the execution providers that onnxruntime ran it on; without stages that
            other engines run.
        settings: By section and key.
        conditions: Load, load average at the start, device profile, rounds, how long it took.
        samples: By figure and round.
        free: The same, less what the stage waited for a core; not of all figures.
        not_measured: Why not, by figure or stage.
        overhead: What the measuring itself took.
        turns: Every turn of the conversations.
        waterfall: The bars of the turn that lay in the middle.
        budgets: Of the device profile.
        soak: What :mod:`edgevoice.profiler.soak` found, None without one.
    """

    measured_at: str
    host: Mapping[str, str]
    versions: Mapping[str, str]
    models: Mapping[str, Any]
    ran_on: Mapping[str, Sequence[RanOn]]
    settings: Mapping[str, Any]
    conditions: Mapping[str, Any]
    samples: Mapping[str, Rounds]
    free: Mapping[str, Rounds]
    not_measured: Mapping[str, str]
    overhead: Mapping[str, float]
    turns: tuple[Mapping[str, Any], ...] = ()
    waterfall: tuple[Bar, ...] = ()
    budgets: tuple[Budget, ...] = ()
    soak: Mapping[str, Any] | None = None
    estimates: Mapping[str, Mapping[int, Estimate]] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        crowded = -_CROWDING * math.log1p(-(self.waited_share or 0.0))
        between = math.hypot(BETWEEN_RUNS, crowded)
        found = {
            key: dict(
                zip(
                    SHARES,
                    estimates(self.samples[key], SHARES, between if FIGURES[key].timed else 0.0),
                    strict=True,
                )
            )
            for key in FIGURES
            if key in self.samples
        }
        object.__setattr__(self, "estimates", found)

    @property
    def waited_share(self) -> float | None:
        """Share of the stages' own time that they could not run, None if nobody counted."""
        pairs = [
            (sum(map(sum, self.samples[key])), sum(map(sum, free)))
            for key, free in self.free.items()
            if key.endswith(".cold_start_ms") or key == YARDSTICK
        ]
        wall_ms, free_ms = (sum(each) for each in zip(*pairs, strict=True)) if pairs else (0.0, 0.0)
        # One that never ran would have no interval at all.
        return min(0.99, max(0.0, 1.0 - free_ms / wall_ms)) if wall_ms else None

    def count(self, key: str) -> int:
        """Return how many samples of a figure there are."""
        return sum(map(len, self.samples[key]))


def overhead(measured: Measured) -> dict[str, float]:
    """Return what the measuring took: of a turn, of a core, and of the clock.

    A stage's figure has two readings of the clock in it; a turn has its spans.
    """
    from edgevoice.profiler.workload import Stopwatch

    watch = Stopwatch()
    for _ in range(1000):
        _ = Stopwatch().ms
    timed_us = float(watch.ms[0])  # 1000 of them, in ms
    spans = [len(each) for each in measured.spans]
    per_turn = sum(spans) / max(1, len(spans))
    answered = [t["voice_to_voice_ms"] for t in measured.turns if t["voice_to_voice_ms"]]
    mean_ms = sum(answered) / len(answered) if answered else math.nan
    return {
        "timing_us": round(timed_us, 3),
        "span_us": round(measured.span_us, 3),
        "spans_a_turn": round(per_turn, 1),
        "share_of_voice_to_voice": round(per_turn * measured.span_us / 1000.0 / mean_ms, 6),
        "parent_share_of_a_core": round(measured.parent_share, 4),
    }


def to_json(profile: Profile) -> dict[str, Any]:
    """Return the document."""
    figures = {}
    for key, found in profile.estimates.items():
        figure = FIGURES[key]
        figures[key] = {
            "title": figure.title,
            "unit": figure.unit,
            "better": figure.better,
            "count": profile.count(key),
            **{
                f"p{share}": {"value": e.value, "low": _bound(e.low), "high": _bound(e.high)}
                for share, e in found.items()
            },
            "rounds": profile.samples[key],
            "rounds_less_waiting": profile.free.get(key),
        }
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "measured_at": profile.measured_at,
        "host": profile.host,
        "versions": profile.versions,
        "models": profile.models,
        "providers": profile.ran_on,
        "settings": profile.settings,
        "conditions": profile.conditions,
        "figures": figures,
        "not_measured": profile.not_measured,
        "overhead": {k: _bound(v) for k, v in profile.overhead.items()},
        "turns": profile.turns,
        "waterfall": [bar.as_json() for bar in profile.waterfall],
        "budgets": [budget.as_json() for budget in profile.budgets],
        "soak": profile.soak,
    }


def write(path: Path, text: str) -> None:
    """Write ``text``; the file appears whole, by a rename.

    Raises:
        ConfigError: It cannot be written.
    """
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error


def dump(profile: Profile) -> str:
    """Return the document as text."""
    return json.dumps(to_json(profile), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def load(path: Path) -> Profile:
    """Read a profile's file.

    Raises:
        ConfigError: It is missing, no profile, or of another schema version.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON ({error}); `edgevoice profile --json`") from error
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise ConfigError(f"{path} is no profile; `edgevoice profile --json FILE` writes one")
    if data.get("schema_version") != SCHEMA_VERSION:
        raise ConfigError(
            f"{path} has schema version {data.get('schema_version')!r}, this edgevoice reads "
            f"{SCHEMA_VERSION}; measure again with `edgevoice profile --json {path}`"
        )
    try:
        return Profile(
            measured_at=str(data["measured_at"]),
            host=data["host"],
            versions=data["versions"],
            models=data["models"],
            # A profile of an older edgevoice does not say.
            ran_on=data.get("providers", {}),
            settings=data["settings"],
            conditions=data["conditions"],
            samples={key: _rounds(figure["rounds"]) for key, figure in data["figures"].items()},
            free={
                key: _rounds(figure["rounds_less_waiting"])
                for key, figure in data["figures"].items()
                if figure["rounds_less_waiting"] is not None
            },
            not_measured=data["not_measured"],
            overhead=data["overhead"],
            turns=tuple(data["turns"]),
            waterfall=tuple(Bar(**bar) for bar in data["waterfall"]),
            budgets=tuple(Budget(**budget) for budget in data["budgets"]),
            soak=data["soak"],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{path} is not a whole profile ({error!r}); measure again") from error


def _rounds(rounds: Any) -> list[list[float]]:
    return [[float(value) for value in row] for row in rounds]


def _bound(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)
