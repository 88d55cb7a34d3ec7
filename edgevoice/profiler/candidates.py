"""What the search for good settings may try: threads of each stage, schemes in the store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgevoice import host, manifest
from edgevoice.manifest import Manifest
from edgevoice.settings import Settings
from edgevoice.store import Store

_SECTIONS = {
    "recogniser": "recogniser",
    "end-of-turn": "end_of_turn",
    "language-model": "language_model",
    "speech": "speech",
}
"""Section of the settings for each stage that is searched, the slowest of a turn first."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A change of one stage's settings.

    Attributes:
        stage: Whose.
        assignment: As for ``--set``.
        kind: What it changes: "threads" or "scheme".
        value: To what.
    """

    stage: str
    assignment: str
    kind: str
    value: str


def candidates(settings: Settings, store: Store) -> Iterator[Candidate]:
    """Yield what may be tried: other thread counts, then the same model in other schemes."""
    artifacts = settings.artifacts()
    stages = [stage for stage in _SECTIONS if stage in artifacts]
    for stage in stages:
        section = _SECTIONS[stage]
        asked = getattr(settings, section).threads
        for threads in thread_counts(host.cores()):
            if threads != host.threads(asked):
                yield Candidate(stage, f"{section}.threads={threads}", "threads", str(threads))
    for stage in stages:
        own = manifest.read(store.path(artifacts[stage]))
        for name in store.names():
            other = store.manifest(name)
            if is_same_model(own, other) and other.scheme != own.scheme:
                section = _SECTIONS[stage]
                yield Candidate(stage, f'{section}.model="{name}"', "scheme", other.scheme)


def is_same_model(first: Manifest, second: Manifest) -> bool:
    """Whether two artifacts hold the same weights, maybe in different schemes."""
    return (first.stage, first.family, first.source) == (
        second.stage,
        second.family,
        second.source,
    )


def thread_counts(cores: int) -> list[int]:
    """Return the counts that are worth a try.

    >>> thread_counts(2), thread_counts(4), thread_counts(12)
    ([1, 2], [1, 2, 3, 4], [1, 2, 3, 4, 6, 8, 12])
    """
    return [n for n in (1, 2, 3, 4, 6, 8, 12, 16) if n <= cores]
