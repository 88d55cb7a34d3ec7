"""From a recogniser and recordings of whole turns to a judge of endings, and how well it judges.

Owns the order of the steps, what is held out, and the report. The recogniser runs as it does in a
conversation, so that what is judged by is what will be there.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgevoice.engines import encoder_judge
from edgevoice.engines.encoder_judge import EncoderJudge
from edgevoice.engines.recogniser import load_recogniser
from edgevoice.engines.segmented_recogniser import OfflineRecogniserModel, heard_as
from edgevoice.engines.utterance_decoder import Listening
from edgevoice.errors import ConfigError, ExportError
from edgevoice.export.ending.cases import Case, cases
from edgevoice.export.ending.fitting import area, fit
from edgevoice.export.ending.speech import clips
from edgevoice.frames import Float32
from edgevoice.progress import Meter
from edgevoice.settings import RecogniserSettings
from edgevoice.whole_file import write_whole

_HELD_OUT = 6
"""Every so many'th recording is not fitted to, and judged."""
_FEWEST = 60
_TOLD_EVERY = 500
_WHOLE_ENDS = (".", "!", "?")


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked for.

    Attributes:
        recogniser: Folder of an installed recogniser.
        speech: Folders of recordings, one whole turn each, or of the generator's shards.
        out: The file to write.
        penalty: See :func:`edgevoice.export.ending.fitting.fit`.
        threads: Of one encoder.
        seed: Of what is drawn.
    """

    recogniser: Path
    speech: Sequence[Path]
    out: Path
    penalty: float
    threads: int = 1
    seed: int = 0


@dataclass(slots=True)
class _Heard:
    features: list[Float32]
    kinds: list[str]
    recordings: list[int]


def make(request: Request, meter: Meter, say: Callable[[str], object]) -> dict[str, Any]:
    """Fit, write :attr:`Request.out`, and return the report that lies beside it as JSON.

    Raises:
        ConfigError: There are no recordings that can be used.
        ExportError: The recogniser has no encoder of its own here that could be judged by.
        ArtifactError: It is not installed, or is none.
    """
    decoder = listening(request.recogniser, request.threads)
    random = np.random.default_rng([request.seed, 0x65])
    found = _Heard([], [], [])
    recordings = clips(request.speech, say, _is_whole)
    with meter("listen", None):
        for number, recording in enumerate(recordings):
            if number % _TOLD_EVERY == 0:
                say(f"{number} of {len(recordings)} recordings heard")
            for case in cases(recording(), random):
                found.features.append(_features(decoder, case))
                found.kinds.append(case.kind)
                found.recordings.append(number)
    features, kinds = np.array(found.features, np.float32), np.array(found.kinds)
    if np.count_nonzero(kinds == "whole") < _FEWEST:
        raise ConfigError(
            f"{', '.join(map(str, request.speech))}: {np.count_nonzero(kinds == 'whole')} "
            f"recordings of 1 to 12 s with speech in them; at least {_FEWEST} are needed"
        )
    held_out = np.array(found.recordings) % _HELD_OUT == 0
    with meter("fit", None):
        report = _judged(
            fit(features[~held_out], kinds[~held_out] == "whole", request.penalty),
            features[held_out],
            kinds[held_out],
        )
        ending = fit(features, kinds == "whole", request.penalty)
    report = {
        "recogniser": request.recogniser.name,
        "recordings": len(recordings),
        "cases": dict(Counter(found.kinds)),
        "penalty": request.penalty,
        **report,
    }
    write_beside(request.out, ending, report)
    return report


def _features(decoder: Listening, case: Case) -> Float32:
    samples, end = heard_as(case.samples)
    return encoder_judge.features(decoder.states(samples), end)


def _judged(ending: EncoderJudge, features: Float32, kinds: Any) -> dict[str, Any]:
    odds = (features @ ending.weights + ending.bias).astype(np.float64)
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


def listening(recogniser: Path, threads: int) -> Listening:
    """Load the encoder in the folder ``recogniser``.

    Raises:
        ExportError: It has none of its own here that could be judged by.
        ArtifactError: It is not installed, or is no recogniser.
    """
    model = load_recogniser(recogniser, RecogniserSettings(threads=threads))
    decoder: object = model.decoder if isinstance(model, OfflineRecogniserModel) else None
    if not isinstance(decoder, Listening):
        raise ExportError(
            f"{recogniser.name}: its encoder's outputs are not to be had; a Whisper of "
            "edgevoice's own export is needed, such as whisper-tiny.en-int8"
        )
    return decoder


def write_beside(out: Path, judge: EncoderJudge, report: dict[str, Any]) -> None:
    """Write ``judge`` to ``out``, and the report beside it as JSON."""
    out.parent.mkdir(parents=True, exist_ok=True)
    encoder_judge.write(judge, out)
    write_whole(out.with_suffix(".json"), (json.dumps(report, indent=2) + "\n").encode())
