"""Input that `edgevoice export` cannot use: one line says so, and nothing is left."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_family
from exporting import Run, left, one_line

from edgevoice import host
from edgevoice.export import plan
from edgevoice.store import Store


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tiny_family.write_source(tmp_path / "tiny model")


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
    assert "no family recognises it; known: tiny; `edgevoice export list`" in one_line(err)
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
    needs = {"no_such_module.inner": "edgevoice[export]"}
    monkeypatch.setattr(tiny_family, "FAMILY", dataclasses.replace(tiny_family.FAMILY, needs=needs))
    code, _, err = export(source)
    assert code == 2
    assert "run pip install 'edgevoice[export]'" in one_line(err)
    assert left(store) == set()
