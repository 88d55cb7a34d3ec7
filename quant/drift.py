"""How far the weights of a quantised GGUF file are from the float ones: damage, told from rounding.

A divergence on a text can miss what a text does not touch: one block of a rare word's embedding
that lost its scale. Rounding leaves every block close to what it was; damage does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgevoice.engines import gguf_file
from edgevoice.engines.gguf_file import GgufTensor
from edgevoice.errors import ArtifactError
from edgevoice.quant import block_damage, ggml
from edgevoice.quant.block_damage import WRONG
from edgevoice.quant.ggml import Float32

BLOCK = 32
"""Weights that share a scale in most of ggml's types; the others' blocks are multiples of it."""

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Drift:
    """One tensor beside its float form.

    Attributes:
        error: Norm of the difference over the norm of the float weights.
        worst_block: The same of its worst block of 32, those aside that hold next to nothing.
        lost_blocks: Blocks that have gone flat, or are off by :data:`WRONG` or more.
        blocks: All of them.
    """

    error: float
    worst_block: float
    lost_blocks: int
    blocks: int


def check(reference: Path, candidate: Path) -> Mapping[str, Drift]:
    """Compare two GGUF files tensor by tensor.

    Raises:
        ArtifactError: A tensor is missing, of another shape, or damaged; one line that names it.
    """
    found = drifts(reference, candidate)
    for name, drift in found.items():
        if drift.lost_blocks:
            raise ArtifactError(
                f"{candidate}: {drift.lost_blocks} of {drift.blocks} blocks of {name} are not what "
                f"rounding makes of the float weights: flat, or off by {WRONG:g} of their norm and "
                f"more (the worst by {drift.worst_block:.2f}); quantise it again"
            )
    return found


def drifts(reference: Path, candidate: Path) -> Mapping[str, Drift]:
    """Measure every tensor of ``candidate`` against ``reference``.

    Raises:
        ArtifactError: A tensor is missing or of another shape.
    """
    ours = {t.name: t for t in gguf_file.read_header(candidate).table}
    result = {}
    for tensor in gguf_file.read_header(reference).table:
        other = ours.get(tensor.name)
        if other is None or other.shape != tensor.shape:
            shape = "missing" if other is None else f"of shape {list(other.shape)}"
            raise ArtifactError(
                f"{candidate}: {tensor.name} is {shape}, the float model's has "
                f"{list(tensor.shape)}; quantise it again"
            )
        result[tensor.name] = _drift(reference, tensor, candidate, other)
    return result


def _drift(first: Path, tensor: GgufTensor, second: Path, other: GgufTensor) -> Drift:
    if (tensor.type, tensor.bytes) == (other.type, other.bytes) and _raw(first, tensor) == _raw(
        second, other
    ):
        return Drift(0.0, 0.0, 0, -(-tensor.elements // BLOCK))
    parts = []
    pairs = zip(_chunks(first, tensor), _chunks(second, other), strict=True)
    for weights, written in pairs:
        # A tensor that is not written in blocks is looked at in shares of a like size.
        width = BLOCK if weights.size % BLOCK == 0 else weights.size
        parts.append(block_damage.sums(weights.reshape(-1, width), written.reshape(-1, width)))
    sums = block_damage.joined(parts)
    # The K types have a scale for 256 weights, which the scales of 32 or 16 are parts of.
    together = max(1, gguf_file.TYPES[other.type].block // BLOCK)
    return Drift(sums.error, sums.worst, sums.lost(together), len(sums.norm))


def _chunks(path: Path, tensor: GgufTensor) -> Iterator[Float32]:
    known = gguf_file.TYPES[tensor.type]
    # Whole super-blocks of 256, whatever the type.
    step = min(_CHUNK, tensor.elements)
    with path.open("rb") as file:
        for start in range(0, tensor.elements, step):
            count = min(step, tensor.elements - start)
            file.seek(tensor.offset + start // known.block * known.block_bytes)
            data = file.read(count // known.block * known.block_bytes)
            yield ggml.restore(data, tensor.type_name, count)


def _raw(path: Path, tensor: GgufTensor) -> bytes:
    with path.open("rb") as file:
        file.seek(tensor.offset)
        return file.read(tensor.bytes)
