"""The rewriting of a traced language model's graph, against the graph that it came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import tiny_llm
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgevoice.engines.onnx_decoder import Decoder, Network
from edgevoice.errors import ArtifactError, EngineError
from edgevoice.export import llm_tidy
from edgevoice.export.graph_wires import Unrecognised
from edgevoice.export.llm_graph import Heads, fuse_attention
from edgevoice.quant import int4

Floats = NDArray[np.float32]
TOKENS = [int(t) for t in np.random.default_rng(1).integers(0, 96, 40)]


def plain_logits(model: onnx.ModelProto, tokens: list[int]) -> Floats:
    """Run the traced graph over all tokens at once."""
    count = len(tokens)
    empty = np.zeros((1, tiny_llm.KEYS, 0, tiny_llm.WIDTH), np.float32)
    feed: dict[str, Any] = {
        "input_ids": np.array([tokens]),
        "position_ids": np.arange(count)[None],
        "mask": np.triu(np.full((count, count), -np.inf, np.float32), 1),
    }
    feed |= {i.name: empty for i in model.graph.input if i.name.startswith("past")}
    session = ort.InferenceSession(model.SerializeToString())
    return np.asarray(session.run(["logits"], feed)[0][0])


@pytest.fixture(scope="module")
def weights() -> tiny_llm.Weights:
    return tiny_llm.random_weights()


@pytest.fixture(scope="module")
def network(weights: tiny_llm.Weights, tmp_path_factory: pytest.TempPathFactory) -> Network:
    path = tmp_path_factory.mktemp("fused") / "model.onnx"
    llm_tidy.save(tiny_llm.fused(weights), path)
    return Network(path, 1)


@pytest.mark.parametrize("cuts", [[40], [1] * 40, [7, 16, 16, 1]])
def test_read_in_any_pieces_it_computes_the_same(
    network: Network, weights: tiny_llm.Weights, cuts: list[int]
) -> None:
    decoder, place, parts = Decoder(network, 64), 0, []
    for cut in cuts:
        parts.append(decoder.read(TOKENS[place : place + cut], place, cut))
        place += cut
    expected = plain_logits(tiny_llm.traced(weights), TOKENS)
    np.testing.assert_allclose(np.concatenate(parts), expected, atol=1e-4)


def test_forgetting_is_a_smaller_place(network: Network, weights: tiny_llm.Weights) -> None:
    decoder = Decoder(network, 64)
    decoder.read(TOKENS, 0)
    changed = [*TOKENS[:20], *reversed(TOKENS[20:])]
    after = decoder.read(changed[20:], 20)
    expected = plain_logits(tiny_llm.traced(weights), changed)[-1:]
    np.testing.assert_allclose(after, expected, atol=1e-4)


def test_two_caches_on_one_network_do_not_mix(network: Network, weights: tiny_llm.Weights) -> None:
    left, right = Decoder(network, 64), Decoder(network, 128)
    for place, token in enumerate(TOKENS):
        last = left.read([token], place)
        right.read([95 - token], place)
    np.testing.assert_allclose(last, plain_logits(tiny_llm.traced(weights), TOKENS)[-1:], atol=1e-4)


def test_a_window_is_kept(weights: tiny_llm.Weights, tmp_path: Path) -> None:
    model = tiny_llm.traced(weights)
    windows = Heads(tiny_llm.QUERIES, tiny_llm.KEYS, (8,) * tiny_llm.LAYERS)
    fuse_attention(model, windows, 64)
    llm_tidy.save(model, tmp_path / "model.onnx")
    got = Decoder(Network(tmp_path / "model.onnx", 1), 64).read(TOKENS, 0, len(TOKENS))

    count = len(TOKENS)
    far = np.tril(np.full((count, count), -np.inf, np.float32), -8)
    plain = tiny_llm.traced(weights)
    session = ort.InferenceSession(plain.SerializeToString())
    empty = np.zeros((1, tiny_llm.KEYS, 0, tiny_llm.WIDTH), np.float32)
    feed = {
        "input_ids": np.array([TOKENS]),
        "position_ids": np.arange(count)[None],
        "mask": np.triu(np.full((count, count), -np.inf, np.float32), 1) + far,
        **{i.name: empty for i in plain.graph.input if i.name.startswith("past")},
    }
    np.testing.assert_allclose(got, session.run(["logits"], feed)[0][0], atol=1e-4)


def test_the_graph_shrinks_and_keeps_only_its_inputs(weights: tiny_llm.Weights) -> None:
    before, after = tiny_llm.traced(weights), tiny_llm.fused(weights)
    assert len(after.graph.node) < len(before.graph.node) / 2
    names = {i.name for i in after.graph.input if not i.name.startswith("past")}
    assert names == {"input_ids", "total_length", "logits_from"}


@pytest.mark.parametrize(
    ("kind", "becomes", "said"),
    [
        ("Neg", "Abs", "not a rotation by halves"),
        ("Concat", "Sum", "Concat was expected"),
        ("Transpose", "Identity", "does not turn its heads back"),
    ],
)
def test_what_is_written_otherwise_is_refused(
    weights: tiny_llm.Weights, kind: str, becomes: str, said: str
) -> None:
    model = tiny_llm.traced(weights)
    for node in model.graph.node:
        if node.op_type == kind:
            node.op_type = becomes
            del node.attribute[:]
    with pytest.raises(Unrecognised, match=said):
        fuse_attention(model, tiny_llm.HEADS, 64)


def test_more_tokens_than_the_context_holds(network: Network) -> None:
    decoder = Decoder(network, 16)
    with pytest.raises(EngineError, match="17 tokens after 0 do not fit a context of 16"):
        decoder.read(TOKENS[:17], 0)
    with pytest.raises(EngineError, match="0 tokens"):
        decoder.read([], 4)


def test_a_graph_without_a_cache_is_no_language_model(
    weights: tiny_llm.Weights, tmp_path: Path
) -> None:
    llm_tidy.save(tiny_llm.traced(weights), tmp_path / "model.onnx")
    with pytest.raises(ArtifactError, match="has no total_length, logits_from"):
        Network(tmp_path / "model.onnx", 1)
    (tmp_path / "cut.onnx").write_bytes((tmp_path / "model.onnx").read_bytes()[:-9000])
    with pytest.raises(ArtifactError, match="cannot be loaded"):
        Network(tmp_path / "cut.onnx", 1)


def test_a_tied_matrix_lies_in_the_file_once(tmp_path: Path) -> None:
    weights = tiny_llm.random_weights()
    weights["head"] = np.ascontiguousarray(weights["embed"].T)
    model, apart = tiny_llm.fused(weights), tiny_llm.fused(weights)
    assert llm_tidy.tie(model) == "embed"
    assert "head" not in {t.name for t in model.graph.initializer}
    llm_tidy.save(model, tmp_path / "tied.onnx")
    llm_tidy.save(apart, tmp_path / "apart.onnx")
    read = [
        Decoder(Network(tmp_path / f"{name}.onnx", 1), 64).read(TOKENS, 0)
        for name in ("tied", "apart")
    ]
    np.testing.assert_allclose(read[0], read[1], atol=1e-4)
    assert "embed" in [c.name for c in int4.quantise(model, 8, 32, True, least_elements=1)]
    assert llm_tidy.tie(tiny_llm.fused(tiny_llm.random_weights())) == ""


def test_weights_are_named_for_their_modules(weights: tiny_llm.Weights) -> None:
    model = tiny_llm.fused(weights)
    for tensor in model.graph.initializer:
        if tensor.name == "head":
            tensor.name = "onnx::MatMul_17"
    for node in model.graph.node:
        if node.name == "/head/MatMul":
            node.input[1] = "onnx::MatMul_17"
    llm_tidy.name_weights(model)
    assert "head.weight" in {t.name for t in model.graph.initializer}


def test_the_optimiser_keeps_what_is_computed(weights: tiny_llm.Weights, tmp_path: Path) -> None:
    path = tmp_path / "traced.onnx"
    onnx.save(tiny_llm.traced(weights), path)
    model = llm_tidy.optimised(path, tmp_path, 1)
    expected = plain_logits(tiny_llm.traced(weights), TOKENS)
    np.testing.assert_allclose(plain_logits(model, TOKENS), expected, atol=1e-4)
    path.write_bytes(b"no graph")
    with pytest.raises(ArtifactError, match="cannot be loaded by onnxruntime"):
        llm_tidy.optimised(path, tmp_path, 1)


def test_large_weights_lie_beside_the_graph(
    weights: tiny_llm.Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llm_tidy, "MOST_INSIDE_BYTES", 1000)
    llm_tidy.save(tiny_llm.fused(weights), tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx.data").stat().st_size > (tmp_path / "model.onnx").stat().st_size
    expected = plain_logits(tiny_llm.traced(weights), TOKENS)[-1:]
    got = Decoder(Network(tmp_path / "model.onnx", 1), 64).read(TOKENS, 0)
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_angles_that_depend_on_more_than_the_position(weights: tiny_llm.Weights) -> None:
    model = tiny_llm.traced(weights)
    cos = next(n for n in model.graph.node if n.op_type == "Cos")
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0), "nothing"))
    position = list(model.graph.node).index(cos)
    extra = [
        helper.make_node("ReduceSum", ["mask"], ["masked"], keepdims=0),
        helper.make_node("Mul", ["masked", "nothing"], ["zero"]),
        helper.make_node("Add", [cos.input[0], "zero"], ["shifted"]),
    ]
    for node in reversed(extra):
        model.graph.node.insert(position, node)
    cos.input[0] = "shifted"
    with pytest.raises(Unrecognised, match="depends on mask"):
        fuse_attention(model, tiny_llm.HEADS, 64)
