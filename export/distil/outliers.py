"""Finds clips whose words are not what is said, by how badly they are still read when others are.

Late in the first stage each clip's loss is collected; what lies far above the others' is left out
of the stages that follow. A clip joined with others shares their loss, so one that was heard in
good company at any time is innocent: its lowest counts. Owns the losses and the verdict.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

_LEAST_HEARD = 2
_LEAST_CLIPS = 20
_SPREADS = 6.0
"""Of the losses (their median absolute deviation) above their median. Right transcripts in heavy
noise reach 4."""


@dataclass(slots=True)
class Losses:
    """What was collected.

    Attributes:
        lowest: By clip, the lowest loss in nats a token of what it was heard in.
        heard: By clip, how often it was heard.
    """

    lowest: dict[str, float] = field(default_factory=dict)
    heard: dict[str, int] = field(default_factory=dict)

    def add(self, clips: Iterable[str], loss: float) -> None:
        """Take the loss of ``clips``, heard as one."""
        if not np.isfinite(loss):
            return
        for clip in clips:
            self.lowest[clip] = min(loss, self.lowest.get(clip, loss))
            self.heard[clip] = self.heard.get(clip, 0) + 1

    def outliers(self) -> Mapping[str, float]:
        """Return the clips that are far above the others, worst first, and their losses."""
        known = {clip: self.lowest[clip] for clip, n in self.heard.items() if n >= _LEAST_HEARD}
        if len(known) < _LEAST_CLIPS:
            return {}
        losses = np.array(list(known.values()))
        middle = float(np.median(losses))
        most = middle + _SPREADS * max(float(np.median(np.abs(losses - middle))), 0.02 * middle)
        found = {clip: loss for clip, loss in known.items() if loss > most}
        return dict(sorted(found.items(), key=lambda pair: -pair[1]))
