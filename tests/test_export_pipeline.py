"""The whole of `edgevoice export`, on a tiny model in the real engine and a real store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_family
from exporting import Run, left

from edgevoice.engines.smart_turn import load_smart_turn
from edgevoice.export import candidates
from edgevoice.settings import EndOfTurnSettings
from edgevoice.store import Store


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tiny_family.write_source(tmp_path / "tiny model")


def test_an_artifact_that_meets_its_bounds_is_published(
    export: Run, store: Store, source: Path, tmp_path: Path
) -> None:
    before = {p: p.read_bytes() for p in source.iterdir()}
    page = tmp_path / "page.html"
    code, out, err = export(source, "--licence", "MIT", "--report", page)
    assert code == 0, err
    assert left(store) == {"tiny-model-int8"}
    assert {p: p.read_bytes() for p in source.iterdir()} == before
    described = store.manifest("tiny-model-int8")
    assert (described.stage, described.family, described.scheme, described.licence) == (
        *("end-of-turn", "smart-turn", "int8", "MIT"),
    )
    assert described.source == f"file:{source}"
    assert described.engine == {
        **{"from": "tiny", "threshold": 0.5, "rounded": True},
        **{"engine": "onnx", "threads": 2},
    }
    assert described.tensors["hidden"] == "int8"
    checks = described.checks
    assert checks["passed"] and checks["missed"] == {}
    assert checks["figures"]["agreement"] == 1.0
    assert checks["figures"]["peak_memory_mb"] > 10
    assert checks["figures"]["size_ratio"] < 0.5
    assert {v["figure"] for v in checks["verdicts"]} >= {"agreement", "memory_ratio"}
    assert checks["export"]["asked_for"] == "int8"
    assert checks["export"]["versions"]["edgevoice"]
    assert store.verify("tiny-model-int8") == ()
    load_smart_turn(store.path("tiny-model-int8"), EndOfTurnSettings())
    head, plain, row, published = out.splitlines()
    assert head.split()[:2] == ["SCHEME", "SIZE"]
    assert plain.startswith("float")
    assert row.startswith("int8") and "8 met" in row and "-> tiny-model-int8" in row
    assert published == f"published {store.path('tiny-model-int8')}"
    text = page.read_text(encoding="utf-8")
    assert "<svg" in text and "tiny-model-int8" in text
    assert "http" not in text.replace("http-equiv", "")
    assert "warning" not in err


def test_the_same_inputs_give_the_same_bytes(
    export: Run, store: Store, source: Path, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        code, _, err = export(source, "--scheme", "int8", "--out", tmp_path / name, "--name", "a")
        assert code == 0, err
        assert "warning: nobody said what the licence" in err
        assert left(store) == set()
    files = [
        {p.name: p.read_bytes() for p in (tmp_path / name / "a").iterdir()}
        for name in ("one", "two")
    ]
    for each in files:
        del each["manifest.json"]
    assert files[0] == files[1]
    assert sorted(files[0]) == ["tiny.onnx", "tokens.txt"]
    assert [p.name for p in (tmp_path / "one").iterdir()] == ["a"]


@pytest.mark.parametrize(
    "faults",
    [
        {"zero": "agreement", "slow": "speed_ratio_low", "lost": "missing_files"},
        {"nan": "non_finite_weights", "unlabelled": "missing_metadata", "grown": "size_ratio"},
    ],
)
def test_planted_faults_are_caught_and_nothing_is_published(
    export: Run, store: Store, source: Path, faults: dict[str, str]
) -> None:
    planted = dict(zip(("int8", "int8-mixed", "fp16"), faults, strict=True))
    option = ",".join(f"{scheme}:{fault}" for scheme, fault in planted.items())
    asked = [word for scheme in planted for word in ("--scheme", scheme)]
    code, out, err = export(source, *asked, "--option", f"fault={option}", "--no-fallback")
    assert code == 1
    for scheme, fault in planted.items():
        (line,) = [line for line in err.splitlines() if line.startswith(f"{scheme} fails: ")]
        assert f"{faults[fault]} " in line and "missed" in line
        assert f"{scheme}: nothing is published" in err
        (row,) = [line for line in out.splitlines() if line.startswith(f"{scheme} ")]
        assert "missed" in row and faults[fault] in row
    assert left(store) == set()


def test_a_candidate_that_aborts_is_one_line_and_the_fallback_is_taken(
    export: Run, store: Store, source: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    faults = "fault=int8:abort,int8-mixed:zero"
    code, out, err = export(source, "--option", faults, "--keep-failed", kept, "--json")
    assert code == 0, err
    assert "measuring int8 crashed with SIGABRT: the native code is about to abort" in err
    assert "int8 falls back to fp16" in err
    answer = json.loads(out)
    assert [(c["scheme"], c["passed"]) for c in answer["candidates"]] == [
        *(("int8", False), ("int8-mixed", False), ("fp16", True)),
    ]
    assert list(answer["published"]) == ["fp16"]
    described = store.manifest("tiny-model-fp16")
    assert described.checks["export"]["asked_for"] == "int8"
    assert list(described.checks["missed"]) == ["int8", "int8-mixed"]
    assert sorted(p.name for p in kept.iterdir()) == ["tiny-model-int8", "tiny-model-int8-mixed"]
    assert left(store) == {"tiny-model-fp16"}


def test_several_schemes_are_all_made_and_one_that_fails_alone_fails_the_export(
    export: Run, store: Store, source: Path
) -> None:
    code, out, _ = export(
        *(source, "--scheme", "int8", "--scheme", "fp32", "--scheme", "int8-mixed"),
        *("--name", "mine", "--no-fallback", "--json", "--option", "fault=int8-mixed:raise"),
    )
    assert code == 1
    assert left(store) == {"mine-int8", "mine-fp32"}
    answer = json.loads(out)
    assert answer["refused"] == ["int8-mixed"]
    assert answer["candidates"][2]["failure"].startswith(
        "quantising to int8-mixed failed: RuntimeError: a library raised"
    )
    float_figures = store.manifest("mine-fp32").checks
    assert float_figures["figures"]["size_ratio"] == 1.0
    assert all(v["figure"] != "speed_ratio_low" for v in float_figures["verdicts"])


def test_a_graph_that_the_engine_refuses_fails_its_candidate(
    export: Run, store: Store, source: Path
) -> None:
    faults = "fault=int8:damaged,int8-mixed:refuse"
    code, _, err = export(source, "--option", faults, "--bound", "size_ratio=0.9")
    assert code == 1  # fp16 saves nothing here, and float is as large as float
    assert "int8 fails: loading int8 failed" in err
    assert "int8-mixed fails: this graph cannot be rounded" in err
    assert left(store) == set()


def test_a_checker_that_does_not_come_to_an_end_is_ended(
    export: Run, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "MEASURE_TIMEOUT_S", 3.0)
    code, _, err = export(source, "--option", "fault=int8:hang", "--no-fallback")
    assert code == 1
    assert "int8 fails: measuring int8 did not end within 3 s" in err
