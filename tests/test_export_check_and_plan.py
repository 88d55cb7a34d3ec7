"""`edgevoice export plan`, `check` and `list`, on the tests' tiny family."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import onnx
import pytest
import tiny_family
from exporting import Run

from edgevoice import cli, manifest
from edgevoice.export import family
from edgevoice.export.calibration import Calibration
from edgevoice.export.family import Job
from edgevoice.quant import scheme as schemes
from edgevoice.store import Store


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tiny_family.write_source(tmp_path / "tiny")


def foreign(source: Path, folder: Path, fault: str = "") -> Path:
    """Make a candidate outside of the exporter, without a manifest."""
    work, reference = folder / "work", folder / "reference"
    for each in (work, reference, folder / "out"):
        each.mkdir(parents=True)
    job = Job(work, Calibration(), options={"fault": f"int8:{fault}"} if fault else {})
    tiny_family.convert(source, reference, job)
    chosen = tiny_family.FAMILY
    tiny_family.quantise(
        reference, schemes.find("int8"), chosen.recipe("int8"), folder / "out", job
    )
    return folder / "out"


def test_a_plan_says_what_would_be_done_and_does_nothing(
    export: Run, store: Store, source: Path
) -> None:
    code, out, _ = export("plan", source, "--scheme", "int8", "--bound", "agreement=0.5")
    assert code == 0
    assert "family    tiny (end-of-turn): a tiny end of turn, 0.0 million weights" in out
    assert "layers: 2" in out
    assert "if a gate fails: int8-mixed, fp16, fp32" in out
    assert "gate      agreement at least 0.5 (clips judged alike)" in out
    assert "disk      about" in out and "memory    about 1 MiB" in out and "time      about" in out
    code, out, _ = export("plan", "--scheme", "int8", "--json", source, "--no-fallback")
    answer = json.loads(out)
    assert answer["steps"] == [
        {"scheme": "int8", "bytes": answer["steps"][0]["bytes"], "fallbacks": []}
    ]
    assert answer["parameters"] == 80 * 256 + 256
    assert 0 < answer["steps"][0]["bytes"] < answer["float_bytes"] == 4 * answer["parameters"]
    assert not store.root.exists()


def test_a_plan_that_cannot_be_carried_out_fails(
    export: Run, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.disk_usage
    monkeypatch.setattr("shutil.disk_usage", lambda path: real(path)._replace(free=10))
    code, out, err = export("plan", source)
    assert code == 1
    assert "disk      about" in out
    assert "this export needs about" in err


def test_a_foreign_folder_is_checked_against_its_source(
    export: Run, store: Store, source: Path, tmp_path: Path
) -> None:
    good = foreign(source, tmp_path / "good")
    before = sorted(p.name for p in good.iterdir())
    code, out, err = export("check", good, "--family", "tiny", "--reference", source)
    assert code == 0, err
    assert "agreement 1, allowed at least 0.97: met" in out
    assert sorted(p.name for p in good.iterdir()) == before
    bad = foreign(source, tmp_path / "bad", "zero")
    code, out, err = export("check", bad, "--family", "tiny", "--reference", source, "--json")
    assert code == 1
    assert not json.loads(out)["passed"]
    assert "fails: agreement" in err
    assert [f.name for f in store.root.iterdir()] == [".locks"]


def test_an_own_artifact_is_checked_against_the_source_that_it_names(
    export: Run, store: Store, source: Path, tmp_path: Path
) -> None:
    assert export(source, "--scheme", "int8")[0] == 0
    code, out, err = export("check", "tiny-int8")
    assert code == 0, err
    assert "agreement 1, allowed" in out
    model = store.path("tiny-int8") / "tiny.onnx"
    model.write_bytes(model.read_bytes()[:-1])
    code, _, err = export("check", "tiny-int8")
    assert code == 2
    assert "tiny-int8 is damaged: tiny.onnx:" in err
    shutil.rmtree(source)
    code, _, err = export("check", "tiny-int8")
    assert code == 2
    assert "nothing to measure it against; name its float source with --reference" in err
    code, _, err = export("check", "tiny-int9")
    assert (code, "no folder and not installed" in err) == (2, True)


def test_a_reference_that_is_an_artifact_is_used_as_it_is(
    export: Run, store: Store, source: Path, tmp_path: Path
) -> None:
    assert export(source, "--scheme", "fp32", "--scheme", "int8")[0] == 0
    code, _out, err = export("check", "tiny-int8", "--reference", "tiny-fp32")
    assert code == 0, err
    assert "converting" not in err
    # A tensor swapped for another's: the files are whole, the sound of it is not.
    swapped = tmp_path / "swapped"
    shutil.copytree(store.path("tiny-int8"), swapped)
    model = onnx.load(str(swapped / "tiny.onnx"))
    scale = next(t for t in model.graph.initializer if t.name == "hidden_scale")
    scale.raw_data = scale.raw_data[::-1]
    onnx.save(model, str(swapped / "tiny.onnx"))
    (swapped / manifest.FILE_NAME).unlink()
    code, _, err = export("check", swapped, "--family", "tiny", "--reference", "tiny-fp32")
    assert code == 1
    assert "fails: " in err


def test_list_names_families_schemes_and_options(export: Run) -> None:
    code, out, _ = export("list")
    assert code == 0
    assert "tiny" in out and "fp32, fp16, int8*, int8-mixed" in out
    assert "--option fault=: SCHEME:KIND" in out
    assert all(name in out for name in schemes.SCHEMES)
    answer = json.loads(export("list", "--json")[1])
    assert [f["name"] for f in answer["families"]] == ["tiny"]
    assert {s["name"] for s in answer["schemes"]} == set(schemes.SCHEMES)


def test_the_options_of_an_export_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["export", "SOURCE", "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: edgevoice export [-h]")
    assert "--keep-failed" in shown and "--no-resume" in shown


@pytest.mark.parametrize("name", family.MODULES)
def test_every_family_says_what_the_exporter_needs(name: str, tmp_path: Path) -> None:
    found = family.load(name)
    assert found.name == name
    assert found.default_scheme in found.schemes
    assert all(schemes.find(s).format == found.format for s in found.schemes)
    assert set(found.recipes) <= set(found.schemes)
    assert any(schemes.find(s).is_float for s in found.schemes)
    module, _, function = found.checker.partition(":")
    assert callable(getattr(__import__(module, fromlist=[function]), function))
    assert not found.recognises(tmp_path)
    assert not found.recognises(tmp_path / "gone")
