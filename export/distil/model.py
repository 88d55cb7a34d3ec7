"""The recogniser in torch: Whisper's encoder without padding, in chunks, with new layers and CTC.

Frames in: 2 n + 3 of features give n of scores. A chunk sees itself and ``left`` frames before it,
so that keys and values can be kept as it streams; training and evaluation see whole clips under
the mask that says the same. Names of the parameters are what :mod:`edgevoice.export.distil.start`
and :mod:`edgevoice.export.distil.graph` call them. Imports torch: never imported by edgevoice.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from edgevoice.export.distil.fbank import BANDS, FLOOR
from edgevoice.export.distil.plan import Shape


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

    def forward(self, x: Any, mask: Any) -> Any:
        """Return the layer's output for ``x`` [n, frames, width] under ``mask`` [n, 1, t, t]."""
        count, frames, width = x.shape
        split = self.qkv(self.ln1(x)).view(count, frames, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
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

    def encode(self, features: Any, mask: Any, offsets: Any) -> Any:
        """Return what Whisper's layers make of ``features`` [n, 2 t + 3, 80]."""
        x = (features.clamp(min=FLOOR) - self.mean).transpose(1, 2)
        x = functional.gelu(self.conv2(functional.gelu(self.conv1(x)))).transpose(1, 2)
        frames = torch.arange(x.shape[1], device=x.device)
        x = x + self.positions[(offsets[:, None] + frames) % self.shape.positions]
        for layer in self.layers[: self.shape.layers - self.shape.new_layers]:
            x = layer(x, mask)
        return x

    def scores(self, x: Any, mask: Any) -> Any:
        """Return the scores (logits) of what :meth:`encode` made, [n, t, tokens]."""
        for layer in self.layers[self.shape.layers - self.shape.new_layers :]:
            x = layer(x, mask)
        return self.head(self.norm(x))

    def forward(self, features: Any, mask: Any, offsets: Any) -> Any:
        """Return the scores of ``features``."""
        return self.scores(self.encode(features, mask, offsets), mask)


def output_frames(features: Any) -> Any:
    """Return how many frames of scores ``features`` frames give."""
    return (features - 3) // 2


def chunk_mask(frames: int, lengths: Any, chunk: int, left: int) -> Any:
    """Return which frame may see which, bool, [clips, 1, frames, frames]: its own chunk, and
    ``left`` frames before that, of its clip's ``lengths``; padding sees itself."""
    at = torch.arange(frames, device=lengths.device)
    begin = at // chunk * chunk
    seen = (at < begin[:, None] + chunk) & (at >= begin[:, None] - left)
    seen = seen & (at < lengths[:, None, None])
    return (seen | torch.eye(frames, dtype=torch.bool, device=lengths.device))[:, None]
