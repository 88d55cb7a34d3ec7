"""From a recogniser, nods and other speech to a judge of nods, and how well it judges.

Owns what is held out and the report; the fit is :mod:`edgevoice.export.ending.fitting`'s.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgevoice.engines import encoder_judge
from edgevoice.engines.encoder_judge import EncoderJudge
from edgevoice.engines.segmented_recogniser import heard_as
from edgevoice.engines.utterance_decoder import Listening
from edgevoice.errors import ConfigError
from edgevoice.export.ending.fitting import area, fit
from edgevoice.export.ending.making import listening, write_beside
from edgevoice.export.ending.speech import clips
from edgevoice.export.nod.moments import MOMENTS_MS, moments
from edgevoice.frames import Float32
from edgevoice.progress import Meter

_HELD_OUT = 6
"""Every so many'th recording is not fitted to, and judged."""
_FEWEST = 60
_TOLD_EVERY = 250
_MISTAKEN = 0.05


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked for.

    Attributes:
        recogniser: Folder of an installed recogniser.
        nods: Folders of recordings, one nod each, or of the generator's shards.
        others: The same of speech that is none.
        out: The file to write.
        penalty: See :func:`edgevoice.export.ending.fitting.fit`.
        threads: Of one encoder.
        seed: Of what is drawn.
    """

    recogniser: Path
    nods: Sequence[Path]
    others: Sequence[Path]
    out: Path
    penalty: float
    threads: int = 1
    seed: int = 0


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
                heard, end = heard_as(samples)
                self.features.append(encoder_judge.features(self.decoder.states(heard), end))
                self.nods.append(nods)
                self.moments_ms.append(moment_ms)
                self.recordings.append(number)
            used += len(self.nods) > before
        return used


def make(request: Request, meter: Meter, say: Callable[[str], object]) -> dict[str, Any]:
    """Fit, write :attr:`Request.out`, and return the report that lies beside it as JSON.

    Raises:
        ConfigError: There are too few recordings.
        ExportError: The recogniser has no encoder of its own here that could be judged by.
        ArtifactError: It is not installed, or is none.
    """
    decoder = listening(request.recogniser, request.threads)
    found = _Heard(decoder, np.random.default_rng([request.seed, 0x6E]), say)
    with meter("listen", None):
        counts = {
            "nods": found.hear(request.nods, nods=True),
            "others": found.hear(request.others, nods=False),
        }
    for kind, count in counts.items():
        if count < _FEWEST:
            raise ConfigError(
                f"--{kind}: {count} recordings with speech in them; at least {_FEWEST} are needed"
            )
    features, nods = np.array(found.features, np.float32), np.array(found.nods)
    held_out = np.array(found.recordings) % _HELD_OUT == 0
    with meter("fit", None):
        judged = _judged(
            fit(features[~held_out], nods[~held_out], request.penalty),
            features[held_out],
            nods[held_out],
            np.array(found.moments_ms)[held_out],
        )
        judge = fit(features, nods, request.penalty)
    report = {
        "recogniser": request.recogniser.name,
        "recordings": counts,
        "moments": {"nods": int(nods.sum()), "others": int((~nods).sum())},
        "penalty": request.penalty,
        "held_out": judged,
    }
    write_beside(request.out, judge, report)
    return report


def _judged(judge: EncoderJudge, features: Float32, nods: Any, moments_ms: Any) -> dict[str, Any]:
    """Return, of each moment, the area under the ROC curve, and how many others are told from
    nods where one nod in twenty is taken for something else."""
    odds = (features @ judge.weights + judge.bias).astype(np.float64)
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
