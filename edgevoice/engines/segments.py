"""Cuts a recording into stretches of speech that a recogniser can take one at a time.

For whole files (`edgevoice transcribe`); a conversation cuts as it goes, by turns.
"""

from __future__ import annotations

from edgevoice.engines.edges import Paused, SpeechEdges, Started
from edgevoice.frames import SAMPLE_RATE_HZ, Float32, ms_to_samples, samples_to_ms
from edgevoice.stages import Vad

_FEED_SAMPLES = SAMPLE_RATE_HZ


def speech_spans(samples: Float32, vad: Vad, edges: SpeechEdges) -> list[tuple[float, float]]:
    """Return (onset_ms, end_ms) of every stretch of speech in ``samples`` (16 kHz)."""
    spans: list[tuple[float, float]] = []
    onset_ms: float | None = None
    for start in range(0, len(samples), _FEED_SAMPLES):
        for edge in edges.feed(vad.accept(samples[start : start + _FEED_SAMPLES])):
            if isinstance(edge, Started):
                onset_ms = edge.onset_ms
            elif isinstance(edge, Paused) and onset_ms is not None:
                spans.append((onset_ms, edge.end_ms))
                onset_ms = None
    if onset_ms is not None:
        spans.append((onset_ms, samples_to_ms(len(samples))))
    return spans


def pack_spans(
    spans: list[tuple[float, float]], margin_ms: float, longest_ms: float
) -> list[tuple[float, float]]:
    """Join neighbouring spans into stretches of at most ``longest_ms``, margins included.

    The longer a stretch, the more a recogniser knows of its context. Margins do not reach into
    the neighbouring stretch. A single span beyond ``longest_ms`` stays whole: the recogniser cuts
    it where it is quietest.

    >>> pack_spans([(500, 900), (1500, 1900), (9000, 9500)], 100, 2000)
    [(400, 2000), (8900, 9600)]
    """
    packed: list[tuple[float, float]] = []
    for onset_ms, end_ms in spans:
        if packed and end_ms - packed[-1][0] + 2 * margin_ms <= longest_ms:
            packed[-1] = (packed[-1][0], end_ms)
        else:
            packed.append((onset_ms, end_ms))
    padded: list[tuple[float, float]] = []
    for number, (onset_ms, end_ms) in enumerate(packed):
        floor_ms = packed[number - 1][1] if number else 0.0
        ceiling_ms = packed[number + 1][0] if number + 1 < len(packed) else float("inf")
        gap_before, gap_after = (onset_ms - floor_ms) / 2, (ceiling_ms - end_ms) / 2
        before = margin_ms if not number else min(margin_ms, gap_before)
        padded.append((max(0, onset_ms - before), end_ms + min(margin_ms, gap_after)))
    return padded


def cut(samples: Float32, span: tuple[float, float]) -> Float32:
    """Return the samples of a span in milliseconds."""
    return samples[ms_to_samples(span[0]) : ms_to_samples(span[1])]
