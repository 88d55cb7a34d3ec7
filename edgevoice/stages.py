"""The small Protocols that every stage of a conversation is behind.

An engine comes in two parts where weights are shared: a *model* (loaded once a process) whose
``open()`` gives a *stream* (one conversation's state). The protocols below are the streams and
their models. Nothing here does any work, and nothing here knows which engine it talks to.

Threads: a stream is used by one thread at a time. A model's ``open()`` may be called from any
thread, and its streams may run in parallel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from edgevoice.events import HeardBy
from edgevoice.frames import Float32, Frame, Int16

Role = Literal["system", "user", "assistant"]
Cancelled = Callable[[], bool]
"""Asked often by long work; work that sees True stops within one token or one audio chunk."""


def never() -> bool:
    """Stand in for :data:`Cancelled` where nothing can cancel."""
    return False


# --------------------------------------------------------------------------- audio ports


@runtime_checkable
class Source(Protocol):
    """Where the user's voice comes from (microphone, WAV, socket)."""

    @property
    def dropped_frames(self) -> int:
        """Frames lost since the start, because nobody read them in time."""
        ...

    def start(self) -> None:
        """Begin to capture. Raises :class:`~edgevoice.errors.AudioError`."""
        ...

    def read(self, timeout_s: float) -> Frame | None:
        """Return the next frame, or None when none came within ``timeout_s``.

        Raises :class:`EOFError` when no frame will ever come again (the file ended, the caller
        hung up), and :class:`~edgevoice.errors.AudioError` when the device was lost.
        """
        ...

    def stop(self) -> None:
        """Release the device. May be called more than once."""
        ...


@runtime_checkable
class Sink(Protocol):
    """Where the agent's voice goes. Takes 16 kHz mono int16 and reports what was *played*."""

    def start(self) -> None:
        """Open the device. Raises :class:`~edgevoice.errors.AudioError`."""
        ...

    def write(self, samples: Int16) -> None:
        """Queue samples for playing; returns at once (a port may block beyond a minute queued).

        Raises :class:`~edgevoice.errors.AudioError` once the device was lost; nothing is pending
        from then on.
        """
        ...

    def played_samples(self) -> int:
        """Samples that have left the speaker since :meth:`start`, silence not counted."""
        ...

    def pending_samples(self) -> int:
        """Samples queued and not yet played."""
        ...

    def set_gain(self, gain: float) -> None:
        """Play at ``gain`` (1 is as written) from the next samples on, without a click."""
        ...

    def hold(self) -> int:
        """Pause without a click and keep what is queued; samples may still be written.

        Returns how many samples written so far and not yet played will still sound, because the
        device has them already.
        """
        ...

    def release(self, again: Int16) -> None:
        """End a hold: play ``again`` (int16, shape ``[n]``), then what was kept, at gain 1.

        ``again`` counts as played a second time. Without a hold it is not played.
        """
        ...

    def clear(self) -> int:
        """Drop what is queued, fall silent at once; return how many samples were dropped.

        A hold ends with it, and the gain is 1 for what is written next.
        """
        ...

    def stop(self) -> None:
        """Release the device. May be called more than once."""
        ...


@dataclass(frozen=True, slots=True)
class EchoEvidence:
    """What the echo canceller knows about the last 100 ms of the microphone.

    Attributes:
        margin_db: How loud what it left is against what it would leave of the echo alone. An echo
            is below 0 nine times of ten; a voice over the agent rises above within 200 ms or so.
        delay_ms: How long the echo takes from the reference to the microphone, once known.
        hides: Whether a voice may be quieter than it is, because the canceller is at work; for a
            while behind that, an echo may sound and hides nothing.
    """

    margin_db: float
    delay_ms: float | None = None
    hides: bool = True


class EchoCanceller(Protocol):
    """Removes the agent's own voice from the microphone."""

    def process(self, captured: Int16, played: Int16) -> Int16:
        """Return ``captured`` (one frame) less the echo of ``played`` (the frame on the speaker).

        All three are int16, shape ``[FRAME_SAMPLES]``.
        """
        ...

    def evidence(self) -> EchoEvidence | None:
        """Return what speaks for or against an echo, None while none can sound."""
        ...


# --------------------------------------------------------------------------- hearing


class Vad(Protocol):
    """Says how likely there is speech, window by window."""

    def accept(self, samples: Float32) -> Sequence[float]:
        """Take float32 samples of any length at 16 kHz; return the probability of speech, from 0
        to 1, in each completed window."""
        ...

    @property
    def window_samples(self) -> int:
        """Samples in one decision window (512 = 32 ms for Silero at 16 kHz)."""
        ...

    def reset(self) -> None:
        """Forget everything heard."""
        ...


