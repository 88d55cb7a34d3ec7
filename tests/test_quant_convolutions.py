"""Convolutions as 8-bit products give what the float convolution gives, within the rounding."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgevoice.quant import convolutions

Array = NDArray[np.float32]


def model_of(
    kind: str, weight: Array, bias: Array | None, channels: int | None = None, **more: Any
) -> onnx.ModelProto:
    """One node on ``x`` [1, channels, t] (a convolution) or [1, t, channels] (a product)."""
    convolution = kind.startswith("Conv")
    shape = [1, channels, "t"] if convolution else [1, "t", weight.shape[0]]
    if kind == "Gemm":
        shape = ["t", weight.shape[0]]
    initializers = [numpy_helper.from_array(weight, "w")]
    if bias is not None:
        initializers.append(numpy_helper.from_array(bias, "b"))
    inputs = ["x", "w", *(["b"] if bias is not None else [])]
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, ["y"], **more)],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)


def run(model: onnx.ModelProto, x: Array) -> Array:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    made: Array = session.run(None, {"x": x})[0]
    return made


def apart(model: onnx.ModelProto, x: Array, **how: Any) -> float:
    """Largest error relative to the output's range."""
    wanted = run(model, x)
    assert convolutions.quantise(model, **how) == ["w"]
    got = run(model, x)
    assert got.shape == wanted.shape
    return float(np.abs(got - wanted).max() / np.abs(wanted).max())


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"pads": [3, 3]},
        {"pads": [4, 1], "dilations": [2]},
        {"pads": [3, 2], "strides": [3]},
        {"strides": [4], "dilations": [3], "pads": [9, 9]},
    ],
)
@pytest.mark.parametrize("biased", [True, False])
def test_convolutions(how: dict[str, Any], biased: bool) -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(24, 16, 7)).astype(np.float32)
    bias = rng.normal(size=24).astype(np.float32) if biased else None
    x = rng.normal(size=(1, 16, 61)).astype(np.float32)
    assert 0 < apart(model_of("Conv", weight, bias, 16, **how), x) < 0.02


@pytest.mark.parametrize(
    ("size", "how"),
    [
        (16, {"strides": [8], "pads": [4, 4]}),
        (8, {"strides": [4], "pads": [2, 2]}),
        (7, {"strides": [3], "pads": [2, 1], "output_padding": [1]}),
        (20, {"strides": [10], "pads": [5, 5]}),
        (3, {}),
        (2, {"strides": [4]}),
    ],
)
def test_transposed_convolutions(size: int, how: dict[str, Any]) -> None:
    rng = np.random.default_rng(1)
    weight = rng.normal(size=(32, 24, size)).astype(np.float32)
    bias = rng.normal(size=24).astype(np.float32)
    x = rng.normal(size=(1, 32, 19)).astype(np.float32)
    assert 0 < apart(model_of("ConvTranspose", weight, bias, 32, **how), x) < 0.02


def test_matrix_products() -> None:
    rng = np.random.default_rng(2)
    weight = rng.normal(size=(48, 32)).astype(np.float32)
    x = rng.normal(size=(1, 9, 48)).astype(np.float32)
    assert apart(model_of("MatMul", weight, None), x) < 0.02
    square = rng.normal(size=(48, 48)).astype(np.float32)
    bias = rng.normal(size=48).astype(np.float32)
    assert apart(model_of("Gemm", square, bias, transB=1), x[0]) < 0.02


def test_channels_of_different_size_need_scales_of_their_own() -> None:
    rng = np.random.default_rng(3)
    weight = (rng.normal(size=(24, 16, 5)) * np.geomspace(0.001, 1, 24)[:, None, None]).astype("f4")
    x = rng.normal(size=(1, 16, 40)).astype(np.float32)
    wanted = run(model_of("Conv", weight, None, 16), x)[0, 0]
    errors = []
    for per_channel in (True, False):
        model = model_of("Conv", weight, None, 16)
        convolutions.quantise(model, per_channel=per_channel)
        errors.append(float(np.abs(run(model, x)[0, 0] - wanted).max() / np.abs(wanted).max()))
    assert errors[0] < 0.03
    assert errors[1] > 0.5


@pytest.mark.parametrize(
    ("kind", "shape", "how"),
    [
        ("Conv", (32, 1, 40), {"group": 32}),
        ("Conv", (32, 32, 3), {"auto_pad": "SAME_UPPER"}),
        ("ConvTranspose", (32, 32, 3), {"dilations": [2]}),
        ("ConvTranspose", (32, 32, 4), {"strides": [4], "output_padding": [2]}),
        ("Conv", (4, 32, 3), {}),
    ],
)
def test_what_does_not_fit_stays(kind: str, shape: tuple[int, ...], how: dict[str, Any]) -> None:
    model = model_of(kind, np.ones(shape, np.float32), None, 32, **how)
    before = model.SerializeToString()
    assert convolutions.quantise(model) == []
    assert model.SerializeToString() == before


def test_an_old_graph_is_refused() -> None:
    model = model_of("Conv", np.ones((32, 32, 3), np.float32), None, 32)
    model.opset_import[0].version = 11
    with pytest.raises(ValueError, match="opset 11"):
        convolutions.quantise(model)


def test_inputs_are_rounded_once_for_all_that_read_them() -> None:
    rng = np.random.default_rng(4)
    model = model_of("Conv", rng.normal(size=(32, 32, 3)).astype(np.float32), None, 32)
    again = helper.make_node("Conv", ["x", "w2"], ["y2"])
    model.graph.node.append(again)
    model.graph.initializer.append(
        numpy_helper.from_array(rng.normal(size=(32, 32, 3)).astype(np.float32), "w2")
    )
    model.graph.output.append(helper.make_tensor_value_info("y2", TensorProto.FLOAT, None))
    assert convolutions.quantise(model) == ["w", "w2"]
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("DynamicQuantizeLinear") == kinds.count("Concat") == 1
    assert kinds.count("MatMulIntegerToFloat") == 2
