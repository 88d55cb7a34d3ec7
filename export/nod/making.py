"""From a recogniser, nods and other speech to a judge of nods, and how well it judges.

Owns the report; the fit is :mod:`edgevoice.export.nod.network`'s.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgevoice.engines.encoder_judge import EncoderJudge
from edgevoice.engines.utterance_decoder import Listening
from edgevoice.errors import ConfigError
from edgevoice.export.ending.fitting import area
from edgevoice.export.ending.judge_fit import (
    FEWEST,
    HELD_OUT,
    Fitting,
    heard_features,
    listening,
    write_beside,
)
from edgevoice.export.ending.speech import clips
from edgevoice.export.nod.moments import MOMENTS_MS, moments
from edgevoice.export.nod.network import fit
from edgevoice.frames import Float32
from edgevoice.progress import Meter

_TOLD_EVERY = 250
_MISTAKEN = 0.05


@dataclass(slots=True)
class _Heard:
    decoder: Listening
    random: np.random.Generator
    say: Callable[[str], object]
    features: list[Float32] = field(default_factory=list)
    nods: list[bool] = field(default_factory=list)
    moments_ms: list[float] = field(default_factory=list)
    recordings: list[int] = field(default_factory=list)

    def hear(self, folders: Sequence[Path], *, nods: bool) -> int:
        """Add what is heard of the recordings in ``folders``; return of how many something was."""
        recordings = clips(folders, self.say)
        used = 0
        for number, recording in enumerate(recordings):
            if number % _TOLD_EVERY == 0:
                self.say(f"{number} of {len(recordings)} {'nods' if nods else 'others'} heard")
            before = len(self.nods)
            for moment_ms, samples in moments(recording(), self.random):
                self.features.append(heard_features(self.decoder, samples))
                self.nods.append(nods)
                self.moments_ms.append(moment_ms)
                self.recordings.append(number)
            used += len(self.nods) > before
        return used


def make(
    fitting: Fitting,
    nods: Sequence[Path],
    others: Sequence[Path],
    meter: Meter,
    say: Callable[[str], object],
) -> dict[str, Any]:
    """Fit, write :attr:`Fitting.out`, and return the report that lies beside it as JSON.

    ``nods`` are folders of recordings, one nod each, or of the generator's shards; ``others`` are
    the same of speech that is none.

    Raises:
        ConfigError: There are too few recordings.
        ExportError: The recogniser has no encoder of its own here that could be judged by.
        ArtifactError: It is not installed, or is none.
    """
    decoder = listening(fitting.recogniser, fitting.threads)
    found = _Heard(decoder, np.random.default_rng([fitting.seed, 0x6E]), say)
    with meter("listen", None):
        counts = {
            "nods": found.hear(nods, nods=True),
            "others": found.hear(others, nods=False),
        }
    for kind, count in counts.items():
        if count < FEWEST:
            raise ConfigError(
                f"--{kind}: {count} recordings with speech in them; at least {FEWEST} are needed"
            )
    features, are_nods = np.array(found.features, np.float32), np.array(found.nods)
    held_out = np.array(found.recordings) % HELD_OUT == 0
    with meter("fit", None):
        judged = _judged(
            fit(features[~held_out], are_nods[~held_out], fitting.seed, fitting.penalty),
            features[held_out],
            are_nods[held_out],
            np.array(found.moments_ms)[held_out],
        )
        judge = fit(features, are_nods, fitting.seed, fitting.penalty)
    report = {
        "recogniser": fitting.recogniser.name,
        "recordings": counts,
        "moments": {"nods": int(are_nods.sum()), "others": int((~are_nods).sum())},
        "penalty": fitting.penalty,
        "held_out": judged,
    }
    write_beside(fitting.out, judge, report)
    return report


def _judged(judge: EncoderJudge, features: Float32, nods: Any, moments_ms: Any) -> dict[str, Any]:
    """Return, of each moment, the area under the ROC curve, and how many others are told from
    nods where one nod in twenty is taken for something else."""
    odds = judge.odds(features).astype(np.float64)
    rows: dict[str, Any] = {}
    for moment_ms in MOMENTS_MS:
        at = moments_ms == moment_ms
        nod, other = odds[at & nods], odds[at & ~nods]
        if min(nod.size, other.size) < 20:
            continue
        told = float(np.mean(other < np.quantile(nod, _MISTAKEN)))
        rows[f"{moment_ms:.0f} ms"] = {
            "area": round(area(nod, other), 4),
            "told": round(told, 3),
            "cases": dict(Counter("nod" if each else "other" for each in nods[at].tolist())),
        }
    return rows
