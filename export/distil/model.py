"""The recogniser in torch: Whisper's encoder without padding, in chunks, with new layers and CTC.

Frames in: 2 n + 3 of features give n of scores. A chunk sees itself and ``left`` frames before it,
so that keys and values can be kept as it streams; training and evaluation hear whole clips and see
the same. Names of the parameters are what :mod:`edgevoice.export.distil.start`
and :mod:`edgevoice.export.distil.graph` call them. Imports torch: never imported by edgevoice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from edgevoice.export.distil.fbank import BANDS, FLOOR
from edgevoice.export.distil.plan import Shape


@dataclass(frozen=True, slots=True)
class View:
    """Which frames a frame sees: those of its own chunk, and some before that.

    Attributes:
        chunk: Frames of a chunk; at least a clip's frames: all of it is seen.
        left: Frames before the chunk that are seen; whole chunks of them.
        lengths: int64, [clips]: frames of each clip; what is behind them is seen by nobody.
    """

    chunk: int
    left: int
    lengths: Any


class Layer(nn.Module):
    """One layer of Whisper's encoder: attention and feed-forward, norms before each."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.ln2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Any, view: View) -> Any:
        """Return the layer's output for ``x`` [n, frames, width]; ``view`` is who sees whom."""
        count, frames, width = x.shape
        split = self.qkv(self.ln1(x)).view(count, frames, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        seen = _attend(query, key, value, view)
        x = x + self.out(seen.transpose(1, 2).reshape(count, frames, width))
        return x + self.fc2(functional.gelu(self.fc1(self.ln2(x))))


class Recogniser(nn.Module):
    """Features to scores of the tokens."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("mean", torch.zeros(BANDS))
        self.register_buffer("positions", torch.zeros(shape.positions, shape.width))
        self.conv1 = nn.Conv1d(BANDS, shape.width, 3)
        self.conv2 = nn.Conv1d(shape.width, shape.width, 3, stride=2)
        self.layers = nn.ModuleList(Layer(shape.width, shape.heads) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width)
        self.head = nn.Linear(shape.width, len(shape.tokens))

    def encode(self, features: Any, view: View, offsets: Any) -> Any:
        """Return what Whisper's layers make of ``features`` [n, 2 t + 3, 80]."""
        x = (features.clamp(min=FLOOR) - self.mean).transpose(1, 2)
        x = functional.gelu(self.conv2(functional.gelu(self.conv1(x)))).transpose(1, 2)
        frames = torch.arange(x.shape[1], device=x.device)
        x = x + self.positions[(offsets[:, None] + frames) % self.shape.positions]
        for layer in self.layers[: self.shape.layers - self.shape.new_layers]:
            x = layer(x, view)
        return x

    def scores(self, x: Any, view: View) -> Any:
        """Return the scores (logits) of what :meth:`encode` made, [n, t, tokens]."""
        for layer in self.layers[self.shape.layers - self.shape.new_layers :]:
            x = layer(x, view)
        return self.head(self.norm(x))

    def forward(self, features: Any, view: View, offsets: Any) -> Any:
        """Return the scores of ``features``."""
        return self.scores(self.encode(features, view, offsets), view)


def output_frames(features: Any) -> Any:
    """Return how many frames of scores ``features`` frames give."""
    return (features - 3) // 2


def _attend(query: Any, key: Any, value: Any, view: View) -> Any:
    """Return the attention's output, all [n, heads, frames, width].

    Chunk by chunk against the keys that it sees: the product of all frames with all is three times
    as large for clips of 15 s, and torch's fused kernel on a CPU took half of a training's time.
    """
    count, heads, frames, width = query.shape
    chunk = min(view.chunk, frames)
    blocks = -(-frames // chunk)
    before = min(view.left // chunk, blocks - 1)  # chunks of context
    behind = blocks * chunk - frames

    def windows(x: Any) -> Any:  # [n, heads, blocks, (before + 1) chunk, width]
        x = functional.pad(x, (0, 0, before * chunk, behind))
        x = x.view(count, heads, before + blocks, chunk, width)
        return torch.cat([x[:, :, at : at + blocks] for at in range(before + 1)], dim=3)

    query = functional.pad(query, (0, 0, 0, behind)).view(count, heads, blocks, chunk, width)
    at = torch.arange((before + 1) * chunk, device=query.device) - before * chunk
    at = at + chunk * torch.arange(blocks, device=query.device)[:, None]
    there = (at >= 0) & (at < view.lengths[:, None, None])
    # Not infinitely low: a block of padding alone, which nobody reads, would be no number at all.
    unseen = torch.where(there, 0.0, -1e4).to(query.dtype)[:, None, :, None]
    scores = torch.matmul(query * width**-0.5, windows(key).transpose(-1, -2)) + unseen
    seen = torch.matmul(scores.softmax(-1).to(value.dtype), windows(value))
    return seen.reshape(count, heads, blocks * chunk, width)[:, :, :frames]
