"""Measures a wake word against its float reference: the scores of every 80 ms of sound.

Runs the three graphs on onnxruntime as openWakeWord does (``openwakeword/utils.py``): log-mel of
samples in the range of int16, ``/ 10 + 2``; an embedding of 76 frames, every 8; the head over the
last embeddings.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from edgevoice.engines.ort import open_session
from edgevoice.export.checks import costs, recordings
from edgevoice.export.families.wake_word import FILES
from edgevoice.export.gates import Figures
from edgevoice.frames import SAMPLE_RATE_HZ, Float32

_FRAMES, _STEP = 76, 8
_TIMED_S = 4
_FIRES = 0.5


class Listener:
    """The three graphs of one artifact."""

    def __init__(self, folder: Path, threads: int) -> None:
        self._mel, self._embedding, self._head = (
            open_session(folder / name, threads) for name in FILES
        )
        (given,) = self._head.get_inputs()
        self._windows = int(given.shape[1])

    def embeddings(self, samples: Float32) -> npt.NDArray[np.float32]:
        """Return an embedding for every 80 ms of ``samples`` (16 kHz), float32 ``[n, 96]``."""
        # int16's range: the graph's logarithm has a floor.
        (mel,) = self._mel.run(None, {self._mel.get_inputs()[0].name: samples[None] * 32767})
        bands = mel.reshape(-1, mel.shape[-1]) / 10 + 2
        stretches = sliding_window_view(bands, _FRAMES, axis=0)[::_STEP].transpose(0, 2, 1)
        fed = np.ascontiguousarray(stretches[..., None], np.float32)
        (found,) = self._embedding.run(None, {self._embedding.get_inputs()[0].name: fed})
        flat: npt.NDArray[np.float32] = found.reshape(len(fed), -1)
        return flat

    def scores(self, samples: Float32) -> npt.NDArray[np.float32]:
        """Return the head's score at every 80 ms, once enough was heard."""
        name = self._head.get_inputs()[0].name
        windows = sliding_window_view(self.embeddings(samples), self._windows, axis=0)
        heard = [
            float(self._head.run(None, {name: np.ascontiguousarray(w.T[None])})[0].reshape(-1)[0])
            for w in windows
        ]
        return np.array(heard, np.float32)


def measure(reference: Path, candidate: Path, material: Path | None, threads: int) -> Figures:
    """Return ``agreement``, ``score_difference``, ``embedding_cosine``, size and run times.

    Raises:
        ArtifactError: An artifact cannot be loaded.
        ConfigError: ``material`` has no recordings.
    """
    first, second = (Listener(folder, threads) for folder in (reference, candidate))
    sound = recordings.track(material)
    one, two = first.embeddings(sound), second.embeddings(sound)
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    cosines = (one * two).sum(axis=1) / np.maximum(norms, 1e-9)
    a, b = first.scores(sound), second.scores(sound)
    timed = sound[: _TIMED_S * SAMPLE_RATE_HZ]
    return {
        "agreement": float(((a >= _FIRES) == (b >= _FIRES)).mean()),
        "score_difference": float(np.abs(a - b).max()),
        "embedding_cosine": float(cosines.mean()),
        "size_ratio": costs.size_ratio(reference, candidate),
        **costs.speed(lambda: first.scores(timed), lambda: second.scores(timed)),
    }
