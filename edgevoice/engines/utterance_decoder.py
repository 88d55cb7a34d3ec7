"""What decodes a whole utterance at once, as the segmented recogniser needs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from edgevoice.frames import Float32
from edgevoice.stages import Expected

STATE_SAMPLES = 320
"""Of a frame of states, at 16 kHz: Whisper's 20 ms."""


@dataclass(frozen=True, slots=True)
class Written:
    """What was heard in an utterance.

    Attributes:
        text: The words.
        tokens: They as the model's tokens, where the decoder can go on from them.
        states: float32, [frames, width]: what the encoder made of the sound, in frames of
            :data:`STATE_SAMPLES`; None where that is not to be had.
    """

    text: str
    tokens: tuple[int, ...] = ()
    states: Float32 | None = field(default=None, repr=False, compare=False)


class UtteranceDecoder(Protocol):
    """Writes down one utterance; may be called from several threads at a time."""

    def decode(
        self, samples: Float32, draft: Sequence[int] = (), expected: Expected = "turn"
    ) -> Written:
        """Write down ``samples``.

        Args:
            samples: float32, 16 kHz, one or more.
            draft: Tokens that were written for a part of the same utterance: what is most likely
                said, and faster to confirm than to find. They do not decide what is written.
            expected: What is likely said; it may decide what is written.
        """
        ...


@runtime_checkable
class Listening(Protocol):
    """A decoder that can say what its encoder makes of speech, without writing it down."""

    def states(self, samples: Float32) -> Float32:
        """Return float32, [frames, width], a frame for each :data:`STATE_SAMPLES`."""
        ...


@runtime_checkable
class Weighing(Protocol):
    """A decoder that can say how sure it is of what it wrote, when it is asked."""

    def log_probability(self, samples: Float32, tokens: Sequence[int]) -> float:
        """Return the mean log probability of ``tokens``, written for ``samples``, in nats a token.

        Raises:
            ArtifactError: This artifact cannot say.
        """
        ...
