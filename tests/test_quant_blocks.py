"""Weights in blocks and in float16, run by onnxruntime and compared with the float graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgevoice.errors import ArtifactError, ConfigError
from edgevoice.export.onnx_graph import Graph
from edgevoice.quant import float16, int4, int8, tensors

Floats = NDArray[np.float32]
VOCABULARY, WIDTH, HIDDEN = 96, 64, 128


def weights(seed: int = 0) -> dict[str, Floats]:
    rng = np.random.default_rng(seed)
    shapes = {"table": (VOCABULARY, WIDTH), "up": (WIDTH, HIDDEN), "down": (HIDDEN, WIDTH)}
    return {n: rng.standard_normal(s).astype(np.float32) / 8 for n, s in shapes.items()}


def tied_model(columns: bool = False) -> onnx.ModelProto:
    """Embedding, two products, and logits from the embedding's own matrix."""
    made = weights()
    graph = Graph("tied")
    ids = graph.input("ids", np.int64, ["n"])
    if columns:
        table = graph.weight("table", made["table"].T)
        x = graph.op("Transpose", graph.op("Gather", table, ids, axis=1), perm=[1, 0])
    else:
        table = graph.weight("table", made["table"])
        x = graph.op("Gather", table, ids, axis=0)
    x = graph.op("Relu", graph.op("MatMul", x, graph.weight("up", made["up"])))
    x = graph.op("MatMul", x, graph.weight("down", made["down"]))
    turned = table if columns else graph.op("Transpose", table, perm=[1, 0])
    graph.output(graph.op("MatMul", x, turned), "logits", np.float32, ["n", VOCABULARY])
    return graph.model({})


def run(model: onnx.ModelProto) -> Floats:
    session = ort.InferenceSession(model.SerializeToString())
    result: Any = session.run(None, {"ids": np.arange(VOCABULARY)})[0]
    return np.asarray(result, np.float32)


def distance(model: onnx.ModelProto, reference: onnx.ModelProto) -> float:
    a, b = run(model), run(reference)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("bits", "far"), [(4, 0.25), (8, 0.02)])
def test_blocks_compute_nearly_the_same(
    bits: int, far: float, symmetric: bool, columns: bool
) -> None:
    reference = tied_model(columns)
    model = tied_model(columns)
    made = int4.quantise(model, bits, 32, symmetric)
    assert [c.name for c in made] == ["table", "up", "down"]
    assert 0 < distance(model, reference) < far
    # Every weight, its half of a float16 scale, and its zero point.
    each = bits / 8 + 2 / 32 + (0 if symmetric else bits / 8 / 32)
    assert sum(c.bytes for c in made) == sum(c.elements for c in made) * each
    kinds = {n.op_type for n in model.graph.node}
    assert {"MatMulNBits", "GatherBlockQuantized"} <= kinds
    assert not kinds & {"MatMul", "Gather"}
    assert {c.name: c for c in tensors.choices(model)}["table"] == made[0]


def test_float_activations_are_nearer_than_eight_bits_of_them() -> None:
    reference = tied_model()
    distances = []
    for level in (int4.FLOAT_ACTIVATIONS, int4.INT8_ACTIVATIONS):
        model = tied_model()
        int4.quantise(model, 8, 32, True, accuracy_level=level)
        distances.append(distance(model, reference))
    assert distances[0] < distances[1]


def test_what_is_kept_stays_float_with_everything_tied_to_it() -> None:
    model = tied_model()
    made = int4.quantise(model, 4, 32, True, keep=("tab*",))
    assert [c.name for c in made] == ["up", "down"]
    types = {c.name: c.type for c in tensors.choices(model)}
    assert (types["table"], types["up"]) == ("float32", "int4")


def test_an_embedding_alone_is_rewritten_only_when_asked() -> None:
    def lone() -> onnx.ModelProto:
        graph = Graph("lone")
        ids = graph.input("ids", np.int64, ["n"])
        x = graph.op("Gather", graph.weight("table", weights()["table"]), ids, axis=0)
        graph.output(x, "logits", np.float32, ["n", WIDTH])
        return graph.model({})

    assert int4.quantise(lone(), 4, 32, True) == []
    model = lone()
    assert len(int4.quantise(model, 4, 32, True, operators=("MatMul", "Gather"))) == 1
    assert 0 < distance(model, lone()) < 0.2


@pytest.mark.parametrize("foreign", ["output", "add", "subgraph"])
def test_a_matrix_with_another_use_stays_float(foreign: str) -> None:
    model = tied_model()
    if foreign == "output":
        model.graph.output.append(helper.make_tensor_value_info("up", TensorProto.FLOAT, None))
    elif foreign == "add":
        model.graph.node.append(helper.make_node("Add", ["up", "up"], ["doubled"]))
    else:
        body = helper.make_graph(
            [helper.make_node("Identity", ["up"], ["inner"])],
            "body",
            [],
            [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)],
        )
        model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
        model.graph.node.append(
            helper.make_node("If", ["yes"], ["chosen"], then_branch=body, else_branch=body)
        )
    assert [c.name for c in int4.quantise(model, 4, 32, True)] == ["table", "down"]
    assert distance(model, tied_model()) < 0.3


