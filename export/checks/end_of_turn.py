"""Measures an end-of-turn model against its float reference: clips judged alike.

Each recording is judged whole and cut off in its middle, plain and noisy: both answers of the model
occur.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from edgevoice.engines.recogniser import load_end_of_turn
from edgevoice.errors import ExportError
from edgevoice.export.calibration import Clip
from edgevoice.export.checks import costs, recordings
from edgevoice.export.gates import Figures
from edgevoice.frames import SAMPLE_RATE_HZ, Float32
from edgevoice.settings import EndOfTurnSettings

SILENCE_SAMPLES = SAMPLE_RATE_HZ // 5
"""What turn-taking has waited when it asks."""
CUT = 0.55
"""Of a recording, where its turn surely is not over."""
_THRESHOLD = EndOfTurnSettings().threshold


def measure(reference: Path, candidate: Path, material: Path | None, threads: int) -> Figures:
    """Return ``agreement``, ``probability_difference`` (mean), ``size_ratio`` and the run times.

    Raises:
        ArtifactError: An artifact cannot be loaded.
        ConfigError: ``material`` has no recordings.
        ExportError: The reference gives one answer to all of them.
    """
    settings = EndOfTurnSettings(threads=threads)
    judges = [load_end_of_turn(folder, settings) for folder in (reference, candidate)]
    asked = list(turns(material))
    first, second = (np.array([judge.probability(turn) for turn in asked]) for judge in judges)
    ended = first >= _THRESHOLD
    if ended.all() or not ended.any():
        raise ExportError(
            f"the reference calls {'every' if ended.all() else 'no'} recording a finished turn; "
            "an end-of-turn model cannot be judged by that: give --material with other speech"
        )
    longest = max(asked, key=len)
    return {
        "agreement": float((ended == (second >= _THRESHOLD)).mean()),
        "probability_difference": float(np.abs(first - second).mean()),
        "ended_share": float(ended.mean()),
        "turns": float(len(asked)),
        "size_ratio": costs.size_ratio(reference, candidate),
        **costs.speed(
            lambda: judges[0].probability(longest), lambda: judges[1].probability(longest)
        ),
    }


def turns(material: Path | None) -> Iterator[Float32]:
    """Yield the turns of the user's recordings, or of the default ones."""
    yield from turns_of(recordings.speech(material))


def turns_of(clips: Iterable[Clip]) -> Iterator[Float32]:
    """Yield each recording whole and cut off, plain or noisy, with the silence of a question."""
    silence = np.zeros(SILENCE_SAMPLES, np.float32)
    for number, clip in enumerate(clips):
        samples = recordings.noisy(clip.samples, number) if number % 2 else clip.samples
        yield np.concatenate([samples, silence])
        yield np.concatenate([samples[: int(CUT * len(samples))], silence])
