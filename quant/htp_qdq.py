"""Quantises a whole float graph as Snapdragon's HTP wants it: every value, not only the products.

The HTP of QCS6490 (v68) computes no float at all, and later ones are slower in it. onnxruntime
knows which operators want which scales (``get_qnn_qdq_config``). Owns the choice of widths:
activations unsigned in 8 or 16 bits, weights signed in 8, one scale for each output channel.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from edgevoice.errors import ConfigError
from edgevoice.quant import static_graph
from edgevoice.quant.dynamic_int8 import quiet

ACTIVATION_BITS = (8, 16)
Feed = Mapping[str, Any]


def write(model: onnx.ModelProto, feeds: Sequence[Feed], activation_bits: int) -> onnx.ModelProto:
    """Return the float ``model`` (every size fixed) with all it computes in integers (QDQ).

    Args:
        model: Left as it is.
        feeds: Inputs that activations are calibrated on; each is run.
        activation_bits: One of :data:`ACTIVATION_BITS`.

    Raises:
        ConfigError: The number of bits is another, or there is nothing to calibrate with.
    """
    if activation_bits not in ACTIVATION_BITS:
        raise ConfigError(f"activations of {activation_bits} bits: the HTP takes 8 or 16")
    if not feeds:
        raise ConfigError("an NPU's graph has to be calibrated, and there is nothing to do it with")
    from onnxruntime.quantization import CalibrationMethod, QuantType, quantize
    from onnxruntime.quantization.execution_providers.qnn import get_qnn_qdq_config

    if activation_bits == 16:
        model = static_graph.norms_apart(model)
    with tempfile.TemporaryDirectory(prefix="edgevoice-") as folder, quiet():
        before, after = Path(folder) / "float.onnx", Path(folder) / "qdq.onnx"
        onnx.save(model, str(before))
        config = get_qnn_qdq_config(
            str(before),
            _Reader(feeds),
            calibrate_method=CalibrationMethod.MinMax,
            activation_type=QuantType.QUInt8 if activation_bits == 8 else QuantType.QUInt16,
            weight_type=QuantType.QInt8,
            weight_symmetric=True,
            per_channel=True,
            init_overrides={
                **_norm_weights(model, QuantType.QUInt8),
                **_product_weights(model, QuantType.QInt8),
            },
        )
        quantize(str(before), str(after), config)
        return onnx.load(str(after))


def _norm_weights(model: onnx.ModelProto, unsigned: Any) -> dict[str, list[dict[str, Any]]]:
    """Return the types of the factors of layer norms: the HTP takes no signed ones (error 3110)."""
    return {
        node.input[1]: [{"quant_type": unsigned, "symmetric": False}]
        for node in model.graph.node
        if node.op_type == "LayerNormalization"
    }


def _product_weights(model: onnx.ModelProto, signed: Any) -> dict[str, list[dict[str, Any]]]:
    """Return a scale for each column of every product's weights.

    onnxruntime gives those of MatMul one scale, for HTPs that took no more; QNN 2.51 takes them by
    column on every chip tried, and weights that were published so stay the integers that they are.
    """
    constants = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) == 2}
    return {
        node.input[1]: [{"quant_type": signed, "axis": 1, "symmetric": True}]
        for node in model.graph.node
        if node.op_type == "MatMul" and node.input[1] in constants
    }


class _Reader:
    """What onnxruntime asks for the next feed (its ``CalibrationDataReader``)."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._all = feeds
        self.rewind()

    def rewind(self) -> None:
        """Begin again."""
        self._left: Iterator[Feed] = iter(self._all)

    def get_next(self) -> Feed | None:
        """Return the next feed, None at the end."""
        return next(self._left, None)

    def __iter__(self) -> Iterator[Feed]:
        return iter(self._all)
