"""Of one recording: what a recogniser has heard of it a third of a second after it began, and on.

Speech over the agent is judged while it goes on, from 0.35 s of it on, when nobody can know yet how
long it will be. Nothing is known of the words.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgevoice.export.ending.cases import GAINS, PEAK, in_noise, loudness, voiced_frames
from edgevoice.frames import Float32, ms_to_samples

MOMENTS_MS = (352.0, 416.0, 480.0, 544.0, 608.0, 672.0, 736.0)
_AROUND_MS = 32.0
"""A moment is drawn this near to one of those."""
_LINGER_MS = 176.0
"""Of speech that has ended as much silence is heard, and of a pause within it: "okay" and "okay,
that is enough" differ before the second word. A recogniser is asked until 100 ms behind the end."""
_FRAME = ms_to_samples(10)


def moments(recording: Float32, random: np.random.Generator) -> Iterator[tuple[float, Float32]]:
    """Yield a moment in ms (of :data:`MOMENTS_MS`) and what is heard until then, float32, 16 kHz.

    Nothing where the recording is silent. Loudness and noise are drawn from ``random``.
    """
    voiced = voiced_frames(loudness(recording))
    if not voiced.size:
        return
    speech = recording[voiced[0] * _FRAME : (voiced[-1] + 1) * _FRAME].astype(np.float64)
    speech *= PEAK / max(1e-4, float(np.abs(speech).max())) * random.uniform(*GAINS)
    for moment_ms in MOMENTS_MS:
        until = ms_to_samples(moment_ms + random.uniform(-_AROUND_MS, _AROUND_MS))
        if until > speech.size + ms_to_samples(_LINGER_MS):
            return
        behind = np.zeros(max(0, until - speech.size))
        yield moment_ms, in_noise(speech[:until], behind, random)
