"""Which of sherpa-onnx's own providers an artifact runs on, found by trying.

sherpa-onnx opens its own sessions and takes the provider's name as a string. What its build lacks
it does not raise: for most names it writes one line that ends in ``Fallback to cpu`` and goes on,
for ``rknn`` and ``qnn`` it writes ``Please rebuild sherpa-onnx`` and ends the process (2.0.1; the
sources are ``session.cc``, ``provider.cc`` and the recognisers' ``Create``). So each provider is
tried in a child process, and what the child says decides. A provider that worked is not tried
again with the same files and libraries; one that did not is, since a driver may have come since.
"""

from __future__ import annotations

import re
from pathlib import Path

from edgevoice.engines import probe, providers
from edgevoice.engines.providers import Ran, Wanted

_DETAIL = "sherpa-onnx"
_SAID = re.compile(r"fallback to |please (?:re)?compile|please rebuild", re.IGNORECASE)
# "/project/sherpa-onnx/csrc/session.cc:GetSessionOptionsImpl:437 Please compile ..."
_WHERE = re.compile(r"^\S+\.(?:cc|h):\S+:\d+ ")


def choose(folder: Path, loader: str, wanted: Wanted, before: tuple[str, ...] = ()) -> Ran:
    """Return the provider that ``folder`` runs on in sherpa-onnx, and why not on those before it.

    Args:
        folder: The artifact.
        loader: ``module:function``, which loads ``folder`` on the provider that it is given too.
        wanted: The order.
        before: Reasons of providers that another engine was tried with.

    Raises:
        EngineError: The first provider is required and cannot run it.
    """
    passed_over = list(before)
    for name in wanted.order:
        if name == "cpu":
            break
        reason = _reason_against(folder, loader, name)
        if not reason:
            return Ran(name, _DETAIL, tuple(passed_over))
        if wanted.required and not passed_over:
            raise providers.refusal(folder.name, name, reason)
        passed_over.append(f"{name}: {reason}")
    return Ran(passed_over=tuple(passed_over))


def _reason_against(folder: Path, loader: str, name: str) -> str:
    """Return why sherpa-onnx does not run ``folder`` on ``name`` here; "" where it does."""
    loading = f"{loader} on {name}"
    if probe.survived(folder, loading):
        return ""
    status, said = probe.attempt(loader, str(folder), name)
    if reason := reason_in(said):
        return f"sherpa-onnx says: {reason}"
    if status:
        return f"its load {probe.ending(status)}: {probe.last_line(said)[:200]}"
    probe.remember(folder, loading)
    return ""


def reason_in(said: bytes) -> str:
    """Return the line in which sherpa-onnx says that it has not got a provider; "" for none.

    >>> reason_in(b"/project/csrc/session.cc:Get:504 NNAPI is for Android only. Fallback to cpu")
    'NNAPI is for Android only. Fallback to cpu'
    """
    for line in said.decode("utf-8", "replace").splitlines():
        if _SAID.search(line):
            return _WHERE.sub("", line.strip())[:200]
    return ""