@dataclass(frozen=True, slots=True)
class Transcript:
    """What a recogniser makes of an utterance.

    Attributes:
        text: The best text so far, "" when no words were heard (or only a hallucination).
        stable: A prefix of ``text`` that later audio is not expected to change.
        audio_ms: How much audio since the last reset the text covers.
        heard_by: The pass that heard it.
        trouble: Why the second pass had no part in it, "" where nothing went wrong.
        ending: Probability that the turn ends here, judged from the sound; None where the
            recogniser cannot say, or was asked for an interjection.
        nod: Probability that the speech so far is a nod ("mm-hm"), judged from the sound; None
            where the recogniser cannot say, or was asked for a turn.
    """

    text: str
    stable: str = ""
    audio_ms: float = 0.0
    heard_by: HeardBy = ""
    trouble: str = ""
    ending: float | None = None
    nod: float | None = None


Expected = Literal["turn", "interjection"]
"""What is likely said: a whole turn, or a word or two over the agent's voice."""


class Recogniser(Protocol):
    """One conversation's recogniser: an utterance grows from :meth:`reset` to :meth:`reset`."""

    def accept(self, samples: Float32) -> None:
        """Append float32 samples, 16 kHz, any length. Must be fast (no full decode)."""
        ...

    def partial(self) -> Transcript | None:
        """Decode if enough new audio has come; None when there is nothing new to say."""
        ...

    def draft(self) -> Transcript | None:
        """Return the text of all audio as a quicker pass hears it; None where there is none."""
        ...

    def conclude(self, expected: Expected = "turn") -> Transcript:
        """Return the text of all audio since the last reset, as good as this engine can.

        The utterance stays open: more audio may follow, and `conclude` be called again. What is
        expected is a hint, which most engines have no use for.
        """
        ...

    def glance(self) -> Transcript:
        """Return the words so far of speech that goes on, as far as they can be had cheaply.

        Asked every 100 ms or so while somebody speaks over the agent; :meth:`conclude` where
        nothing is cheaper.
        """
        ...

    def endpoint(self) -> bool:
        """Whether the engine's own endpoint rules say that the utterance is over.

        Always False for engines without such rules.
        """
        ...

    def reset(self) -> None:
        """Forget the utterance."""
        ...


class RecogniserModel(Protocol):
    """Loaded recogniser weights."""

    def open(self) -> Recogniser:
        """Start a recogniser for one conversation."""
        ...

    def close(self) -> None:
        """Free the weights."""
        ...


class EndOfTurn(Protocol):
    """Judges from sound whether the speaker has finished (stateless, shared by sessions)."""

    def probability(self, samples: Float32) -> float:
        """Probability in [0, 1] that the turn ends with ``samples`` (16 kHz, the last 8 s)."""
        ...


# --------------------------------------------------------------------------- answering


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation, as a chat template sees it."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Ending:
    """What a language model thinks of the end of a message.

    Attributes:
        probability: That the message ends where it does, by its words alone.
        evaluated_tokens: What was read for that; reading on from there costs it no more.
        read_tokens: All tokens that are read now.
    """

    probability: float
    evaluated_tokens: int
    read_tokens: int


class LanguageModel(Protocol):
    """One conversation's language model: it keeps what it has already read (KV prefix)."""

    @property
    def context_tokens(self) -> int:
        """Tokens that prompt and answer may have together."""
        ...

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of the templated prompt, generation prompt included."""
        ...

    def prefill(self, messages: Sequence[Message], cancelled: Cancelled = never) -> int:
        """Read ``messages`` into the KV cache behind the longest common prefix.

        Returns the number of tokens that had to be evaluated.
        """
        ...

    def ending(self, messages: Sequence[Message], cancelled: Cancelled = never) -> Ending | None:
        """Judge whether the last of ``messages`` is over, on the way to reading all of them.

        The mark at its end is not looked at: recognisers set one behind everything. None where
        the model cannot say, or was cancelled.
        """
        ...

    def begin(self, messages: Sequence[Message], cancelled: Cancelled = never) -> Ending | None:
        """Judge as :meth:`ending` does, of messages that are to be answered now.

        What stands behind the last word is read with it as far as that saves a pass over the
        weights; :meth:`prefill` and :meth:`generate` read the rest. A model that cannot do so
        does as :meth:`ending`.
        """
        ...

    def generate(self, messages: Sequence[Message], cancelled: Cancelled = never) -> Iterator[str]:
        """Yield the answer to ``messages`` in pieces of text; stop within a token of a cancel."""
        ...

    def close(self) -> None:
        """Free this conversation's state."""
        ...


class LanguageModelModel(Protocol):
    """Loaded language-model weights."""

    def open(self) -> LanguageModel:
        """Start a conversation of its own on the shared weights."""
        ...

    def close(self) -> None:
        """Free the weights."""
        ...


class Speech(Protocol):
    """Text to speech (stateless; shared by sessions and safe to call from several threads)."""

    @property
    def sample_rate_hz(self) -> int:
        """Rate of the samples that :meth:`synthesise` yields."""
        ...

    def synthesise(self, text: str, cancelled: Cancelled = never) -> Iterator[Float32]:
        """Yield speech for ``text`` as float32 chunks in [-1, 1]; nothing for unspeakable text."""
        ...

    def close(self) -> None:
        """Free the weights."""
        ...
