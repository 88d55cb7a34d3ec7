"""The model hub's client: imported when a source needs it, and its errors as ours."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from edgevoice.errors import FetchError, MissingDependencyError
from edgevoice.sources import HfSource


@contextmanager
def client(source: HfSource, blame: str = "") -> Iterator[Any]:
    """Give the module `huggingface_hub` to fetch ``source`` with.

    Args:
        source: What is fetched.
        blame: Stands before the reason in the message.

    Raises:
        FetchError: The client failed; the message is its first line.
        MissingDependencyError: It is not installed.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingDependencyError(
            f"{source.origin} needs huggingface_hub; run pip install 'edgevoice[hub]'"
        ) from error
    # It logs every attempt; what came of them is said below, in one line.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        yield huggingface_hub
    except Exception as error:
        # It raises its own tree, requests' or httpx's: all of them mean the same.
        text = str(error).strip()
        raise FetchError(
            blame + (text.splitlines()[0] if text else type(error).__name__)
        ) from error
