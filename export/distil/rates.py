"""What a stage trains, and how fast: the optimiser's groups and their rates over the stage.

Imports torch: never imported by edgevoice.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from edgevoice.export.distil.plan import Stage

_LEAST_RATE = 0.02
"""Of a stage's highest, at its end."""


def optimiser(model: Any, stage: Stage, layers: int) -> Any:
    """Return a new optimiser of what ``stage`` trains; the rest is left without gradients."""
    whisper = layers - model.shape.new_layers
    groups: dict[float, list[Any]] = {}
    for name, parameter in model.named_parameters():
        layer = int(name.split(".")[1]) if name.startswith("layers.") else -1
        if layer >= whisper or name.startswith(("norm.", "head.")):
            rate = stage.head_rate
        elif layer >= whisper / 2:
            rate = stage.upper_rate
        else:
            rate = stage.lower_rate
        parameter.requires_grad_(rate > 0)
        if rate > 0:
            groups.setdefault(rate, []).append(parameter)
    return torch.optim.AdamW(
        [{"params": found, "lr": rate, "highest": rate} for rate, found in groups.items()],
        betas=(0.9, 0.98),
        weight_decay=0.01,
    )


def set_rates(trained: Any, stage: Stage, at: int, warm_up: int) -> None:
    """Rise over the first steps, then fall along a cosine."""
    done = 0.5 * (1 + math.cos(math.pi * at / stage.steps))
    share = min(1.0, (at + 1) / warm_up) * max(_LEAST_RATE, done)
    for group in trained.param_groups:
        group["lr"] = group["highest"] * share
