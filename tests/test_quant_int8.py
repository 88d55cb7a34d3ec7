"""Rounding to int8 and the rewriting of products, run in onnxruntime."""

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from edgevoice.quant import float16, int8


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9))
def test_rounding_stays_within_half_a_scale(seed, rows, columns):
    weight = np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)
    weight[:, 0] = 0.0
    values, scale = int8.round_columns(weight)
    assert values.dtype == np.int8
    assert np.abs(values).max() <= int8.LARGEST
    assert np.all(np.abs(values * scale - weight) <= scale * 0.5001)


def tied_model(users=()):
    """Embedding, hidden layer with a bias, logits on the embedding's own matrix."""
    random = np.random.default_rng(3)
    weights = {
        "table": random.standard_normal((32, 50)).astype(np.float16).astype(np.float32),
        "hidden": (random.standard_normal((32, 32)) / 6).astype(np.float32),
        "bias": random.standard_normal(32).astype(np.float32),
        "positions": random.standard_normal((32, 4)).astype(np.float16).astype(np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["columns"], name="gather", axis=1),
        helper.make_node("Add", ["columns", "positions"], ["placed"], name="place"),
        helper.make_node("Transpose", ["placed"], ["x"], name="turn", perm=[1, 0]),
        helper.make_node("MatMul", ["x", "hidden"], ["h"], name="hidden_product"),
        helper.make_node("Add", ["bias", "h"], ["y"], name="hidden_bias"),
        helper.make_node("MatMul", ["y", "table"], ["logits"], name="logits_product"),
        *users,
    ]
    graph = helper.make_graph(
        nodes,
        "tied",
        [helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, [4])],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [4, 50])],
        [numpy_helper.from_array(a, n) for n, a in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def run(model):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"ids": np.array([4, 0, 49, 4])})[0]


def test_a_tied_matrix_is_stored_once_in_int8_and_the_bias_is_absorbed():
    model = tied_model()
    wanted = run(model)
    assert sorted(int8.quantise(model)) == ["hidden", "table"]
    kinds = [n.op_type for n in model.graph.node]
    assert kinds.count("DynamicQuantizeMatMul") == 2
    assert "MatMul" not in kinds
    assert kinds.count("Add") == 1  # the positions'; the bias went into the product
    types = {t.name: t.data_type for t in model.graph.initializer}
    assert types["table"] == onnx.TensorProto.INT8
    got = run(model)
    assert 0 < np.abs(got - wanted).max() < 0.05 * np.abs(wanted).max()


def test_a_matrix_with_another_reader_stays_float():
    other = helper.make_node("Transpose", ["hidden"], ["unused"], name="reader", perm=[1, 0])
    model = tied_model([other])
    assert int8.quantise(model) == ["table"]
    assert np.isfinite(run(model)).all()


def test_a_matrix_that_is_to_be_kept_stays_float():
    model = tied_model()
    assert int8.quantise(model, ["hid*"]) == ["table"]
    types = {t.name: t.data_type for t in model.graph.initializer}
    assert types["hidden"] == onnx.TensorProto.FLOAT
    assert np.isfinite(run(model)).all()


@pytest.mark.parametrize(("least", "halved"), [(100, ["table", "positions"]), (1000, ["table"])])
def test_halving_keeps_every_bit_of_what_float16_holds(least, halved):
    model = tied_model()
    wanted, size = run(model), model.ByteSize()
    assert [c.name for c in float16.store_exact(model, least)] == [f"{n}_half" for n in halved]
    np.testing.assert_array_equal(run(model), wanted)
    assert model.ByteSize() < size
