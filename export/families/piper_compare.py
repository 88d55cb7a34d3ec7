"""The conversion's own check of a quantised Piper voice, where no Whisper is at hand.

`models pull` makes the int8 voice before any recogniser need be installed, so it compares length
and long-term spectrum of one sentence. The exporter's gates (:mod:`edgevoice.export.checks.speech`)
measure more.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgevoice.errors import ArtifactError
from edgevoice.export.families.piper_voice import check_feed

MAX_DURATION_CHANGE = 0.10
MAX_SPECTRUM_DB = 3.0


def compare(source: Path, target: Path, settings: Mapping[str, Any]) -> dict[str, float]:
    """Say the same words without noise with both graphs and compare length and spectrum."""
    before, after = _say(source, settings), _say(target, settings)
    duration_ratio = len(after) / len(before)
    spectrum_db = float(np.abs(_bands_db(after) - _bands_db(before)).mean())
    size_ratio = target.stat().st_size / source.stat().st_size
    if abs(duration_ratio - 1) > MAX_DURATION_CHANGE or not spectrum_db <= MAX_SPECTRUM_DB:
        raise ArtifactError(
            f"int8 changes {source.name} too much: duration x{duration_ratio:.2f} (allowed "
            f"1 +- {MAX_DURATION_CHANGE}), spectrum {spectrum_db:.1f} dB (allowed "
            f"{MAX_SPECTRUM_DB}); use scheme fp32"
        )
    if size_ratio >= 1:
        raise ArtifactError(f"int8 makes {source.name} no smaller; use scheme fp32")
    return {
        "duration_ratio": round(duration_ratio, 4),
        "spectrum_db": round(spectrum_db, 3),
        "size_ratio": round(size_ratio, 4),
    }


def _say(path: Path, settings: Mapping[str, Any]) -> npt.NDArray[np.float32]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    feed = check_feed(settings, {i.name for i in session.get_inputs()})
    samples: npt.NDArray[np.float32] = np.asarray(session.run(None, feed)[0]).reshape(-1)
    return samples


def _bands_db(samples: npt.NDArray[np.float32], bands: int = 24) -> npt.NDArray[np.float64]:
    """Long-term power in ``bands`` logarithmic bands, dB."""
    power = np.abs(np.fft.rfft(samples.astype(np.float64))) ** 2 / len(samples)
    # A short sound has fewer bins than bands at the low end.
    edges = np.unique(np.geomspace(max(len(power) / 100, 1), len(power), bands + 1).astype(int))
    return np.array(
        [10 * np.log10(power[low:high].mean() + 1e-12) for low, high in itertools.pairwise(edges)]
    )
