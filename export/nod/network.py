"""A network of one hidden layer, fitted to features that say of which kind speech is.

What tells "okay" from "okay, that is enough" before the second word is not linear in what the
encoder made of it. Where one nod in twenty is mistaken, of sixty beginnings of the kind a logistic
regression told 62 % after 416 ms, and of 280 of all kinds 89; this told 78 to 80, and 90 to 93,
fitted to the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgevoice.engines.encoder_judge import EncoderJudge, Hidden
from edgevoice.frames import Float32

DECAY = 1.0
"""Of the weights, in each step of a learning rate of one. From 0.3 to 3 nothing changes much."""

_UNITS = 64
"""Of 16 to 128, more than 64 were no better."""
_KEPT_INPUTS, _KEPT_UNITS = 0.5, 0.5
_EPOCHS, _BATCH, _RATE = 20, 256, 1e-3
_FIRST, _SECOND, _TINY = 0.9, 0.999, 1e-8


def fit(
    features: Float32, kind: NDArray[np.bool_], seed: int, decay: float = DECAY
) -> EncoderJudge:
    """Fit ``features`` ([cases, n], float32) to whether each is of the kind, both as weighty.

    Adam with weights that decay apart from it (Loshchilov and Hutter 2019, arXiv:1711.05101), a
    rate that falls as a cosine, and dropout of features and units (Srivastava et al. 2014, JMLR
    15).
    """
    random = np.random.default_rng([seed, 0x4E])
    mean, spread = features.mean(axis=0), features.std(axis=0) + np.float32(1e-3)
    cases, inputs = features.shape
    share = float(kind.mean())
    weighty = np.where(kind, 0.5 / share, 0.5 / (1.0 - share)).astype(np.float32)
    wanted = kind.astype(np.float32)
    layers = [
        random.normal(0.0, inputs**-0.5, (inputs, _UNITS)).astype(np.float32),
        np.zeros(_UNITS, np.float32),
        random.normal(0.0, _UNITS**-0.5, _UNITS).astype(np.float32),
        np.zeros(1, np.float32),
    ]
    first = [np.zeros_like(layer) for layer in layers]
    second = [np.zeros_like(layer) for layer in layers]
    batches = max(1, cases // _BATCH)
    steps = _EPOCHS * batches
    for step in range(steps):
        if step % batches == 0:
            order = random.permutation(cases)
        chosen = order[step % batches * _BATCH :][:_BATCH]
        seen = (
            (features[chosen] - mean) / spread * _kept(random, (len(chosen), inputs), _KEPT_INPUTS)
        )
        slopes = _slopes(layers, seen, wanted[chosen], weighty[chosen], random)
        rate = _RATE * 0.5 * (1.0 + np.cos(np.pi * (step + 1) / steps))
        for place, slope in enumerate(slopes):
            first[place] = _FIRST * first[place] + (1.0 - _FIRST) * slope
            second[place] = _SECOND * second[place] + (1.0 - _SECOND) * np.square(slope)
            mean_slope = first[place] / (1.0 - _FIRST ** (step + 1))
            size = np.sqrt(second[place] / (1.0 - _SECOND ** (step + 1))) + _TINY
            shrunk = decay * layers[place] if place in (0, 2) else np.float32(0.0)
            layers[place] -= (rate * (mean_slope / size + shrunk)).astype(np.float32)
    scaled = (layers[0] / spread[:, None]).astype(np.float32)
    hidden = Hidden(scaled, (layers[1] - mean @ scaled).astype(np.float32))
    return EncoderJudge(layers[2], float(layers[3][0]), hidden)


def _slopes(
    layers: list[Float32],
    seen: Float32,
    wanted: Float32,
    weighty: Float32,
    random: np.random.Generator,
) -> list[Float32]:
    """Return the slopes of the mean cross entropy for each of ``layers``."""
    before = seen @ layers[0] + layers[1]
    kept = _kept(random, before.shape, _KEPT_UNITS)
    units = np.maximum(before, np.float32(0.0)) * kept
    likely = 1.0 / (1.0 + np.exp(-(units @ layers[2] + layers[3])))
    wrong = (likely - wanted) * weighty / np.float32(len(wanted))
    below = wrong[:, None] * layers[2] * kept * (before > 0.0)
    return [seen.T @ below, below.sum(axis=0), units.T @ wrong, wrong.sum(keepdims=True)]


def _kept(random: np.random.Generator, shape: tuple[int, ...], share: float) -> Float32:
    kept = random.random(shape, dtype=np.float32) < share
    return kept.astype(np.float32) / np.float32(share)
