"""What installed recognisers hear in a recording, and whether its words may be trained on.

The words are the first recogniser's. It has to say that they are probable enough, if it can (our
Whisper; Radford et al. 2022, section 4.5, whose other bound, on text that repeats itself, the
engine keeps already), and a second, if there is one, has to hear nearly the same. Owns the measures
and the bounds, which `docs/distil.md` has the figures for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from edgevoice.errors import ConfigError
from edgevoice.export import words
from edgevoice.frames import Float32
from edgevoice.stages import Recogniser, RecogniserModel

MOST_DIFFERING = 0.25
"""Share of the words that two recognisers hear otherwise: above it, neither is believed."""
LEAST_LOG_PROBABILITY = -0.4
"""Of the first recogniser's words, in nats a token on average: below it, it is not believed."""
_MOST_WRONG = 0.6
"""Word errors between what is written and what the recogniser hears: above it, the transcript is
another clip's. Whisper tiny.en reads clean speech with a tenth of that."""

WORDLESS = "without speech"
WRONG = "with words that are not what is said"
UNSURE = "whose words are unsure"


@runtime_checkable
class _Weighing(Protocol):
    def log_probability(self) -> float | None:
        """Return the mean log probability of the words, in nats a token; None: unknown."""
        ...


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is believed.

    Attributes:
        most_differing: Share of the words that two recognisers may hear otherwise.
        least_log_probability: Of the first one's words, in nats a token.
    """

    most_differing: float = MOST_DIFFERING
    least_log_probability: float = LEAST_LOG_PROBABILITY


DEFAULT_BOUNDS = Bounds()


def bounds(most_differing: float | None, least_log_probability: float | None) -> Bounds:
    """Return what the command's arguments ask for; None for a default.

    Raises:
        ConfigError: A bound is impossible.
    """
    most = MOST_DIFFERING if most_differing is None else most_differing
    least = LEAST_LOG_PROBABILITY if least_log_probability is None else least_log_probability
    if not 0.0 <= most <= 1.0:
        raise ConfigError(f"--label-differing {most:g}: a share is needed, from 0 to 1")
    if not least <= 0.0:
        raise ConfigError(
            f"--label-log-probability {least:g}: a logarithm of probabilities is 0 or less"
        )
    return Bounds(most, least)


@dataclass(frozen=True, slots=True)
class Label:
    """What was made of a recording.

    Attributes:
        text: Its words: what is written, or else what the first recogniser hears.
        why: Why it cannot be used, "" where it can.
        detail: What that was seen by, for people.
        weighed: Whether anything but one recogniser's word speaks for ``text``.
    """

    text: str
    why: str = ""
    detail: str = ""
    weighed: bool = True


class Labeller:
    """One or two recognisers that write down recordings.

    Args:
        models: Loaded; the words are the first one's.
        bounds: What is believed.

    Raises:
        ConfigError: There is none, or there are more than two.
    """

    def __init__(self, models: Sequence[RecogniserModel], bounds: Bounds) -> None:
        if len(models) not in (1, 2):
            raise ConfigError(f"--label-with: {len(models)} recognisers; one or two are needed")
        self._first, *rest = models
        self._second = rest[0] if rest else None
        self._bounds = bounds

    def label(self, samples: Float32, written: str) -> Label:
        """Return the words of ``samples`` (float32, 16 kHz); ``written`` where people wrote any."""
        first = self._first.open()
        heard = _conclude(first, samples)
        if not heard:
            return Label(written, WORDLESS)
        if written:
            return self._compared(samples, written, heard)
        found = first.log_probability() if isinstance(first, _Weighing) else None
        if found is not None and found < self._bounds.least_log_probability:
            return Label(heard, UNSURE, f"heard is {heard[:60]!r}, log probability {found:.2f}")
        if self._second is None:
            return Label(heard, weighed=found is not None)
        second = _conclude(self._second.open(), samples)
        if _differing(heard, second) > self._bounds.most_differing:
            return Label(heard, UNSURE, f"heard are {heard[:60]!r} and {second[:60]!r}")
        return Label(heard)

    def _compared(self, samples: Float32, written: str, heard: str) -> Label:
        if _differing(written, heard) <= _MOST_WRONG:
            return Label(written)
        if self._second is not None:
            second = _conclude(self._second.open(), samples)
            if _differing(written, second) <= _MOST_WRONG:
                return Label(written)
        return Label(written, WRONG, f"written is {written[:60]!r}, said is {heard[:60]!r}")


def _conclude(recogniser: Recogniser, samples: Float32) -> str:
    recogniser.accept(samples)
    return recogniser.conclude().text


def _differing(text: str, other: str) -> float:
    """Return the word errors between two texts, as a share of the first one's words."""
    said = words.spelled(text)
    return words.word_errors(said, words.spelled(other)) / max(len(said), 1)
