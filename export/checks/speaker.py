"""Measures a speaker embedding against its float reference, in sherpa-onnx's own extractor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import sherpa_onnx

from edgevoice import manifest
from edgevoice.engines.artifact_files import onnx_file
from edgevoice.engines.probe import ensure_loadable
from edgevoice.export.checks import costs, recordings
from edgevoice.export.gates import Figures
from edgevoice.frames import SAMPLE_RATE_HZ, Float32


def measure(reference: Path, candidate: Path, material: Path | None, threads: int) -> Figures:
    """Return ``cosine`` (the lowest of all recordings), ``size_ratio`` and the run times.

    Raises:
        ArtifactError: An artifact cannot be loaded.
        ConfigError: ``material`` has no recordings.
    """
    for folder in (reference, candidate):
        ensure_loadable(folder, f"{__name__}:load")
    first, second = (load(folder, threads) for folder in (reference, candidate))
    clips = [clip.samples for clip in recordings.speech(material)]
    cosines = [_cosine(embed(first, clip), embed(second, clip)) for clip in clips]
    longest = max(clips, key=len)
    return {
        "cosine": min(cosines),
        "cosine_mean": float(np.mean(cosines)),
        "size_ratio": costs.size_ratio(reference, candidate),
        **costs.speed(lambda: embed(first, longest), lambda: embed(second, longest)),
    }


def load(folder: Path, threads: int = 1) -> Any:
    """Load the artifact in ``folder`` in this process, which native code may end."""
    path = onnx_file(folder, manifest.read(folder))
    return sherpa_onnx.SpeakerEmbeddingExtractor(
        sherpa_onnx.SpeakerEmbeddingExtractorConfig(model=path, num_threads=threads)
    )


def embed(extractor: Any, samples: Float32) -> Float32:
    """Return the embedding of one recording at 16 kHz, float32 ``[dimensions]``."""
    stream = extractor.create_stream()
    stream.accept_waveform(SAMPLE_RATE_HZ, samples)
    stream.input_finished()
    return np.array(extractor.compute(stream), np.float32)


def _cosine(first: Float32, second: Float32) -> float:
    # An embedding of zeros is like nothing.
    lengths = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / max(lengths, 1e-12)
