"""Streaming recognisers: sherpa-onnx's OnlineRecognizer behind the Recogniser protocol.

Owns the decoding of an utterance as it grows, sherpa's endpoint rules, and the tail padding
(:mod:`edgevoice.engines.sherpa_online_packs` says how each family is built). The guard against
hallucinations is not needed here: these models are silent on noise.

Tail padding: a chunked model decodes when a chunk and its right context are there, so the last
word stays inside until that much audio follows. How much is a property of the weights and is
measured at load time (:class:`Chunking`).

`conclude` pads the live stream, which cannot be undone (sherpa-onnx streams cannot be copied).
If audio follows, the stream is made again from the kept audio. That costs one decode of the
utterance (real-time factor 0.01 to 0.1), only when the speaker goes on and never before an
answer; a second stream beside it would cost as much for every utterance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgevoice.engines.agreement import LocalAgreement
from edgevoice.engines.providers import Ran
from edgevoice.engines.samples import finite
from edgevoice.errors import ArtifactError
from edgevoice.frames import SAMPLE_RATE_HZ, Float32, ms_to_samples, samples_to_ms
from edgevoice.stages import Expected, Transcript

NO_WORDS_SILENCE_S = 2.4
WORDS_SILENCE_S = 1.2
"""Silence that ends an utterance without and with words: sherpa-onnx's rules 1 and 2."""

_CPU = Ran()
_PROBE_STEP_MS = 10.0
_PROBE_LIMIT_MS = 10_000.0


@dataclass(frozen=True, slots=True)
class Chunking:
    """When a streaming model decodes, measured by feeding it silence.

    Attributes:
        first_ms: Audio after which the first chunk is decoded (chunk and right context).
        step_ms: Further audio for each further chunk.
    """

    first_ms: float
    step_ms: float

    @property
    def tail_padding_ms(self) -> float:
        """Padding that brings out the last word wherever it falls in a chunk.

        ``first_ms`` sees that the last sample has its right context; one step more gives a model
        that emits a token after its sound the time to do so.
        """
        return self.first_ms + self.step_ms


def measure_chunking(recognizer: Any) -> Chunking:
    """Feed silence until two chunks were decoded; also warms the recogniser up.

    Raises:
        ArtifactError: No chunk was decoded within 10 s of audio.
    """
    stream = recognizer.create_stream()
    silence = np.zeros(ms_to_samples(_PROBE_STEP_MS), np.float32)
    decoded_ms: list[float] = []
    fed_ms = 0.0
    while len(decoded_ms) < 2:
        if fed_ms >= _PROBE_LIMIT_MS:
            raise ArtifactError(
                f"the streaming recogniser decoded {len(decoded_ms)} chunks of 10 s of audio, two "
                "are needed; its chunk size in the manifest or the model is wrong"
            )
        stream.accept_waveform(SAMPLE_RATE_HZ, silence)
        fed_ms += _PROBE_STEP_MS
        while recognizer.is_ready(stream):
            recognizer.decode_stream(stream)
            decoded_ms.append(fed_ms)
    first_ms, second_ms = decoded_ms[:2]
    return Chunking(first_ms, second_ms - first_ms)


class OnlineRecogniser:
    """One conversation's streaming recogniser (:class:`edgevoice.stages.Recogniser`).

    The audio since :meth:`reset` is kept (64 kB a second). Rule 3 of the endpoint rules fires
    after ``recogniser.max_utterance_s``, so a caller that heeds :meth:`endpoint` bounds it.
    """

    def __init__(self, recognizer: Any, tail_padding_ms: float) -> None:
        self._recognizer = recognizer
        self._padding = np.zeros(ms_to_samples(tail_padding_ms), np.float32)
        self._stream = recognizer.create_stream()
        self._kept: list[Float32] = []
        self._kept_samples = 0
        self._concluded: Transcript | None = None
        self._agreement = LocalAgreement()
        self._last_text = ""

    def accept(self, samples: Float32) -> None:
        """Append float32 samples, 16 kHz, any length; nothing is decoded."""
        if not len(samples):
            return
        fresh = finite(samples).copy()
        if self._concluded is not None:
            self._concluded = None
            self._stream = self._recognizer.create_stream()
            for kept in self._kept:
                self._stream.accept_waveform(SAMPLE_RATE_HZ, kept)
        self._stream.accept_waveform(SAMPLE_RATE_HZ, fresh)
        self._kept.append(fresh)
        self._kept_samples += len(fresh)

    def partial(self) -> Transcript | None:
        """Decode the chunks that are complete; None when that changed nothing."""
        if self._concluded is not None or not self._decode(self._stream):
            return None
        text = self._text(self._stream)
        stable = self._agreement.agree(text)
        if text == self._last_text:
            return None
        self._last_text = text
        return Transcript(text, stable, self._audio_ms())

    def draft(self) -> None:
        """Return None: there is one pass."""

    def conclude(self, expected: Expected = "turn") -> Transcript:
        """Return the text of all audio since the last reset, the last word included."""
        del expected
        if self._concluded is None:
            if self._kept:
                self._stream.accept_waveform(SAMPLE_RATE_HZ, self._padding)
                # Hands out the last feature frames; the stream takes no audio from here on.
                self._stream.input_finished()
                self._decode(self._stream)
            text = self._text(self._stream)
            self._concluded = Transcript(text, text, self._audio_ms())
        return self._concluded

    def glance(self) -> Transcript:
        """Return the words so far, decoded aside: the live stream goes on where it is.

        A conclusion would cost that stream as well, whose audio would be decoded once more. The
        padding is what the newest sound needs to be decoded at all, less than its last word may.
        """
        if self._concluded is not None or not self._kept:
            return self.conclude()
        stream = self._recognizer.create_stream()
        for samples in (*self._kept, self._padding[: self._padding.size // 2]):
            stream.accept_waveform(SAMPLE_RATE_HZ, samples)
        self._decode(stream)
        text = self._text(stream)
        return Transcript(text, text, self._audio_ms())

    def endpoint(self) -> bool:
        """Whether sherpa-onnx's endpoint rules say that the utterance is over."""
        if self._concluded is not None:
            return False  # the padding would count as the user's silence
        self._decode(self._stream)
        if not self._recognizer.is_endpoint(self._stream):
            return False
        return bool(self._text(self._stream)) or self._audio_ms() >= NO_WORDS_SILENCE_S * 1000.0

    def reset(self) -> None:
        """Forget the utterance."""
        self._stream = self._recognizer.create_stream()
        self._kept = []
        self._kept_samples = 0
        self._concluded = None
        self._agreement.reset()
        self._last_text = ""

    def _decode(self, stream: Any) -> bool:
        decoded = False
        while self._recognizer.is_ready(stream):
            self._recognizer.decode_stream(stream)
            decoded = True
        return decoded

    def _text(self, stream: Any) -> str:
        return " ".join(str(self._recognizer.get_result(stream)).split())

    def _audio_ms(self) -> float:
        return samples_to_ms(self._kept_samples)


class OnlineRecogniserModel:
    """Loaded streaming weights; its streams decode in parallel (the GIL is released)."""

    def __init__(self, recognizer: Any, tail_padding_ms: float, provider: Ran = _CPU) -> None:
        self._recognizer = recognizer
        self.tail_padding_ms = tail_padding_ms
        self.provider = provider

    def open(self) -> OnlineRecogniser:
        """Start a recogniser for one conversation."""
        return OnlineRecogniser(self._recognizer, self.tail_padding_ms)

    def close(self) -> None:
        """Free the weights; streams that are open keep them until they go."""
        self._recognizer = None
