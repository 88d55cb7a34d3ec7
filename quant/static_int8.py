"""Static int8 (QDQ) for a whole ONNX model, calibrated on inputs that the caller gives.

Owns the settings that :func:`onnxruntime.quantization.quantize_static` is called with, and the
preparation that it wants. What a model is calibrated on is its family's business.

Weights are signed, per output channel; activations unsigned, one scale a tensor. Only products are
quantised: an element-wise operator in bytes saves a pass over memory and costs a rounding each.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from edgevoice.errors import ConfigError, unknown
from edgevoice.quant import float16, tensors
from edgevoice.quant.convolutions import weights_of
from edgevoice.quant.dynamic_int8 import quiet, treatments
from edgevoice.quant.recipe import HALF, INT8, KEEP, Recipe, TensorChoice

METHODS = ("min-max", "entropy", "percentile")
Feed = Mapping[str, Any]
_OPERATORS = ("Conv", "MatMul", "Gemm")
_PERCENTILE = 99.99


def write(
    source: Path,
    target: Path,
    feeds: Sequence[Feed],
    recipe: Recipe,
    *,
    method: str = "min-max",
    per_channel: bool = True,
    rest: str = KEEP,
    fewer_bits: bool = False,
) -> tuple[TensorChoice, ...]:
    """Write the float model ``source`` to ``target`` with its products in QDQ int8.

    Args:
        source: A float ONNX model of one file.
        target: Written.
        feeds: Inputs of the model; it runs on each.
        recipe: As for :func:`edgevoice.quant.dynamic_int8.write`.
        method: One of :data:`METHODS`: what of the values seen becomes an activation's range.
        per_channel: One scale for each output channel of a weight.
        rest: What happens to all other weights: HALF or KEEP.
        fewer_bits: Weights take 7 of their 8 (onnxruntime's ``reduce_range``).

    Raises:
        ConfigError: The method is not known, or there is nothing to calibrate with.
    """
    if method not in METHODS:
        raise ConfigError(unknown("calibration", method, METHODS))
    if not feeds:
        raise ConfigError("int8-static needs text to calibrate with, and there is none")
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    calibrations = {
        "min-max": CalibrationMethod.MinMax,
        "entropy": CalibrationMethod.Entropy,
        "percentile": CalibrationMethod.Percentile,
    }
    model = onnx.load(str(source))
    with tempfile.TemporaryDirectory(prefix="edgevoice-") as folder:
        named = Path(folder) / "named.onnx"
        nodes = _choose(model, recipe)
        onnx.save(model, str(named))
        quantised = Path(folder) / "quantised.onnx"
        with quiet():
            quantize_static(
                str(named),
                str(quantised),
                _Reader(feeds),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(_OPERATORS),
                nodes_to_quantize=nodes,
                per_channel=per_channel,
                reduce_range=fewer_bits,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=calibrations[method],
                extra_options={"CalibPercentile": _PERCENTILE},
            )
        model = onnx.load(str(quantised))
    if rest == HALF:
        float16.store(model)
    target.write_bytes(model.SerializeToString(deterministic=True))
    return tensors.choices(model)


class _Reader:
    """What onnxruntime asks for the next feed (its ``CalibrationDataReader``)."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds: Iterator[Feed] = iter(feeds)

    def get_next(self) -> Feed | None:
        """Return the next feed, None at the end."""
        return next(self._feeds, None)


def _choose(model: onnx.ModelProto, recipe: Recipe) -> list[str]:
    """Name every node, as onnxruntime wants, and return the nodes that are to be int8."""
    for i, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{i}"
    wanted = treatments(model, recipe)
    return [
        node.name
        for weight, nodes in weights_of(model.graph).items()
        for node in nodes
        if wanted[weight] == INT8 and node.op_type in _OPERATORS
    ]
