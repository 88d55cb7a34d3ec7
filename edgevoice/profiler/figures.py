"""What the profiler measures: every figure's stage, unit, direction and meaning.

Owns names only; how a figure is measured is the workloads' business, what its samples say
:mod:`edgevoice.profiler.spread`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Direction = Literal["lower", "higher"]

STAGES = (
    "vad",
    "echo-canceller",
    "first-pass",
    "recogniser",
    "end-of-turn",
    "language-model",
    "speech",
    "conversation",
)
"""In the order in which a turn meets them; the last is all of them together."""

YARDSTICK = "yardstick.best_ms"


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing that is measured.

    Attributes:
        key: ``stage.name``, as it stands in a profile's file.
        unit: Of its samples.
        better: Which way is better.
        title: What it is, in a few words.
    """

    key: str
    unit: str
    better: Direction
    title: str

    @property
    def judged(self) -> bool:
        """Whether more or less of it is for better or worse.

        Cores that are kept busy are not: a stage that waits keeps none.
        """
        return self.unit not in ("cores", "%") and self.key != YARDSTICK

    @property
    def timed(self) -> bool:
        """Whether a slower machine makes it worse."""
        return self.unit in ("ms", "x", "tok/s")

    @property
    def stage(self) -> str:
        """The stage that it belongs to."""
        return self.key.partition(".")[0]


_COMMON = (
    ("cold_start_ms", "ms", "lower", "cold start: a fresh process to the first result"),
    ("memory_mb", "MiB", "lower", "resident memory that the stage adds to a process"),
    ("busy_cores", "cores", "lower", "cores kept busy while it works"),
)
_OWN: dict[str, tuple[tuple[str, str, Direction, str], ...]] = {
    "vad": (("window_ms", "ms", "lower", "one window of 32 ms"),),
    "echo-canceller": (("frame_ms", "ms", "lower", "one frame of 10 ms, the agent speaking"),),
    "first-pass": (
        ("real_time_factor", "x", "lower", "decoding time of a second of speech"),
        ("first_partial_ms", "ms", "lower", "start of speech to the first partial"),
        ("partial_ms", "ms", "lower", "new audio to the growing text"),
        ("final_ms", "ms", "lower", "end of speech to all of its words"),
    ),
    "recogniser": (
        ("real_time_factor", "x", "lower", "decoding time of a second of speech"),
        ("first_partial_ms", "ms", "lower", "start of speech to the first partial"),
        ("partial_ms", "ms", "lower", "new audio to the growing text"),
        ("final_ms", "ms", "lower", "end of speech to the final text"),
    ),
    "end-of-turn": (("judge_ms", "ms", "lower", "one judgement"),),
    "language-model": (
        ("prefill_tokens_per_s", "tok/s", "higher", "prefill, nothing kept"),
        ("prefill_kept_tokens_per_s", "tok/s", "higher", "prefill behind the kept prefix"),
        ("first_token_ms", "ms", "lower", "first token, nothing kept"),
        ("first_token_kept_ms", "ms", "lower", "first token behind the kept prefix"),
        ("decode_tokens_per_s", "tok/s", "higher", "decode, nothing kept"),
        ("decode_kept_tokens_per_s", "tok/s", "higher", "decode behind the kept prefix"),
    ),
    "speech": (
        ("first_sound_ms", "ms", "lower", "text to the first sound"),
        ("unbroken_ms", "ms", "lower", "text to a sound that need not stop again"),
        ("real_time_factor", "x", "lower", "synthesis time of a second of speech"),
    ),
    "conversation": (
        ("voice_to_voice_ms", "ms", "lower", "last sound of the user to the first of the agent"),
        ("endpoint_ms", "ms", "lower", "end of speech to the decision that the turn is over"),
        ("transcribed_ms", "ms", "lower", "end of speech to the transcript"),
        ("first_token_ms", "ms", "lower", "end of speech to the first token"),
        ("first_audio_ms", "ms", "lower", "end of speech to the first samples of speech made"),
        ("cold_start_ms", "ms", "lower", "cold start: a fresh process to listening"),
        ("memory_mb", "MiB", "lower", "resident memory, all stages in one process"),
        ("peak_memory_mb", "MiB", "lower", "most resident memory, all stages in one process"),
        ("cpu_share", "%", "lower", "share of all cores over a conversation"),
        ("energy_j", "J", "lower", "energy of one turn, the whole device"),
    ),
}


def _of(stage: str) -> tuple[Figure, ...]:
    rows: list[tuple[str, str, Direction, str]] = [*_OWN[stage]]
    shared = _COMMON if stage != "conversation" else ()
    rows += [(name, unit, "lower", title) for name, unit, _, title in shared]
    return tuple(
        Figure(f"{stage}.{name}", unit, better, title) for name, unit, better, title in rows
    )


FIGURES: dict[str, Figure] = {
    **{figure.key: figure for stage in STAGES for figure in _of(stage)},
    YARDSTICK: Figure(YARDSTICK, "ms", "lower", "fixed work that no stage has a part in"),
}
"""Every figure by its key."""
