"""What onnxruntime's stages really ran on, as a profile keeps and tells it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from edgevoice.engines import providers
from edgevoice.engines.providers import Ran

RanOn: TypeAlias = Mapping[str, Any]
"""``name`` and ``detail`` of a provider, the names ``tried`` in their order, the last one its own,
and a line of why for each that was ``passed_over``."""


def ran_on(engine: object) -> RanOn | None:
    """Return what a loaded engine runs on; None where it does not say (llama.cpp, AEC3)."""
    ran = providers.of(engine)
    return None if ran is None else plain(ran)


def plain(ran: Ran) -> RanOn:
    """Return ``ran`` as plain values."""
    tried = [line.partition(":")[0] for line in ran.passed_over]
    return {
        "name": ran.name,
        "detail": ran.detail,
        "tried": [*tried, ran.name],
        "passed_over": list(ran.passed_over),
    }


def told(found: Sequence[RanOn]) -> str:
    """Write what the processes of a stage ran on, one after the other; "" of none.

    >>> told([{"name": "cpu", "detail": "", "tried": ["qnn", "cpu"],
    ...        "passed_over": ["qnn: onnxruntime-qnn is not installed"]}])
    'on cpu (tried: qnn, cpu; qnn: onnxruntime-qnn is not installed)'
    """
    return ", then ".join(map(_one, found))


def short(found: Sequence[RanOn]) -> str:
    """Write the names alone: ``qnn``, or ``qnn, cpu`` where the processes differed."""
    return ", ".join(dict.fromkeys(str(ran["name"]) for ran in found))


def _one(ran: RanOn) -> str:
    notes = [str(ran["detail"])] if ran["detail"] else []
    if ran["passed_over"]:
        notes += [f"tried: {', '.join(ran['tried'])}", *ran["passed_over"]]
    return f"on {ran['name']}" + (f" ({'; '.join(notes)})" if notes else "")
