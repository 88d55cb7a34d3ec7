"""Measures a VAD against its float reference: windows judged alike, in the runtime's own engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgevoice.engines.silero_vad import SileroVadModel, load_vad
from edgevoice.errors import ExportError
from edgevoice.export.checks import costs, recordings
from edgevoice.export.gates import Figures
from edgevoice.frames import SAMPLE_RATE_HZ, Float32
from edgevoice.settings import VadSettings

# What is timed: long enough to be no matter of a few microseconds, short enough to be repeated.
_TIMED_S = 4


def measure(reference: Path, candidate: Path, material: Path | None, threads: int) -> Figures:
    """Return ``agreement``, ``speech_share`` of the reference, ``size_ratio`` and the run times.

    ``speech_agreement`` and ``silence_agreement`` are the shares of the reference's windows of
    each kind that the candidate judges alike: a recording is mostly one of them.

    Raises:
        ArtifactError: An artifact cannot be loaded.
        ConfigError: ``material`` has no recordings.
        ExportError: The reference hears no speech in it, or nothing else.
    """
    del threads  # the VAD runs on one
    sound = recordings.track(material)
    models = [load_vad(folder, VadSettings()) for folder in (reference, candidate)]
    first, second = (_decisions(model, sound) for model in models)
    share = float(first.mean())
    if not 0.05 <= share <= 0.95:
        raise ExportError(
            f"the reference calls {share:.0%} of the recordings speech; a VAD cannot be judged by "
            "that: give --material with speech and pauses"
        )
    timed = sound[: _TIMED_S * SAMPLE_RATE_HZ]
    streams = [model.open() for model in models]
    alike = first == second
    return {
        "agreement": float(min(alike[first].mean(), alike[~first].mean())),
        "speech_agreement": float(alike[first].mean()),
        "silence_agreement": float(alike[~first].mean()),
        "speech_share": share,
        "windows": float(len(first)),
        "size_ratio": costs.size_ratio(reference, candidate),
        **costs.speed(lambda: streams[0].accept(timed), lambda: streams[1].accept(timed)),
    }


def _decisions(model: SileroVadModel, sound: Float32) -> np.ndarray:
    return np.array(model.open().accept(sound)) >= VadSettings().threshold
