"""The language model's gate on real weights with few layers: figures, bounds, planted faults."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from gguf_files import with_swapped, with_zero_scale, write_float16

from edgevoice import manifest
from edgevoice.errors import ArtifactError, ConfigError
from edgevoice.export import gates
from edgevoice.export.calibration import default_sentences
from edgevoice.export.checks import language_model
from edgevoice.manifest import Manifest
from edgevoice.quant import gguf
from edgevoice.store import describe

SENTENCES = default_sentences("held-out")[:4]


def as_artifact(folder: Path, family: str = "gguf") -> Path:
    facts = ("name", "language-model", family, "gguf", "scheme", "", "", describe(folder))
    manifest.write(Manifest(*facts), folder)
    return folder


@pytest.fixture(scope="module")
def reference(artifact: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundle = artifact("smollm2-135m-instruct-q8_0")
    folder = tmp_path_factory.mktemp("reference")
    write_float16(bundle / manifest.read(bundle).file(".gguf").path, folder / "model.gguf", 1)
    return as_artifact(folder)


@pytest.fixture(scope="module")
def candidate(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("candidate")
    gguf.write(reference / "model.gguf", folder / "model.gguf", "Q8_0", 1)
    return as_artifact(folder)


def test_every_bounded_figure_is_measured(
    reference: Path, candidate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEVOICE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(language_model, "PAIRS", 2)
    monkeypatch.setattr(language_model, "MOST_TOKENS", 48)
    (tmp_path / "mine.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    figures = language_model.measure(reference, candidate, tmp_path, 1)
    verdicts = {
        v.bound.figure: v
        for v in gates.judge(figures, gates.bounds_for("language-model", {}, "gguf"))
    }
    assert all(v.measured == v.measured for v in verdicts.values())
    for name in ("kl_divergence", "same_top_token", "perplexity_ratio", "size_ratio"):
        assert verdicts[name].passed, verdicts[name]
    assert 0 < figures["kl_divergence"] < 0.02
    assert figures["tokens"] == 48
    assert 0.5 < figures["size_ratio"] < 0.56
    assert 0 < figures["weight_error_max"] < 0.02
    assert figures["prefill_ratio_low"] <= figures["prefill_ratio"]


def test_a_planted_fault_never_gets_through(
    reference: Path, candidate: Path, tmp_path: Path
) -> None:
    good = candidate / "model.gguf"
    for number, name in enumerate(("token_embd.weight", "blk.0.ffn_down.weight")):
        folder = tmp_path / f"zero{number}"
        folder.mkdir()
        with_zero_scale(good, folder / "model.gguf", name, 4321)
        with pytest.raises(ArtifactError, match=f"1 of .* blocks of {name}"):
            language_model.measure(reference, as_artifact(folder), None, 1)
    swapped = tmp_path / "swapped"
    swapped.mkdir()
    with_swapped(good, swapped / "model.gguf", "blk.0.ffn_up.weight", "blk.0.ffn_gate.weight")
    with pytest.raises(ArtifactError, match=r"blk\.0\.ffn_"):
        language_model.measure(reference, as_artifact(swapped), None, 1)
    # The divergence sees it as well, whatever the engine.
    judged = language_model.compare_text(reference, swapped, SENTENCES, 1, most_tokens=48)
    bounds = {b.figure: b for b in gates.BOUNDS["language-model"]}
    assert not bounds["kl_divergence"].holds(judged.kl)


def test_what_cannot_be_compared_is_named(reference: Path, tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"")
    with pytest.raises(ConfigError, match="unknown language model family 'gguff'"):
        language_model.open_scorer(as_artifact(tmp_path, "gguff"), 1)
    with pytest.raises(ArtifactError, match=r"model\.gguf"):
        language_model.compare_text(reference, as_artifact(tmp_path), SENTENCES, 1, 8)


def test_what_is_judged_was_in_no_calibration() -> None:
    assert not set(default_sentences("calibration")) & set(default_sentences("held-out"))
