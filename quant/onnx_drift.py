"""How far the weights of a rewritten ONNX graph are from the float ones: damage, not rounding.

Recordings can miss what they do not touch: a token that nobody says, a channel that hardly
counts. Rounding leaves every output column of a product close to what it was; a scale of zero, a
tensor of another place, or one scale for columns of very different sizes does not. Weights are
found by name: rewriting here keeps names, ``quantize_dynamic`` adds ``_quantized``. They are
compared as the matrices [in, out] that they multiply as, however a graph stores them: turned, as a
kernel, or as the product that a convolution became (:mod:`edgevoice.quant.convolutions`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from edgevoice.quant import block_damage
from edgevoice.quant.onnx_nodes import attributes
from edgevoice.store import sha256

Float32 = NDArray[np.float32]

# Columns quieter than this share of their tensor's loudest do not count.
_QUIET = 1e-3
# Types and their significant bits.
_FLOATS = {TensorProto.FLOAT: 24, TensorProto.FLOAT16: 11}
_BYTES = (TensorProto.INT8, TensorProto.UINT8)
_SEVEN_BITS = 64


@dataclass(frozen=True, slots=True)
class Drift:
    """One tensor beside its float form.

    Attributes:
        name: In the float graph.
        elements: Number of weights.
        error: Norm of the difference over the norm of the float weights.
        excess: Of the output column where it is largest: the norm of the difference over what
            rounding the column's own range to as many bits makes. Infinite where a block with a
            scale of its own is what rounding cannot have made
            (:mod:`edgevoice.quant.block_damage`): in a column's norm one of many does not show.
    """

    name: str
    elements: int
    error: float
    excess: float


def drifts(reference: onnx.ModelProto, candidate: onnx.ModelProto) -> Iterator[Drift]:
    """Yield every matrix and kernel of ``reference`` that ``candidate`` has in some form."""
    return _drifts(_Weights(reference.graph), _Weights(candidate.graph))


def worst(reference: Sequence[Path], candidate: Sequence[Path]) -> tuple[float, float]:
    """Compare the graphs of two artifacts; a graph's partner shares most names with it.

    Returns:
        The largest :attr:`Drift.excess`, NaN where nothing could be compared; and the share of
        float's matrices and kernels, by elements, that were compared. A file that is its
        reference's to the byte is compared, whatever its format.
    """
    copies = {sha256(path) for path in candidate}
    read = [path for path in reference if sha256(path) not in copies]
    if reference and not read:
        return 0.0, 1.0
    others = [_Weights(onnx.load(str(path)).graph) for path in candidate if path.suffix == ".onnx"]
    excess, compared, total = [], 0, 0
    for path in read:
        if path.suffix != ".onnx":
            continue
        source = _Weights(onnx.load(str(path)).graph)
        total += source.elements
        partner = max(others, key=lambda other: len(source.names & other.names), default=None)
        for drift in _drifts(source, partner) if partner is not None else ():
            compared += drift.elements
            excess.append(drift.excess)
    return float(np.max(excess)) if excess else math.nan, compared / max(total, 1)  # NaN stays NaN


def _drifts(source: _Weights, found: _Weights) -> Iterator[Drift]:
    for name in sorted(source.names & found.names):
        before, after = source.read(name), found.read(name)
        if before is None or after is None:
            continue
        wanted, got = before.values, after.values
        elements = wanted.size
        if wanted.ndim == got.ndim == 2 and len(wanted) == len(got):
            # What a transposed convolution became is filled up to whole strides.
            wanted = np.pad(wanted, ((0, 0), (0, max(0, got.shape[1] - wanted.shape[1]))))
        if wanted.ndim < 2 or wanted.shape != got.shape or not wanted.any():
            continue
        wrong = np.asarray(np.sum(np.square(got - wanted), axis=0), np.float64)
        largest = np.asarray(np.abs(wanted).max(axis=0), np.float64)
        # Uniform errors of one step have a variance of a twelfth.
        step = largest / 2.0 ** (after.bits - 1)
        rounding = np.square(step) / 12.0 * len(wanted)
        loud = largest > _QUIET * largest.max()
        excess = float(np.sqrt((wrong[loud] / rounding[loud]).max()))
        rows = after.range_rows
        if rows and block_damage.sums(_blocks(wanted, rows), _blocks(got, rows)).lost():
            excess = math.inf
        yield Drift(
            name,
            elements,
            float(np.sqrt(wrong.sum() / np.sum(np.square(wanted), dtype=np.float64))),
            excess,
        )


def _blocks(matrix: Float32, rows: int) -> Float32:
    """Return [in, out] as [blocks, rows], filled up with zeros."""
    columns = matrix.T
    filled = np.pad(columns, ((0, 0), (0, -columns.shape[1] % rows)))
    return filled.reshape(-1, rows)


@dataclass(frozen=True, slots=True)
class _Weight:
    """One weight in float, the bits that it was written in, and how many rows share a scale.

    ``range_rows`` is 0 where a whole column does.
    """

    values: Float32
    bits: int
    range_rows: int = 0


class _Weights:
    """The weights of one graph, by their names in the float graph."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._tensors = {t.name: t for t in graph.initializer}
        self._stored = {name.removesuffix("_half") for name in self._tensors}
        self._blocks: Mapping[str, onnx.NodeProto] = {
            n.input[1]: n for n in graph.node if n.op_type == "MatMulNBits"
        }
        self._turned = {n.input[0] for n in graph.node if n.op_type == "Transpose"}
        self._users = {name: n for n in graph.node for name in n.input if name in self._stored}

    @property
    def elements(self) -> int:
        """Number of weights in matrices and kernels."""
        return sum(
            prod(t.dims)
            for t in self._tensors.values()
            if t.data_type in (*_FLOATS, *_BYTES) and len(t.dims) > 1
        )

    @property
    def names(self) -> set[str]:
        """Names that the float graph would have."""
        return {name.removesuffix("_half").removesuffix("_quantized") for name in self._tensors}

    def read(self, name: str) -> _Weight | None:
        """Return weight ``name`` as [in, out]; None where it is not there, or no weight."""
        if name in self._blocks:
            return self._in_blocks(self._blocks[name])
        for stored in (name, f"{name}_half", f"{name}_quantized"):
            tensor = self._tensors.get(stored)
            if tensor is None:
                continue
            values = numpy_helper.to_array(tensor)
            if tensor.data_type in _FLOATS:
                found = _Weight(values.astype(np.float32), _FLOATS[tensor.data_type])
            elif tensor.data_type in _BYTES and (widened := self._scaled(values, name)):
                found = widened
            else:
                return None
            return _Weight(self._matrix(found.values, name), found.bits)
        return None

    def _matrix(self, values: Float32, name: str) -> Float32:
        """Return a stored weight as the matrix [in, out] that its user multiplies by."""
        user = self._users.get(name)
        kind = user.op_type if user is not None else ""
        if values.ndim == 2:
            turned = user is not None and kind == "Gemm" and attributes(user).get("transB")
            return values.T if turned or name in self._turned else values
        if values.ndim == 3 and kind == "ConvTranspose":  # [in, out, size]
            return values.transpose(0, 2, 1).reshape(len(values), -1)
        if values.ndim == 3:  # [out, in, size]
            return values.transpose(2, 1, 0).reshape(-1, len(values))
        return values.reshape(len(values), -1).T if values.ndim > 1 else values

    def _scaled(self, values: NDArray[np.generic], name: str) -> _Weight | None:
        scale = self._floats(f"{name}_scale")
        if scale is None:
            return None
        zero = self._tensors.get(f"{name}_zero_point")
        offset = (
            numpy_helper.to_array(zero).astype(np.float32) if zero is not None else np.float32(0)
        )
        axis = 0 if values.ndim > 2 else values.ndim - 1
        if scale.size not in (1, values.shape[axis]):
            return None
        shape = [1] * values.ndim
        shape[axis] = -1
        widened: Float32 = values.astype(np.float32) - np.reshape(
            offset, shape if np.size(offset) > 1 else ()
        )
        # Written for a processor that cannot sum products of more bits (Scheme.narrowed).
        fewer = values.dtype == np.int8 and float(np.abs(widened).max(initial=0.0)) <= _SEVEN_BITS
        return _Weight(widened * scale.reshape(shape if scale.size > 1 else ()), 7 if fewer else 8)

    def _in_blocks(self, node: onnx.NodeProto) -> _Weight | None:
        """Widen the weight of a ``MatMulNBits`` to [in, out]."""
        sizes = attributes(node)
        rows, columns, bits = sizes["K"], sizes["N"], sizes["bits"]
        packed = numpy_helper.to_array(self._tensors[node.input[1]])
        scales = self._floats(node.input[2])
        if scales is None:
            return None
        blocks = packed.shape[1]
        zero = np.full((columns, blocks, 1), 2 ** (bits - 1), np.float32)
        if len(node.input) > 3 and node.input[3]:
            stored = numpy_helper.to_array(self._tensors[node.input[3]]).reshape(columns, -1)
            zero = _unpack(stored, bits)[:, :blocks, np.newaxis].astype(np.float32)
        values = _unpack(packed, bits).astype(np.float32)
        widened = (values - zero) * scales.reshape(columns, blocks, 1)
        return _Weight(widened.reshape(columns, -1)[:, :rows].T, bits, sizes["block_size"])

    def _floats(self, name: str) -> Float32 | None:
        for stored in (name, f"{name}_half"):
            if stored in self._tensors:
                values: Float32 = numpy_helper.to_array(self._tensors[stored]).astype(np.float32)
                return values
        return None


def _unpack(packed: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Return one value an element; of two in a byte the first lies in the low bits."""
    if bits == 8:
        return packed
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)
