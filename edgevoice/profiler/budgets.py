"""Holds what was measured against the budgets of a device profile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edgevoice.devices.profile import DeviceProfile
from edgevoice.profiler.figures import FIGURES
from edgevoice.profiler.spread import Rounds, estimate

FIGURE_OF = {
    "vad_frame": "vad.window_ms",
    "aec_frame": "echo-canceller.frame_ms",
    "end_of_turn": "end-of-turn.judge_ms",
    "asr_partial": "recogniser.partial_ms",
    "asr_final": "recogniser.final_ms",
    "llm_first_token": "language-model.first_token_kept_ms",
    "tts_first_sound": "speech.first_sound_ms",
    "voice_to_voice": "conversation.voice_to_voice_ms",
    "cold_start": "conversation.cold_start_ms",
    "memory_budget_mb": "conversation.peak_memory_mb",
}
"""Which figure's median a budget bounds."""


@dataclass(frozen=True, slots=True)
class Budget:
    """One budget and what became of it.

    Attributes:
        name: As in the profile.
        figure: Key of the figure whose median it bounds.
        value: That median, None where it was not measured.
        bound: What is allowed.
        missed: Whether the median is more.
    """

    name: str
    figure: str
    value: float | None
    bound: float
    missed: bool

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)

    def __str__(self) -> str:
        unit = FIGURES[self.figure].unit
        if self.value is None:
            return f"{self.name}: not measured (bound {self.bound:g} {unit})"
        verdict = "missed" if self.missed else "kept"
        return f"{self.name}: {verdict}, {self.value:.4g} {unit}, bound {self.bound:g} {unit}"


def judge(device: DeviceProfile, samples: Mapping[str, Rounds]) -> tuple[Budget, ...]:
    """Return every budget of ``device`` with the measured median."""
    bounds = dict(device.budgets_ms)
    if device.memory_budget_mb:
        bounds["memory_budget_mb"] = float(device.memory_budget_mb)
    found = []
    for name, bound in bounds.items():
        key = FIGURE_OF[name]
        value = round(estimate(samples[key]).value, 4) if key in samples else None
        found.append(Budget(name, key, value, bound, value is not None and value > bound))
    return tuple(found)
