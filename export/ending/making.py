"""From a recogniser and recordings of whole turns to a judge of endings, and how well it judges.

Owns the order of the steps and the report.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgevoice.engines.encoder_judge import EncoderJudge
from edgevoice.errors import ConfigError
from edgevoice.export.ending.cases import cases
from edgevoice.export.ending.fitting import area, fit
from edgevoice.export.ending.judge_fit import (
    FEWEST,
    HELD_OUT,
    Fitting,
    heard_features,
    listening,
    write_beside,
)
from edgevoice.export.ending.speech import clips
from edgevoice.frames import Float32
from edgevoice.progress import Meter

_TOLD_EVERY = 500
_WHOLE_ENDS = (".", "!", "?")


@dataclass(slots=True)
class _Heard:
    features: list[Float32]
    kinds: list[str]
    recordings: list[int]


def make(
    fitting: Fitting, speech: Sequence[Path], meter: Meter, say: Callable[[str], object]
) -> dict[str, Any]:
    """Fit, write :attr:`Fitting.out`, and return the report that lies beside it as JSON.

    ``speech`` are folders of recordings, one whole turn each, or of the generator's shards.

    Raises:
        ConfigError: There are no recordings that can be used.
        ExportError: The recogniser has no encoder of its own here that could be judged by.
        ArtifactError: It is not installed, or is none.
    """
    decoder = listening(fitting.recogniser, fitting.threads)
    random = np.random.default_rng([fitting.seed, 0x65])
    found = _Heard([], [], [])
    recordings = clips(speech, say, _is_whole)
    with meter("listen", None):
        for number, recording in enumerate(recordings):
            if number % _TOLD_EVERY == 0:
                say(f"{number} of {len(recordings)} recordings heard")
            for case in cases(recording(), random):
                found.features.append(heard_features(decoder, case.samples))
                found.kinds.append(case.kind)
                found.recordings.append(number)
    features, kinds = np.array(found.features, np.float32), np.array(found.kinds)
    if np.count_nonzero(kinds == "whole") < FEWEST:
        raise ConfigError(
            f"{', '.join(map(str, speech))}: {np.count_nonzero(kinds == 'whole')} "
            f"recordings of 1 to 12 s with speech in them; at least {FEWEST} are needed"
        )
    held_out = np.array(found.recordings) % HELD_OUT == 0
    with meter("fit", None):
        report = _judged(
            fit(features[~held_out], kinds[~held_out] == "whole", fitting.penalty),
            features[held_out],
            kinds[held_out],
        )
        ending = fit(features, kinds == "whole", fitting.penalty)
    report = {
        "recogniser": fitting.recogniser.name,
        "recordings": len(recordings),
        "cases": dict(Counter(found.kinds)),
        "penalty": fitting.penalty,
        **report,
    }
    write_beside(fitting.out, ending, report)
    return report


def _judged(ending: EncoderJudge, features: Float32, kinds: Any) -> dict[str, Any]:
    odds = ending.odds(features).astype(np.float64)
    whole = odds[kinds == "whole"]
    areas = {
        f"area_whole_{kind}": round(area(whole, odds[kinds == kind]), 4)
        for kind in ("pause", "cut")
        if np.count_nonzero(kinds == kind)
    }
    return {"held_out_cases": dict(Counter(kinds.tolist())), **areas}


def _is_whole(text: str) -> bool:
    """Say whether the generator said a sentence: its longer texts are cut anywhere."""
    return text[:1].isupper() and text.endswith(_WHOLE_ENDS)
