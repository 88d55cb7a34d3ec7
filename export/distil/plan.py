"""What a training is: the recogniser's shape and its stages, as data that a checkpoint carries.

A checkpoint of another shape or other stages is refused by comparing these. Owns the defaults.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from edgevoice.errors import ConfigError

FRAME_MS = 20.0
"""One output frame: two of the features', which come every 10 ms."""
WHOLE = 1 << 20
"""A chunk that no clip is longer than: the whole of it is seen."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The recogniser.

    Attributes:
        width: Channels of the encoder.
        heads: Of attention.
        layers: In all, the new ones included.
        new_layers: Behind Whisper's.
        positions: Frames until Whisper's positions begin again.
        chunk: Output frames that are decoded at once.
        left: Output frames before the chunk that it sees; a multiple of ``chunk``.
        tokens: The alphabet (letters, or pieces of words), in the order of the scores.
    """

    width: int
    heads: int
    layers: int
    new_layers: int
    positions: int
    chunk: int
    left: int
    tokens: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.chunk < 1 or self.left < self.chunk or self.left % self.chunk:
            raise ConfigError(
                f"chunk {self.chunk} and left context {self.left} frames: the left context must be "
                "one or more whole chunks"
            )


@dataclass(frozen=True, slots=True)
class Stage:
    """Some steps of the training.

    Attributes:
        name: For people.
        steps: How many.
        head_rate: Learning rate of the new layers and the scores, at its highest.
        upper_rate: Of the upper half of Whisper's layers; 0 leaves all of Whisper as it is.
        lower_rate: Of its lower half and its front.
        chunks: Chunk sizes that are trained, and how often each.
        from_start: Share of the batches whose positions begin at 0, as after a reset.
    """

    name: str
    steps: int
    head_rate: float
    upper_rate: float = 0.0
    lower_rate: float = 0.0
    chunks: Mapping[str, float] = field(default_factory=dict)
    from_start: float = 0.5


@dataclass(frozen=True, slots=True)
class Plan:
    """A training.

    Attributes:
        shape: The recogniser.
        stages: One after the other.
        batch_frames: Feature frames of a batch, padding included.
        warm_up_steps: Of each stage.
        averaged_steps: How far back the averaged weights, which are what is exported, remember.
        seed: For all that is drawn.
    """

    shape: Shape
    stages: Sequence[Stage]
    batch_frames: int = 7500
    warm_up_steps: int = 40
    averaged_steps: int = 200
    seed: int = 0

    @property
    def steps(self) -> int:
        """Of all stages."""
        return sum(stage.steps for stage in self.stages)

    def stage_at(self, step: int) -> tuple[Stage, int]:
        """Return the stage that ``step`` (from 0) is of, and its number within it."""
        for stage in self.stages:
            if step < stage.steps:
                return stage, step
            step -= stage.steps
        raise IndexError(step)

    def as_json(self) -> dict[str, Any]:
        """Return what :func:`from_json` reads."""
        return asdict(self)


def from_json(data: Mapping[str, Any]) -> Plan:
    """Return the plan that was written.

    Raises:
        ConfigError: It is not one.
    """
    try:
        shape = Shape(**{**data["shape"], "tokens": tuple(data["shape"]["tokens"])})
        stages = tuple(Stage(**stage) for stage in data["stages"])
        return Plan(**{**data, "shape": shape, "stages": stages})
    except (KeyError, TypeError) as error:
        raise ConfigError(f"not a training plan: {error!r}") from error


def default_stages(chunk: int, frozen_steps: int, steps: int) -> tuple[Stage, ...]:
    """Return the two stages: the new layers alone, then all of it at low rates.

    The encoder left alone for nine minutes gave as good a result on unseen speakers as 35 minutes
    of training it all.
    """
    mostly = {str(chunk): 0.55, str(max(1, chunk // 2)): 0.25, str(WHOLE): 0.2}
    return (
        Stage("frozen", frozen_steps, 2e-3, chunks={str(chunk): 1.0}, from_start=0.8),
        Stage("whole", steps, 1e-3, 3e-4, 1.2e-4, chunks=mostly),
    )
