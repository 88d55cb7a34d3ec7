"""Treatments by recipe: what every product becomes, and what is refused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgevoice.errors import ConfigError
from edgevoice.export.families.whisper_artifact import write_scheme
from edgevoice.quant import tensors, treatments
from edgevoice.quant.recipe import KEEP, Override, Recipe
from edgevoice.quant.scheme import find


def chain() -> onnx.ModelProto:
    """Three products with constants [64, 64], one after the other."""
    random = np.random.default_rng(4)
    names = ("first", "second", "third")
    nodes = [
        helper.make_node("MatMul", [x, name], [y], name=f"{name}_product")
        for x, name, y in zip("xab", names, "aby", strict=True)
    ]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", 1, [1, 64])],
        [helper.make_tensor_value_info("y", 1, [1, 64])],
        initializer=[
            numpy_helper.from_array(random.standard_normal((64, 64)).astype(np.float32), name)
            for name in names
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def types(model: onnx.ModelProto) -> dict[str, str]:
    found = {c.name: c.type for c in tensors.choices(model)}
    return {k.removesuffix("_half"): v for k, v in found.items()}


def test_each_product_gets_what_the_first_matching_override_says() -> None:
    model = chain()
    recipe = Recipe((Override("first", "int8-weights"), Override("sec*", KEEP)))
    write_scheme(model, find("int4"), recipe)
    assert types(model) == {"first": "int8", "second": "float16", "third": "int4"}
    assert [n.op_type for n in model.graph.node if "product" in n.name] == [
        "MatMulNBits",
        "MatMul",
        "MatMulNBits",
    ]


@pytest.mark.parametrize(("scheme", "kind"), [("fp32", "float32"), ("fp16", "float16")])
def test_float_schemes_round_no_product(scheme: str, kind: str) -> None:
    model = chain()
    write_scheme(model, find(scheme), Recipe())
    assert set(types(model).values()) == {kind}


def test_int8_is_dynamic_and_its_scales_stay_float32() -> None:
    model = chain()
    write_scheme(model, find("int8"), Recipe((Override("third", "fp16"),)))
    assert types(model) == {"first": "int8", "second": "int8", "third": "float16"}
    scales = [t for t in model.graph.initializer if t.name.endswith("_scale")]
    assert {t.data_type for t in scales} == {onnx.TensorProto.FLOAT}


def test_a_treatment_that_is_no_onnx_scheme_is_named() -> None:
    recipe = Recipe((Override("first", "Q4_K"),))
    with pytest.raises(ConfigError, match="unknown treatment 'Q4_K'"):
        write_scheme(chain(), find("int8"), recipe)


def test_what_is_rounded_is_told_and_the_rest_stays_as_it_is() -> None:
    model = chain()
    recipe = Recipe((Override("chain.onnx:first", "fp16"), Override("*:second", KEEP)))
    chosen = treatments.choose(model, recipe, "int8", "chain.onnx")
    assert chosen == {"first": "fp16", "second": KEEP, "third": "int8"}
    assert treatments.round_products(model, chosen) == {"int8": ["third"]}
    assert types(model) == {"first": "float32", "second": "float32", "third": "int8"}
