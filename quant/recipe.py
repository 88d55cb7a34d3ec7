"""What happens to each tensor of a model: ordered overrides, and the record of the choices.

A recipe is data. The first override whose pattern matches a tensor's name decides; the scheme
decides where none does. What was decided is recorded tensor by tensor in the manifest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

KEEP = "keep"
"""The treatment that leaves a tensor in float."""
HALF = "fp16"
"""The treatment that stores a tensor as float16 and computes in float32."""
INT8 = "int8"
"""The treatment that multiplies bytes: weights in 8 bits, activations rounded as they come."""


@dataclass(frozen=True, slots=True)
class Override:
    """``treatment`` for the tensors whose name matches the shell pattern ``pattern``.

    A treatment is :data:`KEEP`, the name of an ONNX scheme, or a GGUF type (``Q6_K``).
    ``reason`` says what was measured, for the next person who wonders.
    """

    pattern: str
    treatment: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Ordered overrides; the first match wins."""

    overrides: tuple[Override, ...] = ()

    def treatment(self, tensor: str, otherwise: str) -> str:
        """Return what to do with ``tensor``.

        >>> Recipe((Override("*/ffn/*", KEEP),)).treatment("decoder/ffn/weight", "int8")
        'keep'
        """
        for override in self.overrides:
            if fnmatchcase(tensor, override.pattern):
                return override.treatment
        return otherwise

    def patterns(self, treatment: str) -> tuple[str, ...]:
        """Return the patterns that ask for ``treatment``, in order."""
        return tuple(o.pattern for o in self.overrides if o.treatment == treatment)

    def behind(self, more: Iterable[Override]) -> Recipe:
        """Return this recipe with ``more`` overrides asked before its own."""
        return Recipe((*more, *self.overrides))


@dataclass(frozen=True, slots=True)
class TensorChoice:
    """What became of one tensor.

    Attributes:
        name: The tensor's name in the written file.
        type: ``float32``, ``float16``, ``int8``, ``uint8``, ``int4``, or a GGUF type.
        elements: Number of weights.
        bytes: On the disk, scales included.
    """

    name: str
    type: str
    elements: int
    bytes: int


def by_type(choices: Iterable[TensorChoice]) -> Mapping[str, int]:
    """Return the bytes that each type takes, largest first."""
    sums: dict[str, int] = {}
    for choice in choices:
        sums[choice.type] = sums.get(choice.type, 0) + choice.bytes
    return dict(sorted(sums.items(), key=lambda item: -item[1]))
