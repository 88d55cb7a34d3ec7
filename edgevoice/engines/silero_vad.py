"""Silero VAD on onnxruntime: speech probabilities, one recurrent state a conversation.

Owns the windowing and the state. Edges (how surely and for how long it must be speech or silence)
are made by :mod:`edgevoice.engines.edges`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgevoice import manifest as manifests
from edgevoice.engines import ort, providers
from edgevoice.engines.artifact_files import onnx_file
from edgevoice.engines.edges import SpeechEdges
from edgevoice.engines.probe import ensure_loadable
from edgevoice.engines.providers import Ran, Wanted
from edgevoice.engines.samples import finite
from edgevoice.errors import ArtifactError, EngineError
from edgevoice.frames import SAMPLE_RATE_HZ, Float32, samples_to_ms
from edgevoice.settings import VadSettings

WINDOW_SAMPLES = 512
"""Samples of one decision at 16 kHz; Silero was trained with no other."""

_RATE = np.array(SAMPLE_RATE_HZ, np.int64)

_CONTEXT_SAMPLES = {("state",): 64, ("h", "c"): 0}
"""By the names of the recurrent inputs: versions 5 and 6 read 64 samples from before the window
(snakers4/silero-vad, ``OnnxWrapper``), version 4 reads none."""


class SileroVad:
    """One conversation's VAD (:class:`edgevoice.stages.Vad`): about 4 ms of one core a second of
    audio on x86-64."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._states = _states(session)
        self._asks_rate = any(i.name == "sr" for i in session.get_inputs())
        self._context = _CONTEXT_SAMPLES[tuple(self._states)]
        self._kept = np.zeros(self._context, np.float32)

    @property
    def window_samples(self) -> int:
        """Samples in one decision window."""
        return WINDOW_SAMPLES

    def accept(self, samples: Float32) -> Sequence[float]:
        """Take float32 samples ``[n]`` at 16 kHz; return the probability of speech, from 0 to 1,
        in each completed window.

        Raises:
            EngineError: They are not mono, or the graph fails.
        """
        pending = np.concatenate([self._kept, finite(samples)])
        probabilities: list[float] = []
        start = 0
        size = self._context + WINDOW_SAMPLES
        while start + size <= len(pending):
            probabilities.append(self._step(pending[start : start + size]))
            start += WINDOW_SAMPLES
        self._kept = pending[start:].copy()
        return probabilities

    def reset(self) -> None:
        """Forget everything heard."""
        self._states = _states(self._session)
        self._kept = np.zeros(self._context, np.float32)

    def _step(self, window: Float32) -> float:
        feed: dict[str, Any] = {"input": window[None], **self._states}
        if self._asks_rate:
            feed["sr"] = _RATE
        try:
            output, *states = self._session.run(None, feed)
        except Exception as error:  # onnxruntime raises a dozen classes without a public base
            raise EngineError(f"the VAD failed: {str(error)[:200]}") from error
        self._states = dict(zip(self._states, states, strict=True))
        return float(output[0, 0])


class SileroVadModel:
    """A loaded Silero artifact, shared by all conversations."""

    def __init__(self, session: Any, settings: VadSettings, provider: Ran) -> None:
        self._session = session
        self._settings = settings
        self.provider = provider

    def open(self) -> SileroVad:
        """Start a VAD for one conversation."""
        return SileroVad(self._session)

    def open_edges(self) -> SpeechEdges:
        """Start the edge detector that belongs to a VAD of this model."""
        return SpeechEdges(
            samples_to_ms(WINDOW_SAMPLES),
            threshold=self._settings.threshold,
            min_speech_ms=self._settings.min_speech_ms,
            min_silence_ms=self._settings.min_silence_ms,
        )


def load_vad(folder: Path, settings: VadSettings) -> SileroVadModel:
    """Load the VAD artifact in ``folder``.

    Raises:
        ArtifactError: It is no Silero artifact, or its file is missing, truncated, not ONNX or of
            no known version.
        EngineError: A provider is required and cannot run it.
    """
    manifest = manifests.read(folder)
    if manifest.family != "silero-vad":
        raise ArtifactError(
            f"{folder} holds a {manifest.family!r} artifact; vad.model needs a 'silero-vad' one"
        )
    onnx_file(folder, manifest)
    ensure_loadable(folder, f"{__name__}:load_unguarded")
    return _load(folder, settings)


def load_unguarded(folder: Path) -> None:
    """Load the artifact in ``folder`` in this process, which native code may end."""
    _load(folder, VadSettings())


def _load(folder: Path, settings: VadSettings) -> SileroVadModel:
    manifest = manifests.read(folder)
    path = Path(onnx_file(folder, manifest))
    wanted = Wanted(settings.providers, settings.provider_required)
    files = providers.files_of(folder, manifest, path)
    session, provider = providers.open_session(files, partial(ort.session_options, 1), wanted)
    inputs = {i.name for i in session.get_inputs()}
    states = tuple(_states(session))
    if states not in _CONTEXT_SAMPLES or inputs - {"sr"} != {"input", *states}:
        raise ArtifactError(
            f"{path} is not Silero VAD of version 4, 5 or 6: its inputs are "
            f"{', '.join(sorted(inputs))}"
        )
    model = SileroVadModel(session, settings, provider)
    model.open().accept(np.zeros(WINDOW_SAMPLES, np.float32))
    return model


def _states(session: Any) -> dict[str, Float32]:
    """Return zeros for each recurrent input, in the order of the outputs that follow them."""
    return {
        i.name: np.zeros([n if isinstance(n, int) else 1 for n in i.shape], np.float32)
        for i in session.get_inputs()
        if len(i.shape) == 3
    }
