"""One run of the profiler from settings to a :class:`~edgevoice.profiler.profile_file.Profile`."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm

from edgevoice import catalogue, host
from edgevoice.devices import defaults
from edgevoice.devices.profile import DeviceProfile, load_profile
from edgevoice.errors import ConfigError, unknown
from edgevoice.profiler import machine, soak, waterfall
from edgevoice.profiler.budgets import judge
from edgevoice.profiler.children import PREPARATION, Child
from edgevoice.profiler.figures import STAGES
from edgevoice.profiler.profile_file import Profile, overhead
from edgevoice.profiler.rounds import QUICK, Measured, Open, Plan, measure
from edgevoice.profiler.second_load import busy
from edgevoice.settings import FIRST_PASSES, Settings
from edgevoice.store import Store

_AFTER_SOAK = Plan(rounds=3, turns=1, share=0.5)


def choose(
    path: Path | None, bundle: str | None, device: str, assignments: Sequence[str]
) -> tuple[DeviceProfile | None, Settings]:
    """Return the device profile, if any, and what is measured.

    Args:
        path: Of the configuration; None: the user's.
        bundle: Whose models are measured, over the configuration.
        device: A profile over the configuration's, "" for that.
        assignments: ``section.key=value`` strings, over all of it.

    Raises:
        ConfigError: A bundle, profile or setting is unknown, or the profile is another machine's.
    """
    models = _models_of(bundle) if bundle is not None else []
    settings = defaults.load(path, [*models, *assignments], device)
    name = settings.device.profile
    return load_profile(name) if name else None, settings


def check_models(settings: Settings) -> None:
    """Make sure that every artifact is in the store.

    Raises:
        ArtifactError: One is not; the message says how to fetch it.
    """
    machine.models(settings, Store.default())


def run(
    settings: Settings,
    device: DeviceProfile | None,
    *,
    stages: Sequence[str] = (),
    quick: bool = False,
    soak_s: float | None = None,
    busy_processes: int = 0,
    open_child: Open = Child,
) -> Profile:
    """Measure ``settings``.

    Args:
        settings: What is measured.
        device: Whose budgets count, if any.
        stages: Measure these alone, of :data:`edgevoice.profiler.figures.STAGES`; empty: all.
        quick: Few samples.
        soak_s: Work so long behind it.
        busy_processes: Kept busy beside it.
        open_child: Starts the processes that measure.

    Raises:
        ConfigError: There is no such stage.
        EdgevoiceError: An artifact is missing, or a stage cannot be loaded or failed.
    """
    for stage in stages:
        if stage not in STAGES:
            raise ConfigError(unknown("stage", stage, STAGES))
    averages = machine.load_average()
    measured_at = datetime.now().astimezone().isoformat(timespec="seconds")
    models = machine.models(settings, Store.default())
    plan = QUICK if quick else Plan()
    listening = settings.recogniser.heard_with()
    usual = tuple(s for s in STAGES if s != "first-pass" or s in listening)
    plan = replace(plan, stages=tuple(s for s in STAGES if s in (stages or usual)))
    with busy(busy_processes), spoken(settings, open_child) as speech:
        found = _rounds(settings, speech, plan, open_child)
        soaked = _soaked(settings, speech, soak_s, open_child) if soak_s else None
    position = waterfall.middle(found.turns)
    return Profile(
        measured_at=measured_at,
        host=machine.facts(),
        versions=host.versions(),
        models=models,
        ran_on=found.ran_on,
        settings=machine.chosen(settings),
        conditions={
            "load": busy_processes,
            "load_average": averages,
            "device": device.name if device else "",
            "quick": quick,
            "rounds": found.rounds,
            "turns": plan.turns,
            "took_s": round(found.took_s, 1),
        },
        samples=found.samples,
        free=found.free,
        not_measured=found.not_measured,
        overhead=overhead(found),
        turns=tuple(found.turns),
        waterfall=()
        if position is None
        else waterfall.bars(found.turns[position], found.spans[position], found.ran_on),
        budgets=judge(device, found.samples) if device else (),
        soak=soaked,
    )


@contextmanager
def spoken(settings: Settings, open_child: Open = Child) -> Iterator[list[Path]]:
    """Give WAV files of questions, once every stage has been loaded for the first time."""
    with tempfile.TemporaryDirectory(prefix="edgevoice-profile-") as folder:
        with open_child(PREPARATION, settings, folder=folder) as child:
            speech = [Path(path) for path in child.first["speech"]]
        yield speech


def _rounds(settings: Settings, speech: list[Path], plan: Plan, open_child: Open) -> Measured:
    with _bar("measuring", plan.rounds * len(plan.stages)) as bar:

        def advance(stage: str) -> None:
            bar.set_postfix_str(stage)
            bar.update(1)

        return measure(settings, speech, plan, advance, open_child)


def _soaked(
    settings: Settings, speech: list[Path], soak_s: float, open_child: Open
) -> Mapping[str, Any]:
    with _bar("soaking", round(soak_s)) as bar:
        found = soak.soak(settings, speech, soak_s, bar.update, open_child)
    return {**found, "after": _rounds(settings, speech, _AFTER_SOAK, open_child).samples}


def _bar(label: str, total: int) -> Any:
    return tqdm(
        desc=label,
        total=total,
        leave=False,
        file=sys.stderr,
        disable=not sys.stderr.isatty(),
        bar_format="{desc} {bar} {percentage:3.0f}% {elapsed} {postfix}",
    )


def _models_of(bundle: str) -> list[str]:
    """Return the assignments that choose a bundle's models."""
    stages = {"vad", "recogniser", "end-of-turn", "language-model", "speech"}
    return [
        f"{entry.stage.replace('-', '_')}.model={json.dumps(entry.name)}"
        for entry in catalogue.load().expand([bundle])
        # A first pass comes with the recogniser that it is for.
        if entry.stage in stages and entry.name not in FIRST_PASSES.values()
    ]
