"""Fixtures that several test modules share."""

from collections.abc import Callable
from pathlib import Path

import pytest

from edgevoice.store import Store


@pytest.fixture(scope="session")
def artifact() -> Callable[[str], Path]:
    """Folder of an artifact of the default bundle; `make test` has pulled it."""
    return Store.default().path
