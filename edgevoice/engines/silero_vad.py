"""Silero VAD through sherpa-onnx: window decisions, one recurrent state a conversation.

Owns the windowing that sherpa-onnx's `VadModel` expects. Edges (how much speech or silence makes
one) are made by :mod:`edgevoice.engines.edges`, so sherpa's own durations are set to nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sherpa_onnx

from edgevoice import manifest as manifests
from edgevoice.engines.artifact_files import onnx_file
from edgevoice.engines.edges import SpeechEdges
from edgevoice.engines.probe import ensure_loadable
from edgevoice.engines.samples import finite
from edgevoice.errors import ArtifactError
from edgevoice.frames import SAMPLE_RATE_HZ, Float32, samples_to_ms
from edgevoice.settings import VadSettings

WINDOW_SAMPLES = 512
"""Samples of one decision at 16 kHz; Silero was trained with no other."""

ONSET_LAG_MS = samples_to_ms(WINDOW_SAMPLES)
"""sherpa-onnx answers False for the first window above the threshold, whatever
``min_speech_duration`` is: an onset is one window earlier than it says."""


class SileroVad:
    """One conversation's VAD (:class:`edgevoice.stages.Vad`): about 7.5 MB and 5 ms of one core
    a second of audio on x86-64."""

    def __init__(self, native: Any) -> None:
        self._native = native
        # Newer Silero models read 64 samples from before the window; sherpa-onnx wants them in
        # front of it and ends the process on any other length.
        self._context = int(native.window_size()) - WINDOW_SAMPLES
        self._kept = np.zeros(self._context, np.float32)

    @property
    def window_samples(self) -> int:
        """Samples in one decision window."""
        return WINDOW_SAMPLES

    def accept(self, samples: Float32) -> Sequence[bool]:
        """Take float32 samples ``[n]`` at 16 kHz; return one bool per completed window."""
        pending = np.concatenate([self._kept, finite(samples)])
        decisions: list[bool] = []
        start = 0
        while start + self._context + WINDOW_SAMPLES <= len(pending):
            window = pending[start : start + self._context + WINDOW_SAMPLES]
            # A list: pybind11 reads it 20 % faster than an array, element by element.
            decisions.append(bool(self._native.is_speech(window.tolist())))
            start += WINDOW_SAMPLES
        self._kept = pending[start:].copy()
        return decisions

    def reset(self) -> None:
        """Forget everything heard."""
        self._native.reset()
        self._kept = np.zeros(self._context, np.float32)


class SileroVadModel:
    """A checked Silero artifact that opens a VAD per conversation.

    sherpa-onnx keeps weights and state in one object, so each conversation loads its own copy
    (50 ms on x86-64).
    """

    def __init__(self, path: str, settings: VadSettings) -> None:
        self._path = path
        self._settings = settings

    def open(self) -> SileroVad:
        """Start a VAD for one conversation."""
        return SileroVad(_native(self._path, self._settings.threshold))

    def open_edges(self) -> SpeechEdges:
        """Start the edge detector that belongs to a VAD of this model."""
        return SpeechEdges(
            samples_to_ms(WINDOW_SAMPLES),
            min_speech_ms=self._settings.min_speech_ms,
            min_silence_ms=self._settings.min_silence_ms,
            onset_lag_ms=ONSET_LAG_MS,
        )


def load_vad(folder: Path, settings: VadSettings) -> SileroVadModel:
    """Load the VAD artifact in ``folder``.

    Raises:
        ArtifactError: It is no Silero artifact, or its file is missing, truncated or not ONNX.
    """
    manifest = manifests.read(folder)
    if manifest.family != "silero-vad":
        raise ArtifactError(
            f"{folder} holds a {manifest.family!r} artifact; vad.model needs a 'silero-vad' one"
        )
    model = SileroVadModel(onnx_file(folder, manifest), settings)
    ensure_loadable(folder, f"{__name__}:load_unguarded")
    return model


def load_unguarded(folder: Path) -> None:
    """Load the artifact in ``folder`` in this process, which native code may end."""
    _native(onnx_file(folder, manifests.read(folder)), VadSettings().threshold)


def _native(path: str, threshold: float) -> Any:
    config = sherpa_onnx.VadModelConfig(
        silero_vad=sherpa_onnx.SileroVadModelConfig(
            model=path,
            threshold=threshold,
            min_silence_duration=0.0,
            min_speech_duration=0.0,
            window_size=WINDOW_SAMPLES,
        ),
        sample_rate=SAMPLE_RATE_HZ,
        num_threads=1,
    )
    return sherpa_onnx.VadModel.create(config)
