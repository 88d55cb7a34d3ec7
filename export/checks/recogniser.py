"""What a recogniser's candidate loses beside its float reference, and what it costs.

Both are loaded by the runtime's own loader and hear the same recordings, so any family can be
measured. Two figures tell quality, and each covers the other's weakness. The difference of the
word error rates says whether words got worse, but errors of both signs cancel in it, and few
recordings make it coarse: 250 words resolve 0.4 points. The disagreement counts every word that
the candidate writes otherwise than float, right or wrong: nothing cancels, no transcript is
needed, and the word error rate cannot have changed by more (edit distances obey the triangle
inequality). What no recording touches is seen in the weights themselves
(:mod:`edgevoice.quant.onnx_drift`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgevoice.engines.recogniser import load_unguarded
from edgevoice.export import paired
from edgevoice.export.calibration import Clip
from edgevoice.export.checks import costs, recordings, weights
from edgevoice.export.gates import Figures
from edgevoice.export.words import normalise, word_errors
from edgevoice.frames import SAMPLE_RATE_HZ
from edgevoice.settings import RecogniserSettings
from edgevoice.stages import RecogniserModel

_PAIRS = 7
# Speech that is decoded once a pair: enough that one decode's overhead does not count.
_TIMED_S = 15.0
_DRAWS = 2000

Words = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What two recognisers wrote of the same recordings, words normalised.

    Attributes:
        said: Words of each recording; None where nobody wrote them down.
        reference: What the float model wrote.
        candidate: What the other wrote.
    """

    said: tuple[Words | None, ...]
    reference: tuple[Words, ...]
    candidate: tuple[Words, ...]

    def figures(self) -> dict[str, float]:
        """Return error rates as shares of the words, and their difference in points."""
        known = [i for i, words in enumerate(self.said) if words]
        words = np.array([len(self.said[i] or ()) for i in known])
        before = np.array([word_errors(self.said[i] or (), self.reference[i]) for i in known])
        after = np.array([word_errors(self.said[i] or (), self.candidate[i]) for i in known])
        points = 100.0 * (after.sum() - before.sum()) / max(words.sum(), 1)
        edits = sum(map(word_errors, self.reference, self.candidate))
        written = sum(map(len, self.reference))
        return {
            "words": float(words.sum()),
            "wer": float(after.sum() / words.sum()) if known else math.nan,
            "reference_wer": float(before.sum() / words.sum()) if known else math.nan,
            "wer_points": float(points) if known else math.nan,
            "wer_points_high": _upper_end(after - before, words) if known else math.nan,
            "disagreement": edits / max(written, 1),
        }


def measure(reference: Path, candidate: Path, material: Path | None, threads: int) -> Figures:
    """Measure the artifact ``candidate`` beside the artifact ``reference``.

    Args:
        reference: Float artifact.
        candidate: Made from it.
        material: See :func:`edgevoice.export.checks.recordings.transcribed`.
        threads: Of one decode.

    Returns:
        What :meth:`Comparison.figures` says; ``rtf`` and ``reference_rtf`` (time over length of
        the audio), ``speed_ratio`` with its 95 % interval, ``size_ratio``, ``load_s`` and
        ``reference_load_s``; ``clips``; what
        :func:`edgevoice.export.checks.weights.compare` says.

    Raises:
        ArtifactError: One of the two cannot be loaded.
        ConfigError: ``material`` has nothing to measure with.
    """
    clips = recordings.transcribed(material)
    settings = RecogniserSettings(threads=threads)
    started = time.perf_counter()
    first = load_unguarded(reference, settings)
    between = time.perf_counter()
    second = load_unguarded(candidate, settings)
    loaded = time.perf_counter()
    found = compare(first, second, clips)
    timed = sample(clips, _TIMED_S)
    ratio = paired.compare(
        lambda: transcribe(first, timed), lambda: transcribe(second, timed), _PAIRS, warm_up=0
    )
    seconds = sum(len(c.samples) for c in timed) / SAMPLE_RATE_HZ
    return {
        **found.figures(),
        "clips": float(len(clips)),
        **weights.compare(reference, candidate),
        "rtf": ratio.second_s / seconds,
        "reference_rtf": ratio.first_s / seconds,
        **costs.ratio_figures("speed_ratio", ratio),
        "size_ratio": costs.size_ratio(reference, candidate),
        "load_s": loaded - between,
        "reference_load_s": between - started,
    }


def compare(
    reference: RecogniserModel, candidate: RecogniserModel, clips: Sequence[Clip]
) -> Comparison:
    """Let both write what ``clips`` say."""
    return Comparison(
        tuple(normalise(clip.text) if clip.text else None for clip in clips),
        transcribe(reference, clips),
        transcribe(candidate, clips),
    )


def transcribe(model: RecogniserModel, clips: Sequence[Clip]) -> tuple[Words, ...]:
    """Return what ``model`` writes of each clip, normalised."""
    recogniser = model.open()
    written = []
    for clip in clips:
        recogniser.accept(clip.samples)
        written.append(normalise(recogniser.conclude().text))
        recogniser.reset()
    return tuple(written)


def sample(clips: Sequence[Clip], seconds: float) -> tuple[Clip, ...]:
    """Return every second, third... of ``clips`` by length, ``seconds`` or a little more of them.

    Short and long recordings are both there, since their costs differ.
    """
    ordered = sorted(clips, key=lambda clip: (len(clip.samples), clip.name))
    total_s = sum(len(clip.samples) for clip in clips) / SAMPLE_RATE_HZ
    step = max(1, int(total_s // seconds))
    return tuple(ordered[step // 2 :: step])


def _upper_end(more: np.ndarray, words: np.ndarray) -> float:
    """Return the upper end of the 95 % bootstrap interval of the points, recordings drawn anew."""
    drawn = np.random.default_rng(0).integers(0, len(words), size=(_DRAWS, len(words)))
    points = 100.0 * more[drawn].sum(axis=1) / words[drawn].sum(axis=1)
    return float(np.percentile(points, 97.5))
