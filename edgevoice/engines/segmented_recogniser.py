"""Segmented recognisers behind the Recogniser protocol: models that hear a whole utterance at once.

Owns the growing partials (the utterance is decoded again when enough audio came; what two decodes
agree on is stable), the cutting of utterances that are longer than the model hears, and the guard
against made-up words. What decodes is :mod:`edgevoice.engines.sherpa_offline_packs`' business, or
:mod:`edgevoice.engines.whisper_drafted`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edgevoice.engines.agreement import LocalAgreement
from edgevoice.engines.encoder_judge import EncoderJudge
from edgevoice.engines.hallucination import Sound, believable
from edgevoice.engines.providers import Ran
from edgevoice.engines.samples import finite
from edgevoice.engines.utterance_decoder import (
    STATE_SAMPLES,
    Listening,
    UtteranceDecoder,
    Weighing,
    Written,
)
from edgevoice.frames import SAMPLE_RATE_HZ, Float32, ms_to_samples, samples_to_ms
from edgevoice.settings import RecogniserSettings
from edgevoice.stages import Expected, Transcript

_WINDOW_SAMPLES = ms_to_samples(20)
_CUT_WINDOW_SAMPLES = ms_to_samples(200)
_EARLIEST_CUT = 0.6
"""Of the longest utterance: a cut is looked for behind this."""

_SPARSE_S = 4.0
_SPARSE_TEXT_PER_S = 4.0
"""Audio from this length on with fewer characters a second than this may have lost words: read
speech has 12 to 20, slow dictation 6."""

QUIET_RATIO = 0.03
"""New audio whose loudest 20 ms stay 30 dB below the utterance's holds no more words: word-final
fricatives lie 15 to 25 dB below the vowels."""

_BREATH_SAMPLES = ms_to_samples(30)
_TAIL_SAMPLES = ms_to_samples(100)
"""An utterance that has only just died away is heard as if its quiet went on for so long: of 41
questions cut 40 ms behind their last sound Whisper heard 38 as with 150 ms behind it, and 40 so
(zeros did nothing)."""

_CPU = Ran()
_NOTHING = Written("")


@dataclass(frozen=True, slots=True)
class Judges:
    """What judges speech from the decoder's states; None: nothing does.

    Attributes:
        ending: Whether a turn ends.
        nod: Whether speech over the agent is a nod.
    """

    ending: EncoderJudge | None = None
    nod: EncoderJudge | None = None


_NO_JUDGES = Judges()


class OfflineRecogniser:
    """One conversation's segmented recogniser (:class:`edgevoice.stages.Recogniser`).

    Args:
        decoder: Shared by all conversations.
        partial_interval_ms: New audio between two decodes.
        longest_ms: Utterances beyond this are cut at their quietest spot and decoded in pieces.
        judges: Of the decoder's states.
    """

    def __init__(
        self,
        decoder: UtteranceDecoder,
        partial_interval_ms: float,
        longest_ms: float,
        judges: Judges = _NO_JUDGES,
    ) -> None:
        self._decoder = decoder
        self._judges = judges
        self._interval_samples = ms_to_samples(partial_interval_ms)
        self._longest_samples = ms_to_samples(longest_ms)
        self._agreement = LocalAgreement()
        self.reset()

    def reset(self) -> None:
        """Forget the utterance."""
        self._pieces: list[Float32] = []
        self._heard_samples = 0
        self._new_samples = 0
        self._loudest = 0.0
        self._new_loudest = 0.0
        self._heard = _NOTHING
        self._heard_until = 0  # of the audio that is not settled: what the last decode heard
        self._decoded_for: Expected | None = None
        self._settled = ""
        self._told = Transcript("")
        self._agreement.reset()

    def accept(self, samples: Float32) -> None:
        """Append float32 samples, 16 kHz, any length; nothing is decoded."""
        if not len(samples):
            return
        fresh = finite(samples).copy()
        self._pieces.append(fresh)
        self._heard_samples += len(fresh)
        self._new_samples += len(fresh)
        self._new_loudest = max(self._new_loudest, _loudest(fresh))

    def partial(self) -> Transcript | None:
        """Decode when ``partial_interval_ms`` of new audio came; None when that changed nothing."""
        if self._new_samples < self._interval_samples:
            return None
        text = self._decode()
        stable = self._agreement.agree(text)
        found = Transcript(
            _join(self._settled, text),
            _join(self._settled, stable),
            samples_to_ms(self._heard_samples),
        )
        if (found.text, found.stable) == (self._told.text, self._told.stable):
            return None
        self._told = found
        return found

    def draft(self) -> None:
        """Return None: there is one pass."""

    def conclude(self, expected: Expected = "turn") -> Transcript:
        """Return the text of all audio since the last reset.

        The last decode is used again when only near-silence came since.
        """
        quiet = self._new_loudest <= QUIET_RATIO * max(self._loudest, self._new_loudest)
        known = quiet and self._decoded_for == expected
        text = self._heard.text if known else self._decode(expected)
        whole = _join(self._settled, text)
        audio_ms = samples_to_ms(self._heard_samples)
        if expected == "turn":
            return Transcript(whole, whole, audio_ms, ending=self._judged(self._judges.ending))
        if known:
            self._listen_on()
        return Transcript(whole, whole, audio_ms, nod=self._judged(self._judges.nod))

    def _listen_on(self) -> None:
        """Let a nod be judged with the silence behind it: it tells one from "okay, that is..."."""
        decoder = self._decoder
        heard_all = self._heard_until == sum(map(len, self._pieces))
        if self._judges.nod is None or not isinstance(decoder, Listening) or heard_all:
            return
        audio = np.concatenate(self._pieces)
        self._heard = replace(self._heard, states=decoder.states(self._with_tail(audio)))
        self._heard_until = len(audio)

    def _judged(self, judge: EncoderJudge | None) -> float | None:
        if judge is None or self._heard.states is None:
            return None
        return judge.probability(self._heard.states, self._heard_until // STATE_SAMPLES)

    def glance(self) -> Transcript:
        """Return the text of all audio since the last reset: there is no cheaper one."""
        return self.conclude("interjection")

    def log_probability(self) -> float | None:
        """Return the mean log probability of the words decoded last, in nats a token.

        None where the decoder cannot say, or where there are no words. Of an utterance that is
        longer than one decode it is the last piece's; no interjection is expected. It takes
        0.6 of a decode.
        """
        decoder, heard = self._decoder, self._heard
        if not isinstance(decoder, Weighing) or not heard.text or not heard.tokens:
            return None
        audio = np.concatenate(self._pieces)
        return decoder.log_probability(self._with_tail(audio), heard.tokens)

    def endpoint(self) -> bool:
        """Return False: these models have no endpoint rules."""
        return False

    def _decode(self, expected: Expected = "turn") -> str:
        """Decode what is not settled yet and return its text."""
        audio = np.concatenate(self._pieces) if self._pieces else np.zeros(0, np.float32)
        while len(audio) > self._longest_samples:
            cut = _quietest(
                audio, int(_EARLIEST_CUT * self._longest_samples), self._longest_samples
            )
            self._settled = _join(self._settled, _recognise(self._decoder, audio[:cut]).text)
            audio = audio[cut:]
            self._heard = _NOTHING
            self._agreement.reset()
        self._pieces = [audio]
        self._loudest = max(self._loudest, self._new_loudest)
        self._new_loudest = 0.0
        self._new_samples = 0
        self._decoded_for = expected
        self._heard_until = len(audio)
        whole = self._with_tail(audio)
        self._heard = _recognise(self._decoder, whole, self._heard.tokens, expected)
        return self._heard.text

    def _with_tail(self, audio: Float32) -> Float32:
        return with_tail(audio, QUIET_RATIO * self._loudest)


class OfflineRecogniserModel:
    """Loaded segmented weights; conversations decode in parallel (the GIL is released).

    Args:
        decoder: Shared by all conversations.
        settings: The interval of partials and the longest utterance count.
        longest_ms: Audio that one decode takes.
        provider: What it runs on.
        judges: Of the decoder's states.
    """

    def __init__(
        self,
        decoder: UtteranceDecoder,
        settings: RecogniserSettings,
        longest_ms: float,
        provider: Ran = _CPU,
        judges: Judges = _NO_JUDGES,
    ) -> None:
        self._decoder: UtteranceDecoder | None = decoder
        self._partial_interval_ms = settings.partial_interval_ms
        self._longest_ms = min(longest_ms, settings.max_utterance_s * 1000.0)
        self.provider = provider
        self._judges = judges

    @property
    def decoder(self) -> UtteranceDecoder:
        """What all conversations decode with."""
        assert self._decoder is not None, "used after it was closed"
        return self._decoder

    def open(self) -> OfflineRecogniser:
        """Start a recogniser for one conversation."""
        return OfflineRecogniser(
            self.decoder, self._partial_interval_ms, self._longest_ms, self._judges
        )

    def close(self) -> None:
        """Free the weights; streams that are open keep them until they go."""
        self._decoder = None


def _recognise(
    decoder: UtteranceDecoder,
    audio: Float32,
    draft: tuple[int, ...] = (),
    expected: Expected = "turn",
) -> Written:
    """Decode ``audio``; in two parts as well when the text covers too little of it.

    Whisper sometimes stops at the first full stop (float and int8 weights alike, 1 of 39 LJ
    Speech clips: 3 words for 8 s).
    """
    whole = _decoded(decoder, audio, draft, expected)
    seconds = len(audio) / SAMPLE_RATE_HZ
    if not whole.text or seconds < _SPARSE_S or len(whole.text) > _SPARSE_TEXT_PER_S * seconds:
        return whole
    cut = _quietest(audio, int(0.15 * len(audio)), int(0.85 * len(audio)))
    parts = _join(_decoded(decoder, audio[:cut]).text, _decoded(decoder, audio[cut:]).text)
    return replace(whole, text=parts, tokens=()) if len(parts) > 2 * len(whole.text) else whole


def _decoded(
    decoder: UtteranceDecoder,
    audio: Float32,
    draft: tuple[int, ...] = (),
    expected: Expected = "turn",
) -> Written:
    if not len(audio):
        return _NOTHING
    written = decoder.decode(audio, draft, expected)
    return replace(written, text=believable(written.text, Sound.of(audio)))


def heard_as(audio: Float32) -> tuple[Float32, int]:
    """Return what a decoder is given of a whole utterance, and the frames of it that were heard."""
    return with_tail(audio, QUIET_RATIO * _loudest(audio)), len(audio) // STATE_SAMPLES


def with_tail(audio: Float32, quiet: float) -> Float32:
    """Return ``audio`` with its end, where that is quieter than ``quiet``, said on for a while."""
    breath = audio[-_BREATH_SAMPLES:]
    if breath.size < _BREATH_SAMPLES or _loudest(breath) > quiet:
        return audio
    # To and fro, so that there is no click where they meet.
    there_and_back = np.concatenate((breath[::-1], breath))
    times = -(-_TAIL_SAMPLES // there_and_back.size)
    tail: Float32 = np.tile(there_and_back, times)[:_TAIL_SAMPLES]
    return np.concatenate((audio, tail))


def _loudest(samples: Float32) -> float:
    """Return the largest RMS of 20 ms, or of all samples where there are fewer."""
    size = min(_WINDOW_SAMPLES, len(samples))
    framed = samples[: len(samples) // size * size].reshape(-1, size)
    return float(np.sqrt(np.mean(np.square(framed), axis=1).max()))


def _quietest(audio: Float32, begin: int, end: int) -> int:
    """Return the middle of the quietest 200 ms of ``audio[begin:end]``."""
    power = np.square(audio[begin:end], dtype=np.float64)
    sums = np.concatenate([[0.0], np.cumsum(power)])
    energy = sums[_CUT_WINDOW_SAMPLES:] - sums[:-_CUT_WINDOW_SAMPLES]
    return begin + int(np.argmin(energy)) + _CUT_WINDOW_SAMPLES // 2


def _join(first: str, second: str) -> str:
    return f"{first} {second}".strip()
