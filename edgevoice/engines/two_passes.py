"""Two recognisers as one: the first hears along, the second writes what is answered.

The first pass is a streaming recogniser, at a hundredth of real time: partials, endpoint rules, and
whether there are words at all in speech over the agent. The second hears whole utterances and is
the better one. Its text is taken as soon as the turn may be over, which is when a segmented
recogniser alone would be asked as well, and the first pass's where the second fails or is late.

The second's word counts also where it hears none: speech that is none is its guard's business
(:mod:`edgevoice.engines.hallucination`), and the first pass hears words in hums and coughs too.
"""

from __future__ import annotations

from dataclasses import replace

from edgevoice.engines import providers
from edgevoice.engines.bounded_wait import BoundedRecogniser
from edgevoice.engines.providers import Ran
from edgevoice.errors import EdgevoiceError
from edgevoice.frames import Float32, samples_to_ms
from edgevoice.stages import Expected, Recogniser, RecogniserModel, Transcript

DEAF_MS = 1000.0
"""So much speech in which the first pass hears no words is shown to the second: it may be deaf to
this voice, and the agent must not be."""

_CHECKED_MS = 500.0
"""Sound in which the second pass must hear no more words, for an endpoint of the first to count."""


class TwoPassRecogniser:
    """One conversation's (:class:`edgevoice.stages.Recogniser`).

    Args:
        first: Hears along.
        second: Writes what is answered.
    """

    def __init__(self, first: Recogniser, second: BoundedRecogniser) -> None:
        self.first = first
        self._second = second
        self._unshown_samples = 0  # to the second pass
        self._worded = False  # the first pass has heard words
        self._at_silence: str | None = None  # the second's text when the first's rules last fired

    def accept(self, samples: Float32) -> None:
        """Append float32 samples, 16 kHz, any length; nothing is decoded."""
        # The second first: where the first pass fails, the turn is still answered.
        self._second.accept(samples)
        self._unshown_samples += samples.size
        self.first.accept(samples)

    def partial(self) -> Transcript | None:
        """Return what the first pass hears, or now and then what the second makes of the words."""
        heard = self.first.partial()
        self._worded = self._worded or (heard is not None and bool(heard.text))
        rewritten = self._second.partial() if self._worded else None
        if rewritten is not None:
            return replace(rewritten, heard_by="second")
        return replace(heard, heard_by="first") if heard is not None else None

    def draft(self) -> Transcript:
        """Return the first pass's text."""
        return replace(self.first.conclude(), heard_by="first")

    def conclude(self, expected: Expected = "turn") -> Transcript:
        """Return the second pass's text; the first's where that fails, or does not come in time."""
        self._unshown_samples = 0
        trouble = ""
        try:
            rewritten = self._second.conclude(expected)
        except Exception as error:
            told = str(error) if isinstance(error, EdgevoiceError) else repr(error)
            trouble = f"the second pass failed, the first pass's words stand: {told}"
        else:
            if rewritten is not None:
                return replace(rewritten, heard_by="second")
        return replace(self.first.conclude(), heard_by="first", trouble=trouble)

    def glance(self) -> Transcript:
        """Return no words where the first pass hears none; else what the second makes of it.

        What words over the agent are is judged by figures that were found with the second's, and
        most sounds over the agent have none.
        """
        if not self._worded:
            heard = self.first.glance()
            self._worded = bool(heard.text)
            if not self._worded and samples_to_ms(self._unshown_samples) < DEAF_MS:
                return replace(heard, heard_by="first")
        return self.conclude("interjection")

    def endpoint(self) -> bool:
        """Whether the first pass's endpoint rules say that the utterance is over, and are right.

        They fire where the first pass hears no more words in what the VAD takes for speech, and it
        may be deaf to this voice: the second must hear no more words either, in what came since.
        """
        if not self.first.endpoint():
            self._at_silence = None
            return False
        if self._at_silence is not None and samples_to_ms(self._unshown_samples) < _CHECKED_MS:
            return False
        before, self._at_silence = self._at_silence, self.conclude().text
        return self._at_silence in ("", before)

    def reset(self) -> None:
        """Forget the utterance."""
        self._at_silence = None
        self._worded = False
        self._unshown_samples = 0
        self._second.reset()
        self.first.reset()


class TwoPassModel:
    """Loaded weights of both passes.

    Args:
        first: Streaming.
        second: Of whole utterances, or streaming and better.
        wait_ms: How long the second is waited for; None: as long as it takes.
    """

    def __init__(
        self, first: RecogniserModel, second: RecogniserModel, wait_ms: float | None
    ) -> None:
        self.first = first
        self.second = second
        self._wait_ms = wait_ms
        self.provider: Ran | None = providers.of(second)

    def with_passes(self, first: RecogniserModel, second: RecogniserModel) -> TwoPassModel:
        """Return the same with others in the passes' places."""
        return TwoPassModel(first, second, self._wait_ms)

    def open(self) -> TwoPassRecogniser:
        """Start a recogniser for one conversation."""
        return TwoPassRecogniser(self.first.open(), BoundedRecogniser(self.second, self._wait_ms))

    def close(self) -> None:
        """Free the weights."""
        self.first.close()
        self.second.close()
