"""Chooses a treatment per tensor under a byte budget, from what each loses and costs.

Knows no engine: GGUF types and ONNX schemes are names here. The model of a loss is linear, as in
Malinovskii et al. 2024, "Pushing the Limits of Large Language Model Quantization via the Linearity
Theorem" (arXiv 2411.17525): what a model loses is the sum over its tensors of the tensor's
relative rounding error times a sensitivity, and the sensitivity is measured by rounding a group of
tensors on its own and looking at the model's output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Option:
    """One treatment of a tensor.

    Attributes:
        treatment: A GGUF type, an ONNX scheme.
        bytes: What the tensor then takes.
        loss: What it adds to the model's loss, in the unit of the measurement.
    """

    treatment: str
    bytes: int
    loss: float


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor and what may be done with it; ``group`` names those that were measured with it."""

    name: str
    group: str
    options: tuple[Option, ...]


def measure(
    errors: Mapping[str, Mapping[str, float]], lose: Callable[[str], float]
) -> Mapping[str, float]:
    """Return the sensitivity of every group: its loss for one unit of rounding error.

    Args:
        errors: By group and tensor: the relative squared error of the rounding that ``lose``
            tries.
        lose: Rounds the tensors of a group, all others in float, and returns the model's loss.
    """
    return {
        group: max(lose(group), 0.0) / max(sum(tensors.values()), 1e-30)
        for group, tensors in errors.items()
    }


def choose(tensors: Sequence[Tensor], budget_bytes: int) -> Mapping[str, str]:
    """Return a treatment by tensor name: the least loss that fits ``budget_bytes``.

    Every tensor starts with its smallest option. Steps along the lower convex hull of each
    tensor's (bytes, loss) are then taken in the order of loss saved per byte, those that do not
    fit any more are passed over; without the last, unfilled step this is the optimum of the
    Lagrangian. Ties go to the earlier tensor, so equal inputs give equal choices.

    Where the smallest options together exceed the budget, they are the answer.
    """
    paths = [_hull(tensor.options) for tensor in tensors]
    at = [0] * len(paths)
    left = budget_bytes - sum(path[0].bytes for path in paths)
    stuck: set[int] = set()
    while True:
        steps = [
            (-_gain(path[at[i]], path[at[i] + 1]), i)
            for i, path in enumerate(paths)
            if i not in stuck and at[i] + 1 < len(path)
        ]
        if not steps:
            break
        _, i = min(steps)
        price = paths[i][at[i] + 1].bytes - paths[i][at[i]].bytes
        if price > left:
            stuck.add(i)
            continue
        left -= price
        at[i] += 1
    return {
        tensor.name: path[place].treatment
        for tensor, path, place in zip(tensors, paths, at, strict=True)
    }


def total(tensors: Sequence[Tensor], chosen: Mapping[str, str]) -> tuple[int, float]:
    """Return the bytes and the predicted loss of ``chosen``."""
    picked = [next(o for o in t.options if o.treatment == chosen[t.name]) for t in tensors]
    return sum(o.bytes for o in picked), sum(o.loss for o in picked)


def _gain(smaller: Option, larger: Option) -> float:
    return (smaller.loss - larger.loss) / (larger.bytes - smaller.bytes)


def _hull(options: Sequence[Option]) -> list[Option]:
    """Return the options on the lower left convex hull, smallest first."""
    hull: list[Option] = []
    for option in sorted(options, key=lambda o: (o.bytes, o.loss, o.treatment)):
        if hull and (option.bytes == hull[-1].bytes or option.loss >= hull[-1].loss):
            continue
        while len(hull) > 1 and _gain(hull[-2], hull[-1]) <= _gain(hull[-1], option):
            hull.pop()
        hull.append(option)
    return hull
