"""Keeps a thread, and what it starts, on some of the machine's cores.

A stage's threads are started where its weights are loaded and where its work is asked for, and
inherit the cores of the thread that does so. What a system refuses is told once, and the work runs
on any core then.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from edgevoice.errors import ConfigError

_log = logging.getLogger(__name__)

_LIST = re.compile(r"\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*")


def parse(text: str, where: str) -> frozenset[int]:
    """Return the cores of a list as ``taskset`` takes it; none of "".

    >>> sorted(parse("0-2,5", "speech.cores"))
    [0, 1, 2, 5]

    Raises:
        ConfigError: It is no such list; ``where`` names it.
    """
    if not text:
        return frozenset()
    found: set[int] = set()
    if _LIST.fullmatch(text):
        for part in text.split(","):
            first, _, last = part.partition("-")
            found.update(range(int(first), int(last or first) + 1))
    if not found:
        raise ConfigError(
            f"{where} = {text!r}: must be core numbers as taskset takes them, such as '4-7' or "
            "'0,2'; '' for any"
        )
    return frozenset(found)


def text(cores: frozenset[int]) -> str:
    """Write ``cores`` as :func:`parse` reads them.

    >>> text(frozenset({0, 1, 2, 5}))
    '0-2,5'
    """
    runs: list[list[int]] = []
    for core in sorted(cores):
        if runs and core == runs[-1][1] + 1:
            runs[-1][1] = core
        else:
            runs.append([core, core])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


class Pin:
    """The cores of one stage.

    Args:
        stage: For the warning.
        cores: As :func:`parse` takes them; "" leaves every thread where it is.

    Raises:
        ConfigError: They are no list of cores.
    """

    def __init__(self, stage: str, cores: str) -> None:
        self._stage = stage
        self._text = cores
        self._cores = parse(cores, f"{stage.replace('-', '_')}.cores")

    def __bool__(self) -> bool:
        """Whether it does anything."""
        return bool(self._cores)

    def stay(self) -> bool:
        """Keep the calling thread, and what it starts from now on, on the cores for good.

        Returns:
            Whether it is there; a refusal is logged, and not tried again.
        """
        if not self._cores:
            return False
        try:
            os.sched_setaffinity(0, self._cores)
        except (OSError, AttributeError) as error:  # Not every system has such a call.
            reason = error.strerror if isinstance(error, OSError) else "not on this system"
            _log.warning(
                "%s cannot be kept on cores %s (%s); it runs on any. `edgevoice devices detect` "
                "lists the cores",
                self._stage,
                self._text,
                reason,
            )
            self._cores = frozenset()
            return False
        return True

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the calling thread on the cores meanwhile."""
        if not self._cores:
            yield
            return
        before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
        moved = self.stay()
        try:
            yield
        finally:
            if moved:
                os.sched_setaffinity(0, before)
