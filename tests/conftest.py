"""Fixtures that several test modules share."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pulse import PulseServer

from edgevoice.store import Store


@pytest.fixture(scope="session")
def artifact() -> Callable[[str], Path]:
    """Folder of an artifact of the default bundle; `make test` has pulled it."""
    return Store.default().path


@pytest.fixture
def pulse_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PulseServer]:
    """Sound server of a test's own, which this process and its children find."""
    server = PulseServer(tmp_path)
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
    yield server
    server.kill()
