import hashlib
import json
import os
import shutil
import subprocess
import sys
import termios
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edgevoice import cli
from edgevoice.store import Store

TEXT = b"weights of a tiny model"
SHA = hashlib.sha256(TEXT).hexdigest()


@dataclass(frozen=True)
class Prepared:
    scheme: str = "int8"
    format: str = "onnx"
    engine: Any = None
    checks: Any = None


def fake_prepare(kind: str, fetched: Path, out: Path, options: Mapping[str, Any]) -> Prepared:
    """Stand for a conversion: the options and the fetched bytes, upside down."""
    assert kind == "upside-down"
    (out / "turned.onnx").write_bytes((fetched / "a.bin").read_bytes()[::-1])
    return Prepared(engine={"rate": options["rate"]}, checks={"worst": 0.5})


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("EDGEVOICE_HOME", str(tmp_path / "home"))
    return Store.default()


@pytest.fixture
def conversion(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("edgevoice.export.prepare")
    module.prepare = fake_prepare  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "edgevoice.export.prepare", module)
    return module


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    weights = tmp_path / "a.bin"
    weights.write_bytes(TEXT)
    path = tmp_path / "catalogue.toml"
    shared = 'stage = "vad"\nfamily = "x"\nformat = "onnx"\nlicence = "MIT"\ndescription = "d"\n'
    file = f'path = "a.bin"\nsources = ["file:{weights}"]\n'
    hashed = f'size = {len(TEXT)}\nsha256 = "{SHA}"\n'
    path.write_text(
        '[bundles]\ndefault = ["plain", "turned"]\n'
        f'[artifacts.plain]\nscheme = "fp32"\nverified = true\n{shared}'
        f"[artifacts.plain.engine]\nrate = 8\n"
        f"[[artifacts.plain.files]]\n{file}{hashed}"
        f'[artifacts.turned]\nscheme = "fp32"\nverified = true\n{shared}'
        '[artifacts.turned.prepare]\nkind = "upside-down"\noptions = { rate = 16 }\n'
        f"[[artifacts.turned.files]]\n{file}{hashed}"
        f'[artifacts.loose]\nscheme = "fp32"\nverified = false\ndownload_mb = 1\n{shared}'
        f"[[artifacts.loose.files]]\n{file}"
    )
    return path


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def models(listed: Path, store: Store, capfd: pytest.CaptureFixture[str]) -> Run:
    def run(action: str, *arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = cli.main(["models", action, *arguments, "--catalogue", str(listed)])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return run


def test_a_pull_brings_the_default_bundle(models: Run, store: Store, conversion: object) -> None:
    code, out, err = models("pull")
    assert (code, out) == (0, "")
    assert [line.partition(":")[0] for line in err.splitlines()] == ["plain", "turned"]
    plain, turned = store.manifest("plain"), store.manifest("turned")
    assert (plain.scheme, plain.engine) == ("fp32", {"rate": 8})
    assert (turned.scheme, turned.engine, turned.checks["worst"]) == ("int8", {"rate": 16}, 0.5)
    assert [f.path for f in turned.files] == ["turned.onnx"]
    assert (store.path("turned") / "turned.onnx").read_bytes() == TEXT[::-1]
    assert models("verify")[:2] == (0, "plain: whole\nturned: whole\n")
    assert {f.name for f in store.root.iterdir()} == {".locks", "plain", "turned"}


def test_a_better_conversion_makes_installed_artifacts_again(
    models: Run, store: Store, conversion: object, listed: Path
) -> None:
    models("pull", "default")
    made = store.manifest("turned").checks["conversion"]
    assert made == {"kind": "upside-down", "options": {"rate": 16}, "revision": 1}
    text = listed.read_text()
    listed.write_text(text.replace('kind = "upside-down"', 'kind = "upside-down"\nrevision = 2'))
    code, _, err = models("pull", "default")
    assert code == 0
    assert "turned: made by an earlier conversion, making it again" in err
    assert store.manifest("turned").checks["conversion"]["revision"] == 2
    assert "earlier conversion" not in models("pull", "default")[2]


def test_a_second_pull_fetches_nothing_unless_it_is_forced(
    models: Run, store: Store, conversion: object, tmp_path: Path
) -> None:
    models("pull", "default")
    (tmp_path / "a.bin").unlink()
    code, out, _ = models("pull", "default", "--json")
    assert code == 0
    assert [(p["name"], p["fetched"]) for p in json.loads(out)] == [
        ("plain", False),
        ("turned", False),
    ]
    code, _, err = models("pull", "plain", "--force")
    assert code == 1
    assert "No such file" in err
    assert store.verify("plain") == ()  # the failure took nothing away


def test_a_damaged_artifact_is_named_by_verify_and_mended_by_pull(
    models: Run, store: Store
) -> None:
    models("pull", "plain")
    (store.path("plain") / "a.bin").write_bytes(TEXT[::-1])
    code, out, err = models("verify", "plain")
    assert code == 1
    assert out.startswith("plain: a.bin: sha256 ")
    assert "models pull" in err
    code, out, _ = models("verify", "--json")
    assert (code, list(json.loads(out))) == (1, ["plain"])
    code, _, err = models("pull", "plain")
    assert (code, "damaged" in err) == (0, True)
    assert models("verify", "plain")[0] == 0
    (store.path("plain") / "manifest.json").write_text("{")
    assert models("pull", "plain")[0] == 0
    assert models("verify", "plain")[0] == 0


def test_a_wrong_file_is_one_line_with_both_hashes_and_nothing_is_kept(
    models: Run, store: Store, tmp_path: Path
) -> None:
    (tmp_path / "a.bin").write_bytes(b"truncated")
    code, _, err = models("pull", "plain")
    assert code == 2
    (line,) = err.splitlines()
    assert SHA in line
    assert hashlib.sha256(b"truncated").hexdigest() in line
    assert store.names() == ()
    assert {f.name for f in store.root.iterdir()} == {".locks"}


def test_an_unverified_artifact_warns_and_records_what_it_saw(models: Run, store: Store) -> None:
    code, _, err = models("pull", "loose")
    assert code == 0
    assert "warning: loose is unverified" in err
    checks = store.manifest("loose").checks
    assert checks["verified"] is False
    assert checks["fetched"][0]["sha256"] == SHA
    assert models("verify", "loose")[0] == 0
    row = next(r for r in models("list")[1].splitlines() if r.startswith("loose"))
    assert row.split()[-2:] == ["yes", "unverified"]


def test_list_shows_what_is_known_and_what_is_here(models: Run, store: Store) -> None:
    code, out, _ = models("list")
    assert code == 0
    head, *rows = out.splitlines()
    assert head.split() == [
        *("NAME", "STAGE", "SCHEME", "SIZE", "LICENCE", "INSTALLED", "VERIFIED")
    ]
    assert [row.split()[0] for row in rows[:3]] == ["loose", "plain", "turned"]
    assert "~1 MB" in rows[0]
    assert "bundle default: plain, turned" in out
    assert not store.root.exists()
    models("pull", "plain")
    shutil.copytree(store.path("plain"), store.root / "own")
    answer = json.loads(models("list", "--json")[1])
    rows_by_name = {row["name"]: row for row in answer["artifacts"]}
    assert rows_by_name["plain"]["installed"]
    assert rows_by_name["plain"]["size_bytes"] == len(TEXT)
    assert not rows_by_name["turned"]["installed"]
    assert rows_by_name["own"]["description"] == "not in the catalogue"
    assert answer["store"] == str(store.root)


def test_path_and_remove(models: Run, store: Store) -> None:
    models("pull", "plain")
    assert models("path", "plain")[1] == f"{store.root / 'plain'}\n"
    assert json.loads(models("path", "plain", "--json")[1])["path"] == str(store.root / "plain")
    code, out, _ = models("remove", "plain", "plain", "--json")
    assert (code, json.loads(out)) == (0, {"removed": ["plain"]})
    assert store.names() == ()
    for action in ("path", "remove", "verify"):
        code, _, err = models(action, "plain")
        assert code == 2
        assert "models pull plain" in err
    assert "nothing is installed" in models("verify")[2]


@pytest.mark.parametrize("action", ["pull", "verify", "path", "remove"])
def test_an_unknown_name_lists_the_known_ones(models: Run, action: str) -> None:
    code, _, err = models(action, "plane")
    assert code == 2
    assert "'plane'; did you mean 'plain'? known: " in err


def test_a_failed_conversion_publishes_nothing(
    models: Run, store: Store, conversion: ModuleType
) -> None:
    def fail(kind: str, fetched: Path, out: Path, options: object) -> Prepared:
        (out / "half.onnx").write_bytes(b"half")
        raise KeyboardInterrupt

    conversion.prepare = fail  # type: ignore[attr-defined]
    assert models("pull", "turned")[0] == 130
    assert store.names() == ()
    assert list(store.root.glob(".incoming-*")) == []


def test_a_missing_converter_is_said_before_anything_is_fetched(
    models: Run, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, err = models("pull")
    assert code == 2
    assert "pip install 'edgevoice[convert]'" in err
    assert store.names() == ()


def test_a_disk_too_small_is_said_before_anything_is_fetched(
    models: Run, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.disk_usage
    monkeypatch.setattr(
        "shutil.disk_usage", lambda path: real(path)._replace(free=len(TEXT) * 2 - 1)
    )
    code, _, err = models("pull", "plain")
    assert code == 1
    assert "MB free" in err
    assert store.names() == ()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")
def test_a_disk_that_fills_up_is_one_line(
    models: Run, store: Store, monkeypatch: pytest.MonkeyPatch, conversion: ModuleType
) -> None:
    def fill(kind: str, fetched: Path, out: Path, options: object) -> Prepared:
        with Path("/dev/full").open("wb", buffering=0) as full:
            full.write(TEXT)
        return Prepared()

    conversion.prepare = fill  # type: ignore[attr-defined]
    code, _, err = models("pull", "turned")
    assert code == 1
    assert "disk of" in err
    assert store.names() == ()


def test_a_store_that_cannot_be_made_is_one_line(
    listed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "home").write_text("a file, not a folder")
    monkeypatch.setenv("EDGEVOICE_HOME", str(tmp_path / "home"))
    assert cli.main(["models", "pull", "plain", "--catalogue", str(listed)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "Not a directory; EDGEVOICE_HOME moves the store" in line


def test_a_terminal_gets_bars(listed: Path, store: Store) -> None:
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    command = ["-m", "edgevoice", "models", "pull", "plain", "--catalogue", str(listed)]
    done = subprocess.run([sys.executable, *command], stderr=theirs, check=False)
    os.close(theirs)
    shown = os.read(ours, 1 << 16)
    os.close(ours)
    assert done.returncode == 0
    assert b"a.bin:   0%|" in shown
    assert b"plain: installed" in shown
    assert store.names() == ("plain",)
