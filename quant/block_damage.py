"""Blocks of weights that share a scale: which of them rounding cannot have made. Pure.

A text or a recording can miss what it does not touch: one block of a rare word's embedding that
lost its scale. Rounding leaves every block close to what it was; damage does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

WRONG = 1.2
"""Error of a block, relative to its own norm, from which on it cannot come from rounding: weights
of another place make 1.4. The importance matrix lets a block give up columns that do not matter;
the worst of SmolLM2-135M's 4.2 million blocks was 0.16 in stock Q4_K_M, 0.36 with the matrix, 0.54
in Q4_0 and 0.87 in IQ4_NL with it."""

_FLAT = 1e-3  # share of its variance below which a block has lost its scale
_LOUD = 0.5  # blocks quieter than this share of their tensor's mean may round to nothing
_HOLDS_SOMETHING = 0.01  # share of the tensor's mean below which a float16 scale may be no more


@dataclass(frozen=True, slots=True)
class BlockSums:
    """Sums over each block: one entry a block in every array.

    Attributes:
        norm: Of the squares of the float weights.
        off: Of the squares of the differences.
        flat: Whether the written block has lost nearly all its variance.
    """

    norm: Floats
    off: Floats
    flat: NDArray[np.bool_]

    @property
    def error(self) -> float:
        """Norm of the difference over the norm of the float weights, in all."""
        off, norm = self.off.sum(dtype=np.float64), self.norm.sum(dtype=np.float64)
        return float(np.sqrt(off / max(norm, 1e-30)))

    @property
    def worst(self) -> float:
        """The same of the worst block, those aside that hold next to nothing."""
        return float(self._relative.max())

    def lost(self, together: int = 1) -> int:
        """Return how many blocks have gone flat, or are off by :data:`WRONG` or more.

        Args:
            together: Neighbouring blocks whose scales share a scale. A quiet one among them may
                round to nothing; all of them may not.
        """
        lost = self.flat & self._loud | self._flat_together(together)
        # NaN is damage too, and compares with nothing.
        lost[self._loud] |= ~(self._relative < WRONG)
        return int(lost.sum())

    def _flat_together(self, together: int) -> NDArray[np.bool_]:
        """Which blocks have gone flat with all that share their scale."""
        if self.flat.size % together:
            return np.zeros_like(self.flat)
        groups = self.norm.reshape(-1, together).mean(axis=1)
        gone = self.flat.reshape(-1, together).all(axis=1)
        gone &= groups >= _HOLDS_SOMETHING**2 * self.norm.mean()
        return np.repeat(gone, together)

    @property
    def _loud(self) -> NDArray[np.bool_]:
        loud: NDArray[np.bool_] = self.norm >= _LOUD**2 * self.norm.mean()
        return loud

    @property
    def _relative(self) -> Floats:
        loud = self._loud
        relative: Floats = np.sqrt(self.off[loud] / np.maximum(self.norm[loud], 1e-30))
        return relative


def sums(weights: Floats, written: Floats) -> BlockSums:
    """Sum over the rows of two matrices [blocks, size], float and rounded."""
    return BlockSums(
        np.square(weights).sum(axis=1),
        np.square(weights - written).sum(axis=1),
        written.var(axis=1) < _FLAT * weights.var(axis=1),
    )


def joined(parts: Sequence[BlockSums]) -> BlockSums:
    """Return the sums of a tensor that was read in parts."""
    return BlockSums(
        np.concatenate([p.norm for p in parts]),
        np.concatenate([p.off for p in parts]),
        np.concatenate([p.flat for p in parts]),
    )
