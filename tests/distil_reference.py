"""The recogniser of `export/distil` in plain numpy, for whole clips, and small weights for it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edgevoice.export.distil.fbank import BANDS, FLOOR
from edgevoice.export.distil.plan import Shape

Tensors = Mapping[str, NDArray[np.float32]]
_erf = np.vectorize(math.erf)


def small_shape(chunk: int = 4, left: int = 8, letters: str = "abc") -> Shape:
    return Shape(16, 2, 2, 1, 40, chunk, left, ("<blk>", "▁", *letters))


def small_tensors(shape: Shape, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Random weights, large enough that every part matters."""
    random = np.random.default_rng(seed)
    width = shape.width
    sizes: dict[str, tuple[int, ...]] = {
        "mean": (BANDS,),
        "positions": (shape.positions, width),
        "conv1.weight": (width, BANDS, 3),
        "conv1.bias": (width,),
        "conv2.weight": (width, width, 3),
        "conv2.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
        "head.weight": (len(shape.tokens), width),
        "head.bias": (len(shape.tokens),),
    }
    for layer in range(shape.layers):
        for name, rows, columns in (
            ("qkv", 3 * width, width),
            ("out", width, width),
            ("fc1", 4 * width, width),
            ("fc2", width, 4 * width),
        ):
            sizes[f"layers.{layer}.{name}.weight"] = (rows, columns)
            sizes[f"layers.{layer}.{name}.bias"] = (rows,)
        for name in ("ln1", "ln2"):
            sizes[f"layers.{layer}.{name}.weight"] = sizes[f"layers.{layer}.{name}.bias"] = (width,)
    found = {n: random.normal(0, 0.3, size).astype(np.float32) for n, size in sizes.items()}
    found["mean"] += 10.0
    for layer in range(shape.layers):
        found[f"layers.{layer}.qkv.weight"] *= 4.0
    return found


def scores(tensors: Tensors, shape: Shape, features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Log-probabilities of `features` [2 n + 3, 80] under the streaming form's mask."""
    x = np.maximum(features, FLOOR) - tensors["mean"]
    x = _gelu(_conv(x, tensors, "conv1", 1))
    x = _gelu(_conv(x, tensors, "conv2", 2))
    frames = len(x)
    x = x + tensors["positions"][np.arange(frames) % shape.positions]
    at = np.arange(frames)
    begin = (at // shape.chunk * shape.chunk)[:, None]
    seen = (at < begin + shape.chunk) & (at >= begin - shape.left)
    for layer in range(shape.layers):
        x = _layer(x, tensors, f"layers.{layer}", shape.heads, seen)
    x = _linear(_norm(x, tensors, "norm"), tensors, "head")
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def _layer(x, tensors, name, heads, seen):  # type: ignore[no-untyped-def]
    query, key, value = np.split(
        _linear(_norm(x, tensors, f"{name}.ln1"), tensors, f"{name}.qkv"), 3, axis=1
    )
    mixed = []
    for q, k, v in zip(
        *(np.split(part, heads, axis=1) for part in (query, key, value)), strict=True
    ):
        weights = np.where(seen, q @ k.T / np.sqrt(q.shape[1]), -np.inf)
        weights = np.exp(weights - weights.max(axis=1, keepdims=True))
        mixed.append(weights / weights.sum(axis=1, keepdims=True) @ v)
    x = x + _linear(np.concatenate(mixed, axis=1), tensors, f"{name}.out")
    inner = _gelu(_linear(_norm(x, tensors, f"{name}.ln2"), tensors, f"{name}.fc1"))
    return x + _linear(inner, tensors, f"{name}.fc2")


def _conv(x, tensors, name, stride):  # type: ignore[no-untyped-def]
    weight = tensors[f"{name}.weight"]
    windows = np.lib.stride_tricks.sliding_window_view(x, 3, axis=0)[::stride]
    return np.einsum("tik,oik->to", windows, weight) + tensors[f"{name}.bias"]


def _linear(x, tensors, name):  # type: ignore[no-untyped-def]
    return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]


def _norm(x, tensors, name):  # type: ignore[no-untyped-def]
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    return scaled * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]


def _gelu(x):  # type: ignore[no-untyped-def]
    return x * 0.5 * (1 + _erf(x / math.sqrt(2)))
