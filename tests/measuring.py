"""Processes that measure, as fakes: they answer at once, with times drawn from a seed."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgevoice.profiler.children import CONVERSATION, PREPARATION
from edgevoice.profiler.workload import NotMeasurable
from edgevoice.settings import Settings

USUAL: Mapping[str, Mapping[str, float]] = {
    "vad": {"window_ms": 0.2},
    "echo-canceller": {"frame_ms": 0.1},
    "first-pass": {
        "real_time_factor": 0.01,
        "first_partial_ms": 700.0,
        "partial_ms": 10.0,
        "final_ms": 10.0,
    },
    "recogniser": {
        "real_time_factor": 0.2,
        "first_partial_ms": 1200.0,
        "partial_ms": 200.0,
        "final_ms": 250.0,
    },
    "end-of-turn": {"judge_ms": 60.0},
    "language-model": {
        "prefill_tokens_per_s": 200.0,
        "prefill_kept_tokens_per_s": 190.0,
        "first_token_ms": 400.0,
        "first_token_kept_ms": 90.0,
        "decode_tokens_per_s": 110.0,
        "decode_kept_tokens_per_s": 108.0,
    },
    "speech": {"first_sound_ms": 80.0, "unbroken_ms": 80.0, "real_time_factor": 0.05},
}
RAN_ON = {
    "end-of-turn": {
        "name": "cpu",
        "detail": "",
        "tried": ["qnn", "cpu"],
        "passed_over": ["qnn: onnxruntime-qnn is not installed"],
    },
    "speech": {
        "name": "xnnpack",
        "detail": "with the CPU",
        "tried": ["xnnpack"],
        "passed_over": [],
    },
}
SPANS = [
    {
        "stage": "language-model",
        "name": "answer",
        "parent": -1,
        "begin_ms": 2300.0,
        "end_ms": 2600.0,
    },
    {"stage": "language-model", "name": "token", "parent": 0, "begin_ms": 2300.0, "end_ms": 2310.0},
    {"stage": "speech", "name": "clause", "parent": -1, "begin_ms": 2400.0, "end_ms": 2600.0},
]


class FakeChild:
    """One process of :class:`FakeMachine`."""

    pid = 1

    def __init__(self, machine: FakeMachine, module: str, settings: Settings, request: Any) -> None:
        self._machine, self._settings, self._request = machine, settings, request
        self._stage = "conversation" if module == CONVERSATION else request.get("stage", "")
        self.mood = machine.draw(0.03)
        self.first: dict[str, Any] = {
            "cold_start_ms": 900.0 * self.mood,
            "free_ms": 880.0 * self.mood,
            "span_us": 2.0,
            "speech": ["question.wav"],
            "ran_on": {} if module == CONVERSATION else RAN_ON.get(self._stage),
        }
        if self._stage in machine.absent:
            raise NotMeasurable(f"no {self._stage} here")

    def ask(self, **request: Any) -> dict[str, Any]:
        self._machine.asked.append(self._stage)
        time.sleep(self._machine.pause_s)
        if self._stage == "conversation":
            return self._converse(request["turns"])
        samples = [self._sample() for _ in range(request["samples"])]
        return {"samples": samples, "free": samples, "busy_cores": 0.9, "memory_mb": 40.0}

    def __enter__(self) -> FakeChild:
        self._machine.running += 1
        return self

    def __exit__(self, *raised: object) -> None:
        self._machine.running -= 1

    def _sample(self) -> dict[str, float]:
        found = {}
        slower_ms = self._machine.slower_ms.get(self._stage, 0.0)
        factor = self._machine.factor(self._settings, self._stage)
        for name, usual in USUAL[self._stage].items():
            drawn = usual * self.mood * self._machine.draw(0.05)
            drawn = drawn / factor if "per_s" in name else drawn * factor
            found[name] = (
                1.0 / (1.0 / drawn + slower_ms / 1e4) if "per_s" in name else (drawn + slower_ms)
            )
        return found

    def _converse(self, turns: int) -> dict[str, Any]:
        late_ms = sum(self._machine.slower_ms.values())
        factor = self._machine.factor(self._settings, "conversation")
        held = []
        for _ in range(turns):
            spoken_ms = 600.0 * factor * self.mood * self._machine.draw(0.05) + late_ms
            held.append(
                {
                    "user": "?",
                    "agent": "!",
                    "speech_began_ms": 500.0,
                    "speech_end_ms": 2000.0,
                    "closed_ms": 4000.0,
                    "spans_ms": {"paused": 64.0, "endpoint": 300.0, "first_sound": spoken_ms},
                    "voice_to_voice_ms": spoken_ms,
                }
            )
        return {
            "turns": held,
            "spans": SPANS,
            "wall_s": 0.01,
            "cpu_share": 40.0,
            "memory_mb": 440.0,
            "peak_memory_mb": 470.0,
        }


class FakeMachine:
    """Opens fake processes.

    Args:
        seed: Of what it draws.
        slower_ms: Added to every time of a stage.
        absent: Stages that cannot be measured.
        factor: How slow a stage is with given settings.
    """

    def __init__(
        self,
        seed: int,
        slower_ms: Mapping[str, float] | None = None,
        absent: tuple[str, ...] = (),
        factor: Callable[[Settings, str], float] = lambda settings, stage: 1.0,
    ) -> None:
        self._random = random.Random(seed)
        self.slower_ms = dict(slower_ms or {})
        self.absent = absent
        self.factor = factor
        self.asked: list[str] = []
        self.running = 0
        self.pause_s = 0.0

    def draw(self, spread: float) -> float:
        return self._random.lognormvariate(0.0, spread)

    def __call__(self, module: str, settings: Settings, **request: object) -> FakeChild:
        if module == PREPARATION:
            Path(str(request["folder"]), "question.wav").touch()
        return FakeChild(self, module, settings, request)
