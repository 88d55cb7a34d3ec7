"""What every check says of cost: sizes, and run times of two artifacts in turn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgevoice import manifest
from edgevoice.export.gates import Figures
from edgevoice.export.paired import PairedRatio, compare

PAIRS = 21


def size_ratio(reference: Path, candidate: Path) -> float:
    """Return the bytes of all files of one artifact over another's."""
    first, second = (sum(f.size for f in manifest.read(a).files) for a in (reference, candidate))
    return second / first


def speed(reference: Callable[[], object], candidate: Callable[[], object]) -> Figures:
    """Return the run time of ``candidate`` over ``reference``, with its interval."""
    return ratio_figures("speed_ratio", compare(reference, candidate, pairs=PAIRS))


def ratio_figures(name: str, ratio: PairedRatio) -> dict[str, float]:
    """Return a ratio of run times as figures: its median, and the ends of its interval."""
    return {name: ratio.median, f"{name}_low": ratio.low, f"{name}_high": ratio.high}
