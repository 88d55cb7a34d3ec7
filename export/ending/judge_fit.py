"""What every judge's fit has in common: what is asked, the encoder that hears, the file it leaves.

The recogniser runs as it does in a conversation, so that what is judged by is what will be there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgevoice.engines import encoder_judge
from edgevoice.engines.encoder_judge import EncoderJudge
from edgevoice.engines.recogniser import load_recogniser
from edgevoice.engines.segmented_recogniser import OfflineRecogniserModel, heard_as
from edgevoice.engines.utterance_decoder import Listening
from edgevoice.errors import ExportError
from edgevoice.frames import Float32
from edgevoice.settings import RecogniserSettings
from edgevoice.whole_file import write_whole

HELD_OUT = 6
"""Every so many'th recording is not fitted to, and judged."""
FEWEST = 60
"""Recordings of a kind."""


@dataclass(frozen=True, slots=True)
class Fitting:
    """What the user asked for, whatever is judged.

    Attributes:
        recogniser: Folder of an installed recogniser.
        out: The file to write.
        penalty: Of large weights; see what fits it.
        threads: Of one encoder.
        seed: Of what is drawn.
    """

    recogniser: Path
    out: Path
    penalty: float
    threads: int = 1
    seed: int = 0


def heard_features(decoder: Listening, samples: Float32) -> Float32:
    """Return what a judge looks at of ``samples``: float32, 16 kHz."""
    heard, end = heard_as(samples)
    return encoder_judge.features(decoder.states(heard), end)


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
