"""What an export that was cut off leaves for the next attempt, and nothing besides.

A folder per export below the store's root, named by everything that decides the bytes. A float
reference or a candidate appears in it when it is finished, by a rename; unfinished work lies in a
scratch folder that goes whatever happens. An export that came to its end removes the whole.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from edgevoice.export.family import Written
from edgevoice.quant.recipe import TensorChoice
from edgevoice.store import Store

CACHE = ".export-cache"
KEPT_DAYS = 14.0
"""An interrupted export that nobody took up again is forgotten after that."""
_SCRATCH = "work-"


@dataclass(frozen=True, slots=True)
class Workspace:
    """The folder of one export."""

    folder: Path

    def build(self, name: str, make: Callable[[Path, Path], Written]) -> tuple[Path, Written, bool]:
        """Return the folder ``name`` and what was written there, made now or by an earlier try.

        ``make`` is called with an empty folder for the files and one for temporary files.

        Returns:
            The folder, what it holds, and whether it came from an earlier try.
        """
        target, record = self.folder / name, self.folder / f"{name}.json"
        if target.is_dir() and record.is_file():
            return target, _from_json(record.read_text(encoding="utf-8")), True
        with self.scratch() as scratch:
            out, work = scratch / "out", scratch / "work"
            out.mkdir()
            work.mkdir()
            written = make(out, work)
            self.drop(name)
            out.rename(target)
            half = scratch / record.name
            half.write_text(json.dumps(asdict(written)), encoding="utf-8")
            os.replace(half, record)  # last: the record says that the folder is whole
        return target, written, False

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Give a folder for temporary files."""
        folder = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=self.folder))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def drop(self, name: str) -> None:
        """Forget ``name``."""
        (self.folder / f"{name}.json").unlink(missing_ok=True)
        shutil.rmtree(self.folder / name, ignore_errors=True)

    def drop_all(self) -> None:
        """Forget what an earlier try finished."""
        for record in self.folder.glob("*.json"):
            self.drop(record.stem)

    def discard(self) -> None:
        """Forget everything; the export has come to its end."""
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def opened(store: Store, key: str, say: Callable[[str], object]) -> Iterator[Workspace]:
    """Open the folder of the export ``key``; another process that makes the same is waited for."""
    cache = store.root / CACHE
    with store.lock(f"export-{key}", lambda: say("waiting for another export of the same")):
        folder = cache / key
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)
        _sweep(cache)
        for left in folder.glob(f"{_SCRATCH}*"):  # of a killed process; the lock says none lives
            shutil.rmtree(left, ignore_errors=True)
        try:
            yield Workspace(folder)
        finally:
            if folder.is_dir() and not any(folder.glob("*.json")):
                shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):  # not empty: another export's, or this one's to take up again
                cache.rmdir()


def _sweep(cache: Path) -> None:
    oldest = time.time() - KEPT_DAYS * 86_400
    for folder in cache.iterdir():
        with suppress(OSError):
            if folder.stat().st_mtime < oldest:
                shutil.rmtree(folder, ignore_errors=True)


def _from_json(text: str) -> Written:
    data = json.loads(text)
    return Written(
        engine=data["engine"],
        tensors=tuple(TensorChoice(**choice) for choice in data["tensors"]),
        notes=tuple(data["notes"]),
        scheme=data["scheme"],
        weight_bits=data["weight_bits"],
    )
