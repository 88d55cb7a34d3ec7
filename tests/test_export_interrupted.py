"""An export that was interrupted goes on from what it had finished, if nothing changed since."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_family
from exporting import Run, left

from edgevoice.export import candidates, recorded
from edgevoice.store import Store

_CLI = (
    "import sys, tiny_family\n"
    "from edgevoice.cli import main\n"
    "with tiny_family.registered():\n"
    "    sys.exit(main(sys.argv[1:]))\n"
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tiny_family.write_source(tmp_path / "tiny model")


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
