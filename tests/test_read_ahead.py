"""What is read ahead: the files of the configured models and the engines' libraries."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgevoice.read_ahead import read_ahead
from edgevoice.settings import Settings
from edgevoice.store import Store


@pytest.fixture
def advised(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    paths: list[Path] = []
    real = os.posix_fadvise

    def note(descriptor: int, offset: int, length: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_WILLNEED
        paths.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        real(descriptor, offset, length, advice)

    monkeypatch.setattr(os, "posix_fadvise", note)
    return paths


def test_models_and_libraries_are_read_ahead(advised: list[Path]) -> None:
    store = Store.default()
    read_ahead(Settings(), store)
    for name in ("silero-vad", "whisper-tiny.en-int8", "smollm2-135m-instruct-q8_0"):
        folder = store.path(name).resolve()
        assert any(folder in path.parents for path in advised), name
    assert any("sherpa" in path.name for path in advised)
    assert all(path.is_file() for path in advised)


def test_missing_models_are_left_to_the_loading(advised: list[Path], tmp_path: Path) -> None:
    read_ahead(Settings(), Store(tmp_path))
    assert advised
    assert not any(tmp_path in path.parents for path in advised)
