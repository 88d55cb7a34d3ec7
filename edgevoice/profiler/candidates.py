"""What the search for good settings may try here: one kind of change of one stage at a time.

Only what this device and these settings leave open: as many threads as there are cores, schemes
that lie in the store, providers that this onnxruntime has, groups of cores that differ, pieces of
sound where an engine takes or makes pieces.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from edgevoice import affinity, host, manifest
from edgevoice.config import literal
from edgevoice.devices.cores import core_groups
from edgevoice.devices.profile import PROVIDERS
from edgevoice.devices.root import Root
from edgevoice.engines.providers import NAMES
from edgevoice.manifest import Manifest
from edgevoice.settings import Settings
from edgevoice.store import Store

Kind = Literal["threads", "scheme", "provider", "cores", "chunk"]

KINDS: tuple[Kind, ...] = ("threads", "scheme", "provider", "cores", "chunk")
"""In the order in which they are tried: what may gain most comes first, since time may run out."""

SECTIONS: Mapping[str, str] = {
    "recogniser": "recogniser",
    "end-of-turn": "end_of_turn",
    "language-model": "language_model",
    "speech": "speech",
}
"""Section of the settings for each stage that is searched, the slowest of a turn first."""

_CHUNK_KEYS = {"recogniser": "chunk_ms", "speech": "first_chunk_ms"}
_CHUNK_FACTORS = (0.5, 2.0)
_CHUNKS_MS = (50.0, 2000.0)
"""What the settings and device profiles allow."""

_SINGLE_CORES = 4
"""Of alike cores, each is tried where there are no more; more are the scheduler's business."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A change of one stage's settings.

    Attributes:
        stage: Whose.
        kind: What it changes.
        value: To what, for people.
        assignment: As for ``--set``.
        setting: The value of the setting.
    """

    stage: str
    kind: Kind
    value: str
    assignment: str
    setting: Any

    def __str__(self) -> str:
        return f"{self.stage}: {self.kind} {self.value}"


@dataclass(frozen=True, slots=True)
class Choice:
    """Candidates that exclude each other."""

    stage: str
    kind: Kind
    candidates: tuple[Candidate, ...]


def choices(settings: Settings, store: Store, root: Root | None = None) -> Iterator[Choice]:
    """Yield what may be tried with ``settings``, kind by kind.

    Args:
        settings: What is chosen so far.
        store: Holds the artifacts in other schemes.
        root: The machine.
    """
    artifacts = settings.artifacts()
    for kind in KINDS:
        for stage in SECTIONS:
            found = of(settings, stage, kind, store, root) if stage in artifacts else ()
            if found:
                yield Choice(stage, kind, found)


def of(
    settings: Settings, stage: str, kind: Kind, store: Store, root: Root | None = None
) -> tuple[Candidate, ...]:
    """Return the candidates of one kind for one stage, without what is chosen."""
    section = getattr(settings, SECTIONS[stage])
    name = settings.artifacts()[stage]
    match kind:
        case "threads":
            return tuple(
                _candidate(stage, kind, "threads", n, str(n))
                for n in thread_counts(host.cores())
                if n != host.threads(section.threads)
            )
        case "scheme":
            return tuple(
                _candidate(stage, kind, "model", other.name, other.scheme)
                for other in _other_schemes(name, store)
            )
        case "provider":
            if not hasattr(section, "providers"):
                return ()
            here = _providers(manifest.read(store.path(name)))
            return tuple(
                _candidate(stage, kind, "providers", _order(first), first)
                for first in here
                if first != section.providers[0]
            )
        case "cores":
            return tuple(
                _candidate(stage, kind, "cores", text, text)
                for text, size in _core_sets(root or Root())
                if text != section.cores and section.threads <= size
            )
        case "chunk":
            if stage not in _CHUNK_KEYS or not _has_pieces(stage, name, store):
                return ()
            key = _CHUNK_KEYS[stage]
            now_ms = getattr(section, key)
            lengths = [now_ms * factor for factor in _CHUNK_FACTORS]
            return tuple(
                _candidate(stage, kind, key, length, f"{length:g} ms")
                for length in lengths
                if _CHUNKS_MS[0] <= length <= _CHUNKS_MS[1]
            )


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


def _candidate(stage: str, kind: Kind, key: str, setting: Any, value: str) -> Candidate:
    assignment = f"{SECTIONS[stage]}.{key}={literal(setting)}"
    return Candidate(stage, kind, value, assignment, setting)


def _other_schemes(name: str, store: Store) -> Iterator[Manifest]:
    own = manifest.read(store.path(name))
    for each in store.names():
        other = store.manifest(each)
        if is_same_model(own, other) and other.scheme != own.scheme:
            yield other


def _providers(described: Manifest) -> Sequence[str]:
    """Return the providers that can be had at all; whether one takes the graph is found out."""
    if described.format != "onnx":
        return ()
    import onnxruntime as ort

    # The plugin, once loaded, is listed too; without a binary in the artifact it is of no use.
    here = [own for own in ort.get_available_providers() if own != NAMES["qnn"]]
    if "npu" in described.engine and importlib.util.find_spec("onnxruntime_qnn"):
        here.append(NAMES["qnn"])
    # What a device profile cannot name cannot be kept either.
    return [name for name, own in NAMES.items() if own in here and own in PROVIDERS]


def _order(first: str) -> tuple[str, ...]:
    return (first,) if first == "cpu" else (first, "cpu")


def _core_sets(root: Root) -> Iterator[tuple[str, int]]:
    """Yield lists of cores and how many are in each: kinds of cores, or single ones of few."""
    if not hasattr(os, "sched_getaffinity"):
        return
    allowed = os.sched_getaffinity(0)
    groups = [(g.fast, allowed.intersection(g.numbers)) for g in core_groups(root)]
    groups = [(fast, cores) for fast, cores in groups if cores]
    if len(groups) > 1:
        fast = frozenset().union(*(cores for is_fast, cores in groups if is_fast))
        for cores in dict.fromkeys([fast, *(frozenset(cores) for _, cores in groups)]):
            if cores and cores != allowed:
                yield affinity.text(cores), len(cores)
    elif 1 < len(allowed) <= _SINGLE_CORES:
        for core in sorted(allowed):
            yield str(core), 1


def _has_pieces(stage: str, name: str, store: Store) -> bool:
    """Whether the length of pieces means anything: a voice in one graph makes all at once."""
    return stage != "speech" or "decoder" in manifest.read(store.path(name)).engine
