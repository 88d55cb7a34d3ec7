"""Builds an ONNX model node by node, writes it, and reads whole ones.

Owns names, initializers and the assembly of the ``ModelProto``. Names count up in the order of
the calls, so that the same calls give the same bytes. What the nodes compute is the families'
business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgevoice.errors import ArtifactError
from edgevoice.quant.onnx_nodes import CONTRIB

# Gelu is an ONNX operator since opset 20; the onnxruntime inside sherpa-onnx 2.0.1 has it.
OPSET = 20
# protobuf cannot write a message of more than 2 GiB.
MAX_BYTES = 2**31 - 1

Shape = Sequence[int | str]


class Graph:
    """One graph under construction; values are their names."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self._known: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def input(self, name: str, dtype: type[np.generic], shape: Shape) -> str:
        """Declare a graph input; strings in ``shape`` are dynamic dimensions."""
        self.inputs.append(_value_info(name, dtype, shape))
        return name

    def output(self, value: str, name: str, dtype: type[np.generic], shape: Shape) -> None:
        """Make ``value`` a graph output called ``name``."""
        self.nodes.append(helper.make_node("Identity", [value], [name], name=f"out_{name}"))
        self.outputs.append(_value_info(name, dtype, shape))

    def weight(self, name: str, array: NDArray[np.generic]) -> str:
        """Add ``array`` as an initializer called ``name``."""
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def constant(self, value: int | float | Sequence[int]) -> str:
        """Add a small constant: int64 for integers and lists of them, float32 for floats."""
        array = np.asarray(value, np.float32 if isinstance(value, float) else np.int64)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._known:
            self._known[key] = self.weight(f"const_{len(self._known)}", array)
        return self._known[key]

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output and return that output."""
        return self.split_op(kind, inputs, 1, **attributes)[0]

    def split_op(
        self, kind: str, inputs: Sequence[str], outputs: int, **attributes: Any
    ) -> list[str]:
        """Add a node with several outputs and return them; ``domain:Kind`` names a domain."""
        domain, _, kind = kind.rpartition(":")
        label = f"{kind}_{len(self.nodes)}"
        values = [label] if outputs == 1 else [f"{label}.{i}" for i in range(outputs)]
        self.nodes.append(
            helper.make_node(kind, list(inputs), values, name=label, domain=domain, **attributes)
        )
        return values

    def model(self, metadata: Mapping[str, str | int]) -> onnx.ModelProto:
        """Assemble the model; ``metadata`` becomes its metadata_props, in the order given."""
        graph = helper.make_graph(
            self.nodes, self.name, self.inputs, self.outputs, initializer=self.initializers
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)]
        model = helper.make_model(
            graph, opset_imports=opsets, producer_name="edgevoice", ir_version=9
        )
        for key, value in metadata.items():
            model.metadata_props.add(key=key, value=str(value))
        return model


def load(path: Path) -> onnx.ModelProto:
    """Read a graph, its weights included.

    Raises:
        ArtifactError: It is truncated or not ONNX, or a weight lies in a file that is missing.
    """
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf's and onnx's own classes derive from Exception alone
        reason = str(error).strip().split("\n", maxsplit=1)[0]
        raise ArtifactError(f"{path} is not a whole ONNX model: {reason[:160]}") from error
    return model


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write ``model``; equal models give equal bytes.

    Raises:
        ArtifactError: The model is larger than a protobuf message can be.
    """
    if model.ByteSize() > MAX_BYTES:
        raise ArtifactError(
            f"{path.name} would have {model.ByteSize()} bytes, an ONNX file holds {MAX_BYTES}; "
            "choose the int8 scheme or a smaller model"
        )
    path.write_bytes(model.SerializeToString(deterministic=True))


def _value_info(name: str, dtype: type[np.generic], shape: Shape) -> onnx.ValueInfoProto:
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    if element == TensorProto.UNDEFINED:
        raise ValueError(f"{dtype} has no ONNX type")
    return helper.make_tensor_value_info(name, element, list(shape))
