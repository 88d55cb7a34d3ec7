"""Questions are made with whichever other voice is installed."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgevoice import host, questions
from edgevoice.errors import AudioError, MissingDependencyError
from edgevoice.questions import speak_questions


def only(*programs: str) -> Callable[[str], str | None]:
    real = shutil.which
    return lambda name: real(name) if name in programs else None


@pytest.mark.parametrize("program", ["flite", "espeak-ng"])
def test_every_question_sounds(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", only(program))
    asked = speak_questions()
    assert len(asked) == len(questions.QUESTIONS)
    for question, text in zip(asked, questions.QUESTIONS, strict=True):
        assert question.name.startswith(program)
        assert question.name.endswith(text)
        assert question.samples.dtype == np.int16
        assert 8_000 < question.samples.size < 80_000
        assert np.abs(question.samples.astype(int)).max() > 3_000


def test_without_a_voice_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", only())
    with pytest.raises(MissingDependencyError, match="apt install flite"):
        speak_questions()


def test_a_voice_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "_command", lambda number: ("a voice", ["false"]))
    with pytest.raises(AudioError, match="a voice cannot say"):
        speak_questions()


def test_facts_about_the_host() -> None:
    facts = host.facts()
    assert int(facts["cores"]) >= 1
    assert facts["processor"]
    total_mb, available_mb = host.memory_mb()
    assert total_mb > available_mb > 0
    assert 10 < host.peak_memory_mb() < total_mb
    age_ms = host.process_age_ms()
    assert 0 < age_ms < host.process_age_ms() + 1
    assert host.version("numpy")
    assert host.version("no-such-package") == ""
    assert "numpy" in host.versions()


def test_a_kernel_that_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(self: Path, encoding: str) -> str:
        raise PermissionError(self)

    monkeypatch.setattr(Path, "read_text", unreadable)  # as under Android
    assert host.memory_mb() == (0, 0)
    assert host.cpu_name()
    assert host.process_age_ms() > 0


def test_a_containers_limit_counts(tmp_path: Path) -> None:
    (tmp_path / "proc" / "self").mkdir(parents=True)
    meminfo = "MemTotal:       2048000 kB\nMemAvailable:   1024000 kB\n"
    (tmp_path / "proc" / "meminfo").write_text(meminfo)
    (tmp_path / "proc" / "self" / "cgroup").write_text("4:memory:/other\n0::/user.slice/ours\n")
    groups = tmp_path / "sys" / "fs" / "cgroup"
    group = groups / "user.slice" / "ours"
    group.mkdir(parents=True)
    (groups / "memory.max").write_text("max\n")
    (groups / "memory.current").write_text(f"{3 << 20}\n")
    assert host.memory_mb(tmp_path) == (2000, 1000)
    (group / "memory.max").write_text(f"{20 << 20}\n")
    (group / "memory.current").write_text(f"{15 << 20}\n")
    (group / "memory.stat").write_text(f"anon {9 << 20}\ninactive_file {4 << 20}\n")
    assert host.memory_mb(tmp_path) == (20, 9)
