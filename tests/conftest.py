"""Fixtures that several test modules share."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bundles import Maker, write_store, write_wheels
from pulse import PulseServer

from edgevoice import cli
from edgevoice.audio.wav import write_wav
from edgevoice.export.calibration import Calibration
from edgevoice.export.checks import costs
from edgevoice.export.family import Job
from edgevoice.frames import to_int16
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


@pytest.fixture(scope="session")
def tiny_wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of wheels that a bundle of tiny models is made with; for reading."""
    return write_wheels(tmp_path_factory.mktemp("wheels"))


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Store with a tiny artifact of every stage; for reading."""
    return write_store(tmp_path_factory.mktemp("store") / "models")


@pytest.fixture
def maker(tiny_store: Store, tiny_wheels: Path, tmp_path: Path) -> Maker:
    """Maker of bundles below the test's own folder."""
    return Maker(tiny_store, tiny_wheels, tmp_path)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """One export's job, with the default speech and text."""
    work = tmp_path / "work"
    work.mkdir()
    return Job(work, Calibration())


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few sentences as somebody's recordings: a measurement of seconds, not minutes."""
    folder = tmp_path_factory.mktemp("material")
    for number, clip in enumerate(Calibration().clips()[:5]):
        write_wav(folder / f"{number}.wav", to_int16(clip.samples), 16_000)
    return folder


@pytest.fixture
def few_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time what a check measures twice and no more."""
    monkeypatch.setattr(costs, "PAIRS", 2)
