"""What decodes a whole utterance at once, as the segmented recogniser needs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from edgevoice.frames import Float32
from edgevoice.stages import Expected


@dataclass(frozen=True, slots=True)
class Written:
    """What was heard in an utterance.

    Attributes:
        text: The words.
        tokens: They as the model's tokens, where the decoder can go on from them.
    """

    text: str
    tokens: tuple[int, ...] = ()


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
class Weighing(Protocol):
    """A decoder that can say how sure it is of what it wrote, when it is asked."""

    def log_probability(self, samples: Float32, tokens: Sequence[int]) -> float:
        """Return the mean log probability of ``tokens``, written for ``samples``, in nats a token.

        Raises:
            ArtifactError: This artifact cannot say.
        """
        ...
