"""A function in a process of its own: what it answers, says on the way, and how it may end."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgevoice import host
from edgevoice.errors import ArtifactError, ExportError
from edgevoice.quant import child


def echo(**arguments: Any) -> dict[str, Any]:
    print("what native code prints does not matter")
    path = arguments["path"]
    return {**arguments, "is_path": isinstance(path, Path), "number": np.float32(0.5)}


def leave_the_pipe_open(seconds: float) -> str:
    if os.fork() == 0:
        time.sleep(seconds)
        os._exit(0)
    return "answered"


def kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refuse() -> None:
    raise ArtifactError("this cannot be loaded")


def work(steps: int) -> int:
    for step in range(steps):
        child.advance(step + 1)
    return steps


def wait(busy: bool) -> None:
    while True:
        time.sleep(0.01)
        if busy:
            child.advance(1)


def allocate(megabytes: int) -> int:
    held = np.ones(megabytes << 17)
    return host.peak_memory_mb() - held.nbytes * 0


@pytest.fixture
def reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)


def test_an_answer_counts_though_the_child_takes_its_time_to_end(reachable: None) -> None:
    assert child.run(f"{__name__}:leave_the_pipe_open", {"seconds": 1.2}, "it") == "answered"


def test_a_child_answers_or_fails_in_one_line(reachable: None, tmp_path: Path) -> None:
    came = child.run(f"{__name__}:echo", {"path": tmp_path, "none": None}, "trying")
    assert came == {
        **{"path": {"$path": str(tmp_path)}, "none": None, "is_path": True, "number": 0.5},
    }
    with pytest.raises(ExportError, match=r"^trying failed: this cannot be loaded$"):
        child.run(f"{__name__}:refuse", {}, "trying")
    with pytest.raises(ExportError, match=r"^trying was ended by SIGKILL, probably for want of me"):
        child.run(f"{__name__}:kill_itself", {}, "trying")
    with pytest.raises(ExportError, match=r"^trying failed \(exit status 1\): .*no_such"):
        child.run(f"{__name__}:no_such", {}, "trying")


@pytest.mark.parametrize("function", ["os:abort", "os:nothing_here"])
def test_a_child_that_ends_early_says_so(function: str) -> None:
    how = "crashed with SIGABRT" if function == "os:abort" else r"failed \(exit status 1\): .*here"
    with pytest.raises(ExportError, match=f"^rounding {how}"):
        child.run(function, {}, "rounding")


def test_what_a_child_has_done_is_heard_while_it_runs(reachable: None) -> None:
    heard: list[int] = []
    assert child.run(f"{__name__}:work", {"steps": 3}, "working", advance=heard.append) == 3
    assert [count for count in heard if count] == [1, 2, 3]
    child.advance(1)  # nobody's child
    assert sum(heard) == 6


def test_more_than_a_pipe_holds_crosses_both_ways(reachable: None) -> None:
    text = "a" * 300_000
    assert child.run(f"{__name__}:echo", {"path": text}, "trying")["path"] == text


@pytest.mark.parametrize("busy", [False, True])
def test_a_child_that_does_not_end_is_ended(reachable: None, busy: bool) -> None:
    begun, beats = time.monotonic(), []
    with pytest.raises(ExportError, match=r"^waiting did not end within 1\.5 s$"):
        child.run(
            f"{__name__}:wait", {"busy": busy}, "waiting", timeout_s=1.5, advance=beats.append
        )
    assert time.monotonic() - begun < 30.0
    assert 0 in beats or busy


def test_a_childs_peak_is_its_own(reachable: None) -> None:
    ours = np.ones(200 << 17)  # 200 MiB that the child does not have
    assert 60 < child.run(f"{__name__}:allocate", {"megabytes": 60}, "trying") < 190
    del ours
