"""From a captured frame to what turn-taking hears of it: cleaned sound, edges of speech.

Owns the way of the sound on the session's thread: the echo canceller and its reference, the VAD,
and the sound from before an onset. What the speech says is :mod:`edgevoice.listening`'s business.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import IntEnum

import numpy as np

from edgevoice.audio.reference import Reference
from edgevoice.engines.edges import Continued, Edge, Paused, Started
from edgevoice.events import (
    Event,
    SpeechContinued,
    SpeechDismissed,
    SpeechPaused,
    SpeechStarted,
    SpeechSuspected,
)
from edgevoice.frames import (
    FRAME_MS,
    FRAME_SAMPLES,
    Float32,
    Frame,
    ms_to_samples,
    samples_to_ms,
    to_float32,
)
from edgevoice.listening import Listener
from edgevoice.loudness import Loudness, power_of
from edgevoice.settings import VadSettings
from edgevoice.stages import EchoCanceller
from edgevoice.tape import Tape
from edgevoice.waning import Waning
from edgevoice.weights import Engines


class Suspicion(IntEnum):
    """How much there is to be said for speech that has not lasted long enough to be speech."""

    NONE = 0
    FAINT = 1
    FIRM = 2


class Microphone:
    """One conversation's.

    Args:
        engines: Shared weights, of which the VAD is used.
        settings: Of the VAD.
        listener: Gets the sound of every utterance.
        reference: What the speaker played.
        step: Takes the events.
        echo_canceller: Removes the agent's voice, if given.
        tape: Keeps what is heard and played, if given.
    """

    def __init__(
        self,
        engines: Engines,
        settings: VadSettings,
        listener: Listener,
        reference: Reference,
        step: Callable[[Event], None],
        *,
        echo_canceller: EchoCanceller | None,
        tape: Tape | None,
    ) -> None:
        self._listener = listener
        self._reference = reference
        self._step = step
        self._echo_canceller = echo_canceller
        self._tape = tape
        self._frames = 0
        self._frame_end_ms = 0.0
        self._suspicion = Suspicion.NONE
        self._preroll_ms = settings.preroll_ms
        preroll_frames = max(1, round(settings.preroll_ms / FRAME_MS))
        # The onset is known min_speech_ms late, plus a window of the VAD: both must fit as well.
        lookback_frames = round(settings.min_speech_ms / FRAME_MS) + 16
        self._recent: deque[Float32] = deque(maxlen=preroll_frames + lookback_frames)
        self._vad = engines.vad.open()
        self._edges = engines.vad.open_edges()
        self._loudness = Loudness()
        self._waning = Waning()

    @property
    def speaking(self) -> bool:
        """Whether the VAD hears speech."""
        return self._edges.speaking

    def note_turn(self) -> None:
        """Learn how loud the user speaks: a turn of theirs has ended."""
        self._loudness.learn()

    def clean(self, frame: Frame) -> Float32:
        """Return the frame without the agent's voice: float32, shape ``[FRAME_SAMPLES]``."""
        captured = frame.samples
        if self._echo_canceller is not None or self._tape is not None:
            played = self._reference.read(frame)
            if self._tape is not None:
                self._tape.hear(frame, played)
            if self._echo_canceller is not None:
                captured = self._echo_canceller.process(captured, played)
        return to_float32(captured)

    def hear(self, samples: Float32, frame_end_ms: float) -> None:
        """Take the next cleaned frame, which ends at ``frame_end_ms`` on the session's clock."""
        self._frames += 1
        self._frame_end_ms = frame_end_ms
        self._recent.append(samples)
        self._listener.feed(samples)
        power = power_of(samples)
        self._loudness.hear(power, in_speech=self._in_speech())
        for edge in self._edges.feed(self._vad.accept(samples)):
            self._step(self._speech_event(edge))
        self._note_suspicion()
        self._listener.note_quiet(self._edges.quiet)
        if self._edges.speaking and self._waning.hear(power):
            self._listener.look_ahead()

    def echo_margin_db(self) -> float | None:
        """How far what the canceller left stands above an echo; None while none can sound."""
        known = self._echo_canceller.evidence() if self._echo_canceller is not None else None
        return None if known is None else known.margin_db

    def _loudness_db(self) -> float | None:
        """A canceller turns the user down while it works, so its word counts alone then."""
        known = self._echo_canceller.evidence() if self._echo_canceller is not None else None
        return None if known is not None and known.hides else self._loudness.margin_db()

    def _speech_event(self, edge: Edge) -> Event:
        at_ms = self._frame_end_ms
        match edge:
            case Started(onset_ms=onset_ms):
                begin_ms = onset_ms + self._shift_ms()
                self._open_utterance(begin_ms)
                return SpeechStarted(at_ms, begin_ms, self.echo_margin_db(), self._loudness_db())
            case Continued(speech_ms=speech_ms):
                return SpeechContinued(
                    at_ms, speech_ms, self.echo_margin_db(), loudness_db=self._loudness_db()
                )
            case Paused(end_ms=end_ms):
                return SpeechPaused(at_ms, end_ms + self._shift_ms())

    def _note_suspicion(self) -> None:
        """Step with what may be the first of speech, or with its coming to nothing."""
        onset_ms = self._edges.suspected_ms
        before, self._suspicion = self._suspicion, self._edges_suspect()
        if self._suspicion > before:
            begin_ms = self._frame_end_ms if onset_ms is None else onset_ms + self._shift_ms()
            margin_db = self.echo_margin_db()
            faint = self._suspicion is Suspicion.FAINT
            self._step(SpeechSuspected(self._frame_end_ms, begin_ms, margin_db, faint))
        elif before and not self._suspicion and not self._edges.speaking:
            self._step(SpeechDismissed(self._frame_end_ms))

    def _edges_suspect(self) -> Suspicion:
        if self._edges.speaking:
            return Suspicion.NONE
        if self._edges.suspected_ms is not None:
            return Suspicion.FIRM
        return Suspicion.FAINT if self._edges.faint else Suspicion.NONE

    def _in_speech(self) -> bool:
        return self._edges.speaking or self._suspicion is Suspicion.FIRM

    def _shift_ms(self) -> float:
        """Edges count audio from the stream's start; the session's clock also knows lost frames."""
        return self._frame_end_ms - samples_to_ms(self._frames * FRAME_SAMPLES)

    def _open_utterance(self, onset_ms: float) -> None:
        lookback_ms = self._frame_end_ms - onset_ms + self._preroll_ms
        audio = np.concatenate(list(self._recent))
        self._waning.restart()
        self._listener.speech_started(onset_ms, audio[-ms_to_samples(lookback_ms) :])
