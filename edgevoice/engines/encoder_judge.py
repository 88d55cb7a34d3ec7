"""What kind of speech it is, judged from what the recogniser's own encoder made of it.

An encoder that was trained to write words with marks hears how a sentence ends, and whether it is
one: the fall of the voice, the lengthened syllable, the words themselves. A logistic regression on
its outputs around the end of the speech, or a network of one hidden layer, reads that off, at no
cost beside the decode that is made in any case. There is one that says whether a turn is over
(:data:`ENDINGS`, `edgevoice export ending` fits it), and one that says whether speech over the
agent is a nod (:data:`NODS`, `edgevoice export nod`). Those that come with edgevoice lie in these
folders, with what they were fitted on.
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
class Hidden:
    """A layer of rectified linear units over the features.

    Attributes:
        weights: float32, [windows x width, units].
        biases: float32, [units].
    """

    weights: Float32
    biases: Float32


@dataclass(frozen=True, slots=True)
class EncoderJudge:
    """A fitted judgement: of one kind of speech, against all other.

    Attributes:
        weights: float32, [windows x width], or [units] where there is a hidden layer.
        bias: Of the log odds.
        hidden: The hidden layer; None where the features are weighed as they are.
    """

    weights: Float32
    bias: float
    hidden: Hidden | None = None

    @property
    def width(self) -> int:
        """Of the encoder that it judges by."""
        inputs = self.weights if self.hidden is None else self.hidden.weights
        return len(inputs) // len(WINDOWS)

    def odds(self, found: Float32) -> Float32:
        """Return the log odds for features: float32, [..., windows x width] to [...]."""
        if self.hidden is not None:
            found = np.maximum(found @ self.hidden.weights + self.hidden.biases, np.float32(0.0))
        weighed: Float32 = found @ self.weights + np.float32(self.bias)
        return weighed

    def probability(self, states: NDArray[Any], end: int) -> float:
        """Return the probability in [0, 1] that the speech that is heard up to ``end`` is of its
        kind.

        Both kinds are taken to be equally likely.

        Args:
            states: float32, [frames, width], as :attr:`Written.states
                <edgevoice.engines.utterance_decoder.Written>` has them.
            end: Frames of what was heard; behind them lies what was added for the decoder's sake.
        """
        odds = float(self.odds(features(states, end)))
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
            hidden = None
            if "hidden_weights" in stored:
                layer = stored["hidden_weights"].astype(np.float32)
                hidden = Hidden(layer, stored["hidden_biases"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        raise ArtifactError(
            f"{path} holds no judgement by an encoder ({error}); install edgevoice again"
        ) from error
    inputs = weights if hidden is None else hidden.weights
    whole = _fits(weights, hidden) and len(inputs) and len(inputs) % len(WINDOWS) == 0
    if not whole or weights.dtype != np.float32 or not np.isfinite([*weights, bias]).all():
        raise ArtifactError(
            f"{path}: weights of shape {inputs.shape}; finite float32 of {len(WINDOWS)} windows "
            "are needed; install edgevoice again"
        )
    return EncoderJudge(weights, bias, hidden)


def _fits(weights: Float32, hidden: Hidden | None) -> bool:
    """Whether the layers have shapes that fit to each other, and the hidden one is finite."""
    if hidden is None:
        return weights.ndim == 1
    units = (weights.shape, hidden.biases.shape, hidden.weights.shape[1:])
    finite = np.isfinite(hidden.weights).all() and np.isfinite(hidden.biases).all()
    return len(units[0]) == 1 and units[0] == units[1] == units[2] and bool(finite)


def write(judge: EncoderJudge, path: Path) -> None:
    """Write ``judge`` as an npz file, whole or not at all; a hidden layer's weights as float16."""
    arrays: dict[str, Any] = {"weights": judge.weights, "bias": np.float32(judge.bias)}
    if judge.hidden is not None:
        arrays["hidden_weights"] = judge.hidden.weights.astype(np.float16)
        arrays["hidden_biases"] = judge.hidden.biases
    content = io.BytesIO()
    np.savez(content, **arrays)
    write_whole(path, content.getvalue())
