"""The whole of `edgevoice export`, on a tiny model in the real engine and a real store."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_family

from edgevoice import cli, host
from edgevoice.engines.smart_turn import load_smart_turn
from edgevoice.export import candidates, plan, recorded
from edgevoice.settings import EndOfTurnSettings
from edgevoice.store import Store

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("EDGEVOICE_HOME", str(tmp_path / "home"))
    # The children import the tests' family by its name.
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    with tiny_family.registered():
        yield Store.default()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tiny_family.write_source(tmp_path / "tiny model")


@pytest.fixture
def export(store: Store, capfd: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        code = cli.main(["export", *map(str, arguments)])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return run


def left(store: Store) -> set[str]:
    """What lies in the store besides its locks."""
    if not store.root.is_dir():
        return set()
    return {f.name for f in store.root.iterdir()} - {".locks"}


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


# --- bad input: one line, nothing left ------------------------------------------------------------


def one_line(err: str) -> str:
    (line,) = [line for line in err.splitlines() if line.startswith("edgevoice: ")]
    assert "Traceback" not in err
    return line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--family", "tini"], "unknown family 'tini'; did you mean 'tiny'?"),
        (["--scheme", "int9"], "unknown scheme 'int9'; did you mean 'int"),
        (["--scheme", "q4_0"], "unknown scheme of tiny 'q4_0'"),
        (["--bound", "agreemnt=1"], "unknown bound 'agreemnt'; did you mean 'agreement'?"),
        (["--bound", "agreement=x"], "--bound agreement=x: the value must be a number"),
        (["--option", "volt=1"], "unknown option of tiny 'volt'"),
        (["--name", "../x"], "artifact name '../x'"),
        (["--calibrate", "/nowhere"], "--calibrate /nowhere: no such folder"),
        (["--report", "/nowhere/page.html"], "its folder does not exist"),
        (["--threads", "0"], "--threads 0"),
    ],
)
def test_what_cannot_be_used_is_said_first(
    export: Run, store: Store, source: Path, arguments: list[str], said: str
) -> None:
    code, out, err = export(source, *arguments)
    assert (code, out) == (2, "")
    assert said in one_line(err)
    assert left(store) == set()


def test_sources_that_are_none(export: Run, store: Store, tmp_path: Path) -> None:
    for spec, said in (
        ("tiny-modl", "is no file or folder; unknown artifact 'tiny-modl'"),
        (str(tmp_path / "gone"), "no such file or folder"),
        ("pypi:thing", "write hf:ORG/NAME@REVISION[!PATH] or pypi:DIST==VERSION[!PATH]"),
        ("hf:thing", "write hf:ORG/NAME@REVISION[!PATH]"),
    ):
        code, _, err = export(spec)
        assert code == 2
        assert said in one_line(err)
    assert left(store) == set()


def test_weights_that_nobody_recognises_truncated_or_of_another_architecture(
    export: Run, store: Store, source: Path, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    code, _, err = export(tmp_path / "other")
    assert code == 2
    assert "they look for tiny: a folder with tiny.safetensors" in one_line(err)
    (tmp_path / "other" / "config.json").write_text('{"architectures": ["FooForBar"]}')
    assert "other (FooForBar): no family recognises it" in export(tmp_path / "other")[2]
    weights = source / tiny_family.WEIGHTS
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    code, _, err = export(source)
    assert code == 2
    assert f"is truncated: {len(whole) - 100} bytes, its 2 tensors need {len(whole)}" in one_line(
        err
    )
    tiny_family.write_source(source, extra=np.zeros((2, 2), np.float32))
    code, _, err = export(source)
    assert code == 2
    assert "architecture ['extra', 'hidden', 'out']" in one_line(err)
    assert left(store) == set()


def test_weights_with_nan_are_refused_before_and_after_the_conversion(
    export: Run, store: Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_family.write_source(source, out=np.full((256, 1), np.nan, np.float32))
    code, _, err = export(source)
    assert code == 2
    assert "NaN or infinity in tiny.safetensors:out" in one_line(err)
    tiny_family.write_source(source)
    monkeypatch.setenv("TINY_OVERFLOW", "1")
    code, _, err = export(source)
    assert code == 2
    assert "NaN or infinity in tiny.onnx:out" in one_line(err)
    assert left(store) == set()


def test_a_pickle_is_refused_and_kept_out_of_sight(
    export: Run, store: Store, source: Path, tmp_path: Path
) -> None:
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    # Loading it would make the file `ran`.
    trap = f"cos\nsystem\n(S'touch {tmp_path}/ran'\ntR."
    (pickled / "tiny.bin").write_bytes(b"\x80\x02" + trap.encode())
    code, _, err = export(pickled)
    assert code == 2
    assert "is a pickle, which runs its author's code" in one_line(err)
    shutil.copy(pickled / "tiny.bin", source / "tiny.bin")
    code, _, err = export(source)  # the family asserts that it does not see it
    assert code == 0, err
    assert "tiny.bin is a pickle and is not read" in err
    assert not (tmp_path / "ran").exists()
    code, _, err = export(pickled, "--allow-pickle")
    assert (code, "tiny.safetensors is missing" in one_line(err)) == (2, True)


def test_too_little_disk_or_memory_is_said_before_the_work(
    export: Run, store: Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.disk_usage
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda path: real(path)._replace(free=100_000))
        code, _, err = export(source)
    assert code == 1
    assert "MB free, this export needs about" in one_line(err)
    monkeypatch.setattr(host, "memory_mb", lambda: (1, 0.5))
    code, _, err = export(source)
    assert code == 1
    assert "needs about 1 MiB of memory" in one_line(err)
    assert "converting" not in err
    assert left(store) == set()


def test_the_disk_of_another_folder_counts(
    export: Run, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = tmp_path / "full"
    full.mkdir()
    real, disk_of = shutil.disk_usage, plan._disk_of
    monkeypatch.setattr(
        plan, "_disk_of", lambda folder: -1 if full in folder.parents else disk_of(folder)
    )
    monkeypatch.setattr(
        "shutil.disk_usage", lambda path: real(path)._replace(free=100 if path == full else 1 << 40)
    )
    code, _, err = export(source, "--out", full / "not" / "there")
    assert code == 1
    assert "the artifacts need about" in one_line(err) and "choose another --out" in err
    assert export(source, "--out", tmp_path / "free")[0] == 0


def test_a_missing_package_is_said_before_the_work(
    export: Run, store: Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    needs = {"no_such_module.inner": "edgevoice[export]"}
    monkeypatch.setattr(tiny_family, "FAMILY", dataclasses.replace(tiny_family.FAMILY, needs=needs))
    code, _, err = export(source)
    assert code == 2
    assert "run pip install 'edgevoice[export]'" in one_line(err)
    assert left(store) == set()


# --- interruptions --------------------------------------------------------------------------------

_CLI = (
    "import sys, tiny_family\n"
    "from edgevoice.cli import main\n"
    "with tiny_family.registered():\n"
    "    sys.exit(main(sys.argv[1:]))\n"
)


@pytest.mark.parametrize("where", ["quantise", "measure"])
def test_ctrl_c_leaves_what_was_finished_and_the_next_attempt_takes_it_up(
    export: Run, store: Store, source: Path, tmp_path: Path, where: str
) -> None:
    mark = tmp_path / "mark"
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _CLI, "export", str(source), "--seed", "3"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TINY_WAIT": where, "TINY_MARK": str(mark)},
    )
    deadline = time.monotonic() + 60
    while not mark.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    assert mark.exists(), process.communicate()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "edgevoice: interrupted"
    assert store.names() == ()
    assert left(store) == {".export-cache"}
    (kept,) = (store.root / ".export-cache").iterdir()
    finished = {"reference"} if where == "quantise" else {"reference", "candidate-int8"}
    assert {p.name for p in kept.iterdir()} == finished | {f"{name}.json" for name in finished}
    code, _, err = export(source, "--seed", "3")
    assert code == 0, err
    assert "going on with the float reference" in err
    assert ("going on with the int8 candidate" in err) == (where == "measure")
    assert "converting the tiny model" not in err
    assert left(store) == {"tiny-model-int8"}


def test_what_an_interruption_kept_is_not_used_when_anything_changed(
    export: Run,
    store: Store,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(candidates, "measure", interrupt)
        assert export(source)[0] == 130
    assert left(store) == {".export-cache"}
    with monkeypatch.context() as patch:
        patch.setattr(recorded, "code_hash", lambda: "another")
        code, _, err = export(source)
    assert (code, "going on" in err) == (0, False)
    code, _, err = export(source, "--no-resume")
    assert (code, "going on" in err) == (0, False)
    assert left(store) == {"tiny-model-int8"}
