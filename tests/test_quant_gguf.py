"""Quantising GGUF files: importance matrix, types per tensor, the search, damage. Real weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gguf_files import tensor_of, with_swapped, with_zero_scale, write_float16

from edgevoice import manifest
from edgevoice.engines import gguf_file
from edgevoice.errors import ArtifactError, ConfigError, EngineError, ExportError
from edgevoice.export.calibration import default_sentences
from edgevoice.quant import divergence, drift, ggml, gguf, gguf_search, importance
from edgevoice.quant.gguf_scores import WINDOW_TOKENS, GgufScorer, windows

SENTENCES = default_sentences("calibration")[:8]
TOKENS = 64
LAYERS = 2


@pytest.fixture(scope="module")
def float_file(artifact: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = artifact("smollm2-135m-instruct-q8_0")
    source = folder / manifest.read(folder).file(".gguf").path
    return write_float16(source, tmp_path_factory.mktemp("float") / "small.gguf", LAYERS)


@pytest.fixture(scope="module")
def matrix(float_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("matrix") / "importance.npz"
    return importance.measure(float_file, SENTENCES, 1, out, most_tokens=TOKENS)


@pytest.fixture(scope="module")
def small(float_file: Path, matrix: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("small") / "q4_k_m.gguf"
    gguf.write(float_file, out, "Q4_K_M", 1, matrix=matrix)
    return out


def weights_of(path: Path, name: str) -> np.ndarray:
    tensor = tensor_of(path, name)
    data = path.read_bytes()[tensor.offset : tensor.offset + tensor.bytes]
    return ggml.restore(data, tensor.type_name, tensor.elements).reshape(tensor.shape[::-1])


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_matrix_is_what_enters_each_product(float_file: Path, matrix: Path) -> None:
    found = importance.load(matrix)
    assert len(found) == 7 * LAYERS
    assert found["blk.1.ffn_down.weight"].shape == (1536,)
    # What enters the first layer can be said without llama.cpp: normalised embeddings.
    scorer = GgufScorer(float_file, 1)
    tokens = scorer.tokenise("\n".join(SENTENCES))[:TOKENS]
    scorer.close()
    embedded = weights_of(float_file, "token_embd.weight")[tokens]
    scale = np.sqrt((embedded**2).mean(axis=1, keepdims=True) + 1e-5)
    entered = embedded / scale * weights_of(float_file, "blk.0.attn_norm.weight")
    assert found["blk.0.attn_q.weight"] == pytest.approx((entered**2).mean(axis=0), rel=1e-3)
    assert np.array_equal(found["blk.0.attn_q.weight"], found["blk.0.attn_k.weight"])


def test_equal_inputs_give_equal_bytes(
    float_file: Path, matrix: Path, small: Path, tmp_path: Path
) -> None:
    again = importance.measure(float_file, SENTENCES, 1, tmp_path / "again.npz", most_tokens=TOKENS)
    assert again.read_bytes() == matrix.read_bytes()
    gguf.write(float_file, tmp_path / "again.gguf", "Q4_K_M", 2, matrix=again)
    assert digest(tmp_path / "again.gguf") == digest(small)
    gguf.write(float_file, tmp_path / "stock.gguf", "Q4_K_M", 2)
    assert digest(tmp_path / "stock.gguf") != digest(small)


def test_types_per_tensor_land_in_the_file(float_file: Path, tmp_path: Path) -> None:
    asked = {
        "blk.0.attn_q.weight": "Q8_0",
        "blk.1.ffn_down.weight": "Q6_K",
        # 576 weights a row do not fill Q4_K's blocks of 256.
        "blk.1.attn_q.weight": "Q4_K",
    }
    out = tmp_path / "out.gguf"
    choices = {c.name: c for c in gguf.write(float_file, out, "Q4_0", 1, types=asked)}
    assert choices["blk.0.attn_q.weight"].type == "Q8_0"
    assert choices["blk.1.ffn_down.weight"].type == "Q6_K"
    assert choices["blk.1.attn_q.weight"].type == "Q5_0"
    assert choices["blk.0.attn_k.weight"].type == "Q4_0"
    assert choices["blk.0.attn_norm.weight"].type == "F32"
    table = gguf_file.read_header(out).table
    assert {t.name: t.bytes for t in table} == {name: c.bytes for name, c in choices.items()}
    with pytest.raises(ConfigError, match="unknown GGUF type 'Q9_0'"):
        gguf.write(float_file, out, "Q4_0", 1, types={"blk.0.attn_q.weight": "Q9_0"})
    with pytest.raises(ConfigError, match="unknown GGUF file type 'Q4_K_N'"):
        gguf.write(float_file, out, "Q4_K_N", 1)


@pytest.mark.parametrize("kind", ["F16", "Q4_0", "Q5_0", "Q8_0", "IQ4_NL", "Q4_K", "Q6_K"])
def test_rounding_and_restoring(kind: str) -> None:
    weights = np.random.default_rng(0).normal(size=(4, 512)).astype(np.float32)
    data = ggml.round_rows(weights, kind)
    assert len(data) == ggml.size(kind, weights.size)
    restored = ggml.restore(data, kind, weights.size).reshape(weights.shape)
    error = np.linalg.norm(restored - weights) / np.linalg.norm(weights)
    assert 0 < error < 0.12
    assert not ggml.fits("Q4_K", 576)


def test_importance_saves_the_columns_that_matter() -> None:
    weights = np.random.default_rng(1).normal(size=(64, 256)).astype(np.float32)
    driven = np.ones(256, np.float32)
    driven[::8] = 1000.0

    def off(known: np.ndarray | None) -> float:
        restored = ggml.restore(ggml.round_rows(weights, "Q4_0", known), "Q4_0", weights.size)
        return float(((restored.reshape(weights.shape) - weights)[:, ::8] ** 2).sum())

    assert off(driven) < 0.5 * off(None)


def test_the_search_keeps_to_its_budget_and_repeats_itself(float_file: Path, matrix: Path) -> None:
    names = [f"blk.{i}.{part}.weight" for i in range(LAYERS) for part in ("attn_v", "ffn_down")]
    elements = sum(tensor_of(float_file, name).elements for name in names)

    def bytes_of(chosen: dict[str, str]) -> int:
        return sum(
            ggml.size(kind, tensor_of(float_file, name).elements) for name, kind in chosen.items()
        )

    found = []
    for bits in (5.0, 5.0):
        budget = int(elements * bits / 8)
        chosen = gguf_search.search(
            float_file,
            matrix,
            SENTENCES,
            quantisable=names,
            budget_bytes=budget,
            threads=1,
            tokens=TOKENS,
            layers_together=LAYERS,
        )
        assert set(chosen) == set(names)
        assert 0.8 * budget < bytes_of(dict(chosen)) <= budget
        assert not {"Q4_1", "Q5_1"} & set(chosen.values())
        found.append(dict(chosen))
    assert found[0] == found[1]


def test_a_text_is_judged_window_by_window(float_file: Path, small: Path) -> None:
    models = [GgufScorer(path, 1) for path in (float_file, small)]
    tokens = models[0].tokenise("\n".join(SENTENCES))[:TOKENS]
    same = divergence.compare(models[0], models[0], [tokens])
    assert (same.kl, same.same_top, same.tokens) == (0.0, 1.0, TOKENS)
    whole = divergence.compare(*models, [tokens])
    assert 0.001 < whole.kl < 1.0
    assert whole.kl_99 > whole.kl
    # By hand, from all logits at once.
    logits = [m.logits(tokens).astype(np.float64) for m in models]
    first, second = (x - np.log(np.exp(x).sum(axis=1, keepdims=True)) for x in logits)
    by_hand = (np.exp(first) * (first - second)).sum(axis=1)
    assert whole.kl == pytest.approx(by_hand.mean(), rel=1e-3)
    said = np.array(tokens[1:])
    places = np.arange(len(said))
    loss = -second[places, said].mean()
    assert whole.perplexity == pytest.approx(np.exp(loss), rel=1e-3)
    ratio = np.exp(loss + first[places, said].mean())
    assert whole.perplexity_ratio == pytest.approx(ratio, rel=1e-3)
    with pytest.raises(EngineError, match=f"1 to {WINDOW_TOKENS} can be read"):
        models[0].logits([0] * (WINDOW_TOKENS + 1))
    assert [len(w) for w in windows(range(WINDOW_TOKENS + 5))] == [WINDOW_TOKENS, 5]
    for model in models:
        model.close()


def test_rounding_alone_is_no_damage(float_file: Path, small: Path) -> None:
    found = drift.check(float_file, small)
    assert found["output_norm.weight"].error == 0.0
    assert 0 < found["blk.0.attn_output.weight"].error < 0.12


@pytest.mark.parametrize("name", ["token_embd", "blk.0.ffn_down", "blk.1.ffn_down", "blk.1.attn_q"])
@pytest.mark.parametrize("block", [0, 1000])
def test_a_scale_of_zero_is_caught(
    float_file: Path, small: Path, tmp_path: Path, name: str, block: int
) -> None:
    bad = with_zero_scale(small, tmp_path / "bad.gguf", f"{name}.weight", block)
    with pytest.raises(ArtifactError, match=rf"[18] of \d+ blocks of {name}"):
        drift.check(float_file, bad)


def test_swapped_tensors_are_caught(float_file: Path, small: Path, tmp_path: Path) -> None:
    bad = with_swapped(small, tmp_path / "b.gguf", "blk.0.ffn_up.weight", "blk.1.ffn_up.weight")
    with pytest.raises(ArtifactError, match=r"blk\.0\.ffn_up"):
        drift.check(float_file, bad)


def test_another_model_is_no_candidate(float_file: Path, small: Path, tmp_path: Path) -> None:
    content = small.read_bytes().replace(b"blk.1.attn_v.weight", b"blk.1.attn_w.weight")
    (tmp_path / "other.gguf").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"blk\.1\.attn_v\.weight is missing"):
        drift.check(float_file, tmp_path / "other.gguf")


def test_a_truncated_source_and_a_second_rounding_are_one_line(
    float_file: Path, small: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(float_file.read_bytes()[:-1000])
    with pytest.raises(ExportError, match="is truncated"):
        gguf.write(cut, tmp_path / "out.gguf", "Q4_0", 1)
    with pytest.raises(ExportError, match="requantizing"):
        gguf.write(small, tmp_path / "out.gguf", "Q4_0", 1)
    assert not list(tmp_path.glob("out*"))
