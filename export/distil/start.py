"""The weights that a training starts from: a Whisper encoder that takes sherpa-onnx's features.

Whisper's log-mel is, band by band, nearly linear in kaldi's energies: the best linear map (least
squares over some speech) goes into the first convolution, exactly. New layers begin as identities:
their outputs are zero. Owns the fit, the names of the tensors, and what of Whisper goes where; what
format Whisper is in, its readers know.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevoice.engines.log_mel import log_mel_power
from edgevoice.errors import ExportError
from edgevoice.export.distil.fbank import BANDS, FLOOR, fbank
from edgevoice.export.distil.plan import Shape
from edgevoice.export.families.whisper_weights import Sizes, Weights
from edgevoice.frames import Float32

Tensors = Mapping[str, NDArray[np.float32]]
_HALF_HOP = 80
_RIDGE = 50.0
_LEAST_FRAMES = 2000

_LAYER = {
    "ln1": ("self_attention/layer_norm", ("gamma", "beta")),
    "qkv": ("self_attention/linear_0", ("weight", "bias")),
    "out": ("self_attention/linear_1", ("weight", "bias")),
    "ln2": ("ffn/layer_norm", ("gamma", "beta")),
    "fc1": ("ffn/linear_0", ("weight", "bias")),
    "fc2": ("ffn/linear_1", ("weight", "bias")),
}


@dataclass(frozen=True, slots=True)
class Fold:
    """The linear map from energies to Whisper's log-mel.

    Attributes:
        matrix: [mels, 80].
        bias: [mels].
        mean: Of the energies, [80].
        explained: Share of the log-mel's variance that the map explains (R squared).
    """

    matrix: NDArray[np.float64]
    bias: NDArray[np.float64]
    mean: NDArray[np.float64]
    explained: float


def fit(clips: Iterable[Float32], mels: int, seed: int) -> Fold:
    """Fit the map over ``clips`` (float32, 16 kHz) at levels and in noise drawn by ``seed``.

    Raises:
        ExportError: There is too little speech for a fit.
    """
    random = np.random.default_rng([seed, 0x66])
    energies, wanted = [], []
    for clip in clips:
        noise = random.standard_normal(len(clip)) * 10 ** random.uniform(-4.5, -2.0)
        wave = (clip * 10 ** random.uniform(-1.0, 0.2) + noise).astype(np.float32)
        # A frame of energies is centred 80 samples behind Whisper's.
        shifted = np.concatenate([wave[_HALF_HOP:], np.zeros(_HALF_HOP, np.float32)])
        found, mel = np.maximum(fbank(wave), FLOOR), (log_mel_power(shifted, mels) + 4.0) / 4.0
        frames = min(len(found), len(mel))
        energies.append(found[:frames].astype(np.float64))
        wanted.append(mel[:frames])
    if sum(map(len, energies)) < _LEAST_FRAMES:
        raise ExportError(
            f"{sum(map(len, energies)) / 100:.0f} s of speech to fit the features on; at least "
            f"{_LEAST_FRAMES / 100:.0f} s are needed"
        )
    x, y = np.concatenate(energies), np.concatenate(wanted)
    mean = x.mean(axis=0)
    centred, target = x - mean, y - y.mean(axis=0)
    matrix = np.linalg.solve(centred.T @ centred + _RIDGE * np.eye(BANDS), centred.T @ target)
    residual = target - centred @ matrix
    explained = 1.0 - float((residual**2).sum() / (target**2).sum())
    # With the mean taken off the energies, what is left over is the mean of the log-mel.
    return Fold(matrix.T, y.mean(axis=0), mean, explained)


def shape(
    sizes: Sizes, *, new_layers: int, chunk: int, left: int, tokens: tuple[str, ...]
) -> Shape:
    """Return the shape of the recogniser that a Whisper of ``sizes`` becomes.

    Raises:
        ConfigError: Chunk and left context do not go together.
    """
    return Shape(
        width=sizes.n_audio_state,
        heads=sizes.n_audio_head,
        layers=sizes.n_audio_layer + new_layers,
        new_layers=new_layers,
        positions=sizes.n_audio_ctx,
        chunk=chunk,
        left=left,
        tokens=tokens,
    )


def tensors(whisper: Weights, wanted: Shape, fold: Fold, seed: int) -> Tensors:
    """Return all tensors by the names of :mod:`edgevoice.export.distil.model`."""
    random = np.random.default_rng([seed, 0x73])

    def encoder(name: str) -> NDArray[np.float64]:
        return whisper.floats(f"encoder/{name}").astype(np.float64)

    conv1 = encoder("conv1/weight")  # [width, mels, 3]
    found: dict[str, NDArray[Any]] = {
        "mean": fold.mean,
        "positions": encoder("position_encodings/encodings"),
        "conv1.weight": np.einsum("omk,mb->obk", conv1, fold.matrix),
        "conv1.bias": encoder("conv1/bias") + np.einsum("omk,m->o", conv1, fold.bias),
        "conv2.weight": encoder("conv2/weight"),
        "conv2.bias": encoder("conv2/bias"),
        "norm.weight": encoder("layer_norm/gamma"),
        "norm.bias": encoder("layer_norm/beta"),
    }
    for layer in range(wanted.layers - wanted.new_layers):
        for ours, (theirs, leaves) in _LAYER.items():
            for leaf, name in zip(("weight", "bias"), leaves, strict=True):
                found[f"layers.{layer}.{ours}.{leaf}"] = encoder(f"layer_{layer}/{theirs}/{name}")
    width = wanted.width
    outputs = {"qkv": 3 * width, "fc1": 4 * width}
    for layer in range(wanted.layers - wanted.new_layers, wanted.layers):
        for norm in ("ln1", "ln2"):
            found[f"layers.{layer}.{norm}.weight"] = np.ones(width)
            found[f"layers.{layer}.{norm}.bias"] = np.zeros(width)
        for name, size in outputs.items():
            found[f"layers.{layer}.{name}.weight"] = _drawn(random, size, width)
            found[f"layers.{layer}.{name}.bias"] = np.zeros(size)
        for name, inputs in (("out", width), ("fc2", 4 * width)):
            found[f"layers.{layer}.{name}.weight"] = np.zeros((width, inputs))
            found[f"layers.{layer}.{name}.bias"] = np.zeros(width)
    found["head.weight"] = _drawn(random, len(wanted.tokens), width)
    found["head.bias"] = np.zeros(len(wanted.tokens))
    return {name: np.ascontiguousarray(value, np.float32) for name, value in found.items()}


def _drawn(random: np.random.Generator, rows: int, columns: int) -> NDArray[np.float64]:
    """Return what torch draws for a linear layer: uniform up to one over the root of its inputs."""
    drawn: NDArray[np.float64] = random.uniform(-1.0, 1.0, (rows, columns)) / np.sqrt(columns)
    return drawn
