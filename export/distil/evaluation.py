"""Word errors of a recogniser in torch on whole clips, under the mask of its streaming form.

Owns the evaluation while training; what counts is the exported pack's, streamed by its engine.
Imports torch: never imported by edgevoice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from edgevoice.export import words
from edgevoice.export.distil.alphabet import Alphabet
from edgevoice.export.distil.fbank import HOP, fbank
from edgevoice.export.distil.model import View, output_frames
from edgevoice.export.distil.sentences import transcript
from edgevoice.export.distil.shards import Clip
from edgevoice.frames import to_float32


def word_errors(model: Any, clips: Sequence[Clip], chunk: int, device: str) -> float:
    """Return the word error rate of ``model`` on ``clips`` in percent, greedily decoded."""
    wrong = said = 0
    for clip in clips:
        expected = transcript(clip.line.text).split()
        wrong += words.word_errors(expected, read(model, clip, chunk, device).split())
        said += len(expected)
    return 100.0 * wrong / max(said, 1)


def read(model: Any, clip: Clip, chunk: int, device: str) -> str:
    """Return what ``model`` hears in ``clip``."""
    samples = to_float32(clip.samples())
    # Silence, as the engine adds: two chunks and what the front end looks ahead.
    silence = np.zeros((4 * chunk + 6) * HOP, np.float32)
    heard = torch.from_numpy(fbank(np.concatenate([samples, silence])))[None].to(device)
    lengths = torch.tensor([int(output_frames(heard.shape[1]))], device=device)
    view = View(chunk, model.shape.left, lengths)
    model.eval()
    with torch.no_grad():
        scores = model(heard, view, torch.zeros(1, dtype=torch.long, device=device))
    best = [int(number) for number in scores[0].argmax(-1)]
    return Alphabet(model.shape.tokens).decode(best)