def test_rows_that_are_no_multiple_of_the_block() -> None:
    def odd() -> onnx.ModelProto:
        graph = Graph("odd")
        ids = graph.input("ids", np.int64, ["n"])
        rng = np.random.default_rng(1)
        table = rng.standard_normal((VOCABULARY, 72)).astype(np.float32)
        x = graph.op("Gather", graph.weight("table", table), ids, axis=0)
        product = graph.op("MatMul", x, graph.weight("up", table.T))
        graph.output(product, "logits", np.float32, ["n", VOCABULARY])
        return graph.model({})

    model = odd()
    made = int4.quantise(model, 8, 32, True, operators=("MatMul", "Gather"))
    # A gathered row would come with the filling of its last block.
    assert [c.name for c in made] == ["up"]
    assert 0 < distance(model, odd()) < 0.02


def test_the_same_model_gives_the_same_bytes() -> None:
    first, second = tied_model(), tied_model()
    int4.quantise(first, 4, 32, False)
    int4.quantise(second, 4, 32, False)
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(
        deterministic=True
    )


def test_blocks_of_zeros_and_of_tiny_weights() -> None:
    model, reference = tied_model(), tied_model()
    for part in (model, reference):
        up = next(t for t in part.graph.initializer if t.name == "up")
        values = numpy_helper.to_array(up).copy()
        values[:32] = 0.0
        values[32:] *= 1e-6
        up.CopyFrom(numpy_helper.from_array(values, "up"))
    int4.quantise(model, 8, 32, True, keep=("table", "down"))
    # float16 has no bits left for such scales: they stay float32.
    assert {t.name: t.data_type for t in model.graph.initializer}["up_scales"] == TensorProto.FLOAT
    assert distance(model, reference) < 0.02


def test_sizes_without_a_kernel_are_refused() -> None:
    with pytest.raises(ConfigError, match="3 bits in blocks of 32"):
        int4.quantise(tied_model(), 3, 32, True)
    with pytest.raises(ConfigError, match="4 bits in blocks of 48"):
        int4.quantise(tied_model(), 4, 48, True)


def test_float16_storage_is_half_the_size_and_rounds_to_eleven_bits() -> None:
    model = tied_model()
    stored = float16.store(model, keep=("up",))
    assert [(c.name, c.type) for c in stored] == [
        ("table_half", "float16"),
        ("down_half", "float16"),
    ]
    assert sum(c.bytes for c in stored) == 2 * sum(c.elements for c in stored)
    assert 0 < distance(model, tied_model()) < 1e-3
    types = {c.name: c.type for c in tensors.choices(model)}
    assert types == {"table_half": "float16", "up": "float32", "down_half": "float16"}


@pytest.mark.parametrize("factor", [1e6, 1e-9, float("nan")])
def test_what_float16_cannot_hold_stays_float32(factor: float) -> None:
    model = tied_model()
    down = next(t for t in model.graph.initializer if t.name == "down")
    down.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(down) * np.float32(factor), "down"))
    assert "down_half" not in [c.name for c in float16.store(model)]


def test_small_tensors_are_left_alone() -> None:
    assert float16.store(tied_model(), least_elements=10**6) == []
    assert int4.quantise(tied_model(), 4, 32, True, least_elements=10**6) == []


def test_scales_are_counted_with_their_weights(tmp_path: Path) -> None:
    model = tied_model()
    int8.quantise(model, keep=("table",))
    found = {c.name: c for c in tensors.choices(model, "decoder.onnx")}
    assert found["decoder.onnx:up"].type == "int8"
    assert found["decoder.onnx:up"].bytes == WIDTH * HIDDEN + 4 * HIDDEN
    assert "decoder.onnx:up_scale" not in found

    quantization = pytest.importorskip("onnxruntime.quantization")
    onnx.save(tied_model(), tmp_path / "float.onnx")
    quantization.quantize_dynamic(tmp_path / "float.onnx", tmp_path / "int8.onnx")
    dynamic = {c.name: c for c in tensors.choices(onnx.load(tmp_path / "int8.onnx"))}
    assert dynamic["up_quantized"].type == "int8"
    assert dynamic["up_quantized"].bytes == WIDTH * HIDDEN + 4 + 1
    assert not [name for name in dynamic if name.startswith("up_") and name != "up_quantized"]


def test_a_weight_that_is_no_number_is_named() -> None:
    tensors.require_finite(tied_model())
    for value in (np.nan, np.inf):
        model = tied_model()
        up = next(t for t in model.graph.initializer if t.name == "up")
        broken = numpy_helper.to_array(up).copy()
        broken[3, 4] = value
        up.CopyFrom(numpy_helper.from_array(broken, "up"))
        with pytest.raises(ArtifactError, match="weight 'up' has 1 of 8192 values"):
            tensors.require_finite(model)


def test_a_mask_of_minus_infinity_is_no_damage() -> None:
    model = tied_model()
    mask = np.triu(np.full((8, 8), -np.inf, np.float32), 1)
    model.graph.initializer.append(numpy_helper.from_array(mask, "mask"))
    tensors.require_finite(model)
