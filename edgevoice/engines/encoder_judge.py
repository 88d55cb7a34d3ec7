"""What kind of speech it is, judged from what the recogniser's own encoder made of it.

An encoder that was trained to write words with marks hears how a sentence ends, and whether it is
one: the fall of the voice, the lengthened syllable, the words themselves. A logistic regression on
its outputs around the end of the speech reads that off, at no cost beside the decode that is made
in any case. There is one that says whether a turn is over (:data:`ENDINGS`, `edgevoice export
ending` fits it), and one that says whether speech over the agent is a nod (:data:`NODS`, `edgevoice
export nod`). Those that come with edgevoice lie in these folders, with what they were fitted on.
"""

from __future__ import annotations

import io
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevoice.errors import ArtifactError
from edgevoice.frames import Float32
from edgevoice.whole_file import write_whole

ENDINGS = Path(__file__).parents[1] / "endings"
"""Does the turn end here."""
NODS = Path(__file__).parents[1] / "nods"
"""Is this, so far, "mm-hm", "yeah" or the like, and no more."""

WINDOWS = ((-4, 0), (-12, -4), (-32, -12), (-64, -32), (0, 4), (4, 10))
"""Frames, relative to the end of what was heard, whose means are looked at. What lies behind the
end is silence, and holds what the encoder gathered over all of the speech."""


@dataclass(frozen=True, slots=True)
class EncoderJudge:
    """A fitted judgement: of one kind of speech, against all other.

    Attributes:
        weights: float32, [windows x width].
        bias: Of the log odds.
    """

    weights: Float32
    bias: float

    @property
    def width(self) -> int:
        """Of the encoder that it judges by."""
        return len(self.weights) // len(WINDOWS)

    def probability(self, states: NDArray[Any], end: int) -> float:
        """Return the probability in [0, 1] that the speech that is heard up to ``end`` is of its
        kind.

        Both kinds are taken to be equally likely.

        Args:
            states: float32, [frames, width], as :attr:`Written.states
                <edgevoice.engines.utterance_decoder.Written>` has them.
            end: Frames of what was heard; behind them lies what was added for the decoder's sake.
        """
        odds = float(features(states, end) @ self.weights) + self.bias
        return 1.0 / (1.0 + math.exp(-min(max(odds, -30.0), 30.0)))


def features(states: NDArray[Any], end: int) -> Float32:
    """Return what a judgement looks at: the mean of each window, zeros where it has no frames.

    >>> features(np.ones((8, 2), np.float32), 6)[:6].tolist()
    [1.0, 1.0, 1.0, 1.0, 0.0, 0.0]
    """
    frames, width = states.shape
    end = min(end, frames)
    found = np.zeros((len(WINDOWS), width), np.float32)
    for place, (first, last) in enumerate(WINDOWS):
        part = states[max(0, end + first) : max(0, min(frames, end + last))]
        if len(part):
            found[place] = part.mean(axis=0)
    return found.ravel()


def for_artifact(root: Path, name: str) -> EncoderJudge | None:
    """Return the judgement in ``root`` for the artifact ``name``, as "whisper-tiny.en-int8".

    None where there is none for it.

    Raises:
        ArtifactError: Its file is damaged.
    """
    for path in sorted(root.glob("*.npz")):
        if f"{name}-".startswith(f"{path.stem}-"):
            return read(path)
    return None


def read(path: Path) -> EncoderJudge:
    """Return what :func:`write` wrote.

    Raises:
        ArtifactError: The file is missing or damaged.
    """
    try:
        with np.load(path) as stored:
            weights, bias = stored["weights"], float(stored["bias"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        raise ArtifactError(
            f"{path} holds no judgement by an encoder ({error}); install edgevoice again"
        ) from error
    whole = weights.ndim == 1 and len(weights) and len(weights) % len(WINDOWS) == 0
    if not whole or weights.dtype != np.float32 or not np.isfinite([*weights, bias]).all():
        raise ArtifactError(
            f"{path}: weights of shape {weights.shape}; finite float32 of {len(WINDOWS)} windows "
            "are needed; install edgevoice again"
        )
    return EncoderJudge(weights, bias)


def write(judge: EncoderJudge, path: Path) -> None:
    """Write ``judge`` as an npz file, whole or not at all."""
    content = io.BytesIO()
    np.savez(content, weights=judge.weights, bias=np.float32(judge.bias))
    write_whole(path, content.getvalue())
