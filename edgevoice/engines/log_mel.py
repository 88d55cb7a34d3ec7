"""Whisper's log-mel spectrogram in numpy, for models that are fed from here.

Follows `WhisperFeatureExtractor` of Hugging Face Transformers (itself after openai/whisper,
`audio.py`): periodic Hann window of 400, hop 160, centred frames with reflection, power
spectrum, 80 Slaney mel bands, log10, at most 8 below the maximum, ``(x + 4) / 4``. Recognisers
compute their own features inside sherpa-onnx and do not come here.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from edgevoice.frames import SAMPLE_RATE_HZ, Float32

FFT_SAMPLES = 400
HOP_SAMPLES = 160
MEL_BANDS = 80

Float64 = npt.NDArray[np.float64]


def log_mel_of_tail(samples: Float32, total_samples: int) -> Float32:
    """Return the log-mel of ``samples`` behind zeros that fill up ``total_samples``.

    The padded waveform is brought to zero mean and unit variance first (``do_normalize`` of the
    feature extractor). Frames that see only padding are all alike, so one is computed and
    repeated: a short utterance costs a short transform.

    Args:
        samples: float32, shape ``[n]``, 16 kHz; only the last ``total_samples`` are used.
        total_samples: Multiple of the hop, 160.

    Returns:
        float32, shape ``[80, total_samples / 160]``.
    """
    tail = samples[-total_samples:] if total_samples < len(samples) else samples
    padding = total_samples - len(tail)
    # float32 like the reference, whose rounding this has to share.
    wave = np.concatenate([np.zeros(padding, np.float32), tail])
    wave = (wave - wave.mean()) / np.sqrt(wave.var() + np.float32(1e-7))
    half = FFT_SAMPLES // 2
    # Frame t sees samples 160 t - 200 .. 160 t + 199; up to `first` they see padding alone.
    first = max(0, (padding - half) // HOP_SAMPLES)
    mel = _log_mel(wave, first)
    if first:
        mel = np.concatenate([np.broadcast_to(mel[0], (first, MEL_BANDS)), mel])
    mel = (np.maximum(mel, mel.max() - 8.0) + 4.0) / 4.0
    return np.ascontiguousarray(mel.T, dtype=np.float32)


def log_mel(samples: Float32, frames: int) -> Float32:
    """Return Whisper's log-mel of ``samples`` in front of silence that fills up ``frames``.

    The level is kept, as Whisper itself does. Silence is the larger of -1.5 and the maximum less
    2, which is what the normalisation makes of it.

    Args:
        samples: float32, shape ``[n]``, 16 kHz; what is beyond ``frames`` is cut off.
        frames: Of 10 ms.

    Returns:
        float32, shape ``[80, frames]``.
    """
    # A frame reflects half its length around the ends.
    audio = np.pad(samples, (0, max(0, FFT_SAMPLES - len(samples))))
    heard = _log_mel(audio, 0)[:frames]
    top = float(heard.max())
    mel = np.full((frames, MEL_BANDS), max(-10.0, top - 8.0))
    mel[: len(heard)] = np.maximum(heard, top - 8.0)
    return np.ascontiguousarray(((mel + 4.0) / 4.0).T, dtype=np.float32)


def log_mel_power(samples: Float32, bands: int) -> Float64:
    """Return log10 of the mel power of ``samples``, ``[frames, bands]``, as it is: not normalised.

    Args:
        samples: float32, shape ``[n]``, 16 kHz, at least 201.
        bands: 80, or 128 as Whisper large-v3 has.
    """
    return _log_mel(samples, 0, bands)


def _log_mel(wave: Float32, first: int, bands: int = MEL_BANDS) -> Float64:
    """Return log10 of the mel power, ``[frames, bands]``, from frame ``first`` on."""
    half = FFT_SAMPLES // 2
    reflected = np.pad(wave.astype(np.float64), (half, half), mode="reflect")
    frames = len(wave) // HOP_SAMPLES
    end = (frames - 1) * HOP_SAMPLES + FFT_SAMPLES
    windows = sliding_window_view(reflected[first * HOP_SAMPLES : end], FFT_SAMPLES)[::HOP_SAMPLES]
    power = np.abs(np.fft.rfft(windows * _hann(), axis=-1)) ** 2
    mel: Float64 = np.log10(np.maximum(power @ _mel_filters(bands), 1e-10))
    return mel


@functools.cache
def _hann() -> Float64:
    window: Float64 = np.hanning(FFT_SAMPLES + 1)[:-1]
    return window


@functools.cache
def _mel_filters(bands: int) -> Float64:
    """Return Slaney's triangles, ``[201, bands]``: equal area, linear below 1 kHz, log above."""
    edges = _mel_to_hz(np.linspace(0.0, _hz_to_mel(SAMPLE_RATE_HZ / 2), bands + 2))
    bins = np.linspace(0.0, SAMPLE_RATE_HZ / 2, FFT_SAMPLES // 2 + 1)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    filters: Float64 = np.maximum(0.0, np.minimum(rising, falling)) * (
        2.0 / (edges[2:] - edges[:-2])
    )
    return filters


def _hz_to_mel(hz: float) -> float:
    return (
        3.0 * hz / 200.0 if hz < 1000.0 else 15.0 + 27.0 * float(np.log(hz / 1000.0) / np.log(6.4))
    )


def _mel_to_hz(mels: Float64) -> Float64:
    log_part = 1000.0 * np.exp(np.log(6.4) / 27.0 * (mels - 15.0))
    return np.where(mels < 15.0, 200.0 * mels / 3.0, log_part)
