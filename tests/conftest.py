"""Fixtures that several test modules share."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pulse import PulseServer

from edgevoice import cli
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


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """Store of a test's own, beside which the exporter knows the tests' tiny family alone."""
    import tiny_family

    monkeypatch.setenv("EDGEVOICE_HOME", str(tmp_path / "home"))
    # The children import the tests' family by its name.
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    with tiny_family.registered():
        yield Store.default()


@pytest.fixture
def export(store: Store, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run `edgevoice export` with these words; exit code, standard output, standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        code = cli.main(["export", *map(str, arguments)])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return run
