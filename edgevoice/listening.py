"""From the user's speech to words: feeds the recogniser and the end-of-turn model off the thread
that takes the audio.

All methods are called on the session's thread and return at once; what the models say comes back
as events. An utterance is open from the first speech until :meth:`Listener.forget`.

While the user has the floor, the words are looked for as soon as the speech may have ended, and
not only when the pause is known: what is found then is news for the language model, and the answer
to the pause if nothing was said since.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

import numpy as np

from edgevoice.engines.bounded_wait import SWIFT_MS
from edgevoice.errors import EngineError
from edgevoice.events import (
    EndpointReached,
    Event,
    OverlapHeard,
    PartialHeard,
    PauseJudged,
    PauseTranscribed,
)
from edgevoice.frames import SAMPLE_RATE_HZ, Float32, ms_to_samples, samples_to_ms
from edgevoice.stages import EndOfTurn, Recogniser, RecogniserModel, Transcript
from edgevoice.workers import Job, SteppedWorker, Worker

_JUDGED_SAMPLES = 8 * SAMPLE_RATE_HZ
"""Smart Turn looks at the last 8 s."""

_TELLING_MS = 1000.0
"""Of shorter speech the real-time factor says little: Whisper takes as long for a word as for
seconds."""

_FADING = 0.9
"""Of the time that the recogniser took, with each time that it was asked."""

_BACKLOG_SAMPLES = 60 * SAMPLE_RATE_HZ
"""A recogniser that is this far behind loses the newest audio; it is counted and reported."""


class Listener:
    """One conversation's hearing.

    Args:
        recogniser: Used on this listener's worker alone, until :meth:`change_recogniser`.
        judge: The end-of-turn model, or None.
        post: Takes events; called from worker threads.
        now_ms: The session's clock.
        on_error: Called on a worker's thread with what an engine raised.
        chunk_ms: Audio goes to the recogniser in pieces of this length, to spare it a hundred calls
            a second.
        worker: Makes a worker for the recogniser and one for the judge; :meth:`step` does the work
            of stepped ones.

    Attributes:
        has_floor: The user speaks to an agent that is silent, so that looking ahead is worth it.
    """

    def __init__(
        self,
        recogniser: Recogniser,
        judge: EndOfTurn | None,
        post: Callable[[Event], None],
        now_ms: Callable[[], float],
        on_error: Callable[[Exception], None],
        *,
        chunk_ms: float = 100.0,
        worker: type[Worker | SteppedWorker] = Worker,
    ) -> None:
        self._chunk_samples = ms_to_samples(chunk_ms)
        self._recogniser = recogniser
        self._judge = judge
        self._post = post
        self._now_ms = now_ms
        self._on_error = on_error
        self._recognition = worker("edgevoice-recogniser", on_error)
        self._judgement = worker("edgevoice-end-of-turn", on_error)
        self.has_floor = False
        self._open = False
        self._quiet = False
        self._voiced = 0  # how often speech went on, or an utterance was closed
        # `_voiced`, and the words up to the silence then.
        self._ahead: tuple[int, Transcript] | None = None
        self._took_ms = 0.0
        self._batch: list[Float32] = []
        self._since_onset: deque[Float32] = deque()
        self._onset_ms = 0.0
        self._turn_audio: deque[Float32] = deque()
        self._turn_samples = 0
        self._heard_samples = 0
        self._wanted_pause = 0
        self._wanted_probe = 0
        self._busy_ms = 0.0  # recognition's time for the utterance, on its worker alone
        self._worst_rtf: float | None = None
        self._lock = threading.Lock()
        self._queued_samples = 0
        self._lost_samples = 0

    @property
    def idle(self) -> bool:
        """True when no model is working on anything."""
        return self._recognition.idle and self._judgement.idle

    def step(self) -> bool:
        """Do the next of the work here; False where none waits, or it has threads of its own."""
        return self._recognition.step() or self._judgement.step()

    @property
    def lost_ms(self) -> float:
        """Speech that was never recognised, because the recogniser was too far behind."""
        return samples_to_ms(self._lost_samples)

    def take_rtf(self) -> float | None:
        """Return recognition's time over its audio's length, once: the worst utterance's since.

        None where no utterance was long enough to tell.
        """
        with self._lock:
            rtf, self._worst_rtf = self._worst_rtf, None
        return rtf

    def change_recogniser(self, model: RecogniserModel) -> None:
        """Hear with ``model`` from the next utterance on; none may be open.

        Where it cannot be opened, the recogniser stays that was in use.
        """

        def change() -> None:
            self._recogniser = model.open()

        self._recognition.submit(change)

    def speech_started(self, onset_ms: float, preroll: Float32) -> None:
        """Open an utterance, or mark that more speech begins in the one that is open.

        Args:
            onset_ms: When the speech began.
            preroll: float32, 16 kHz: the audio from a little before the onset until now.
        """
        self._onset_ms = onset_ms
        self._since_onset.clear()
        if self._open:
            self._since_onset.append(preroll)
            return
        self._open = True
        self.feed(preroll)

    def note_quiet(self, quiet: bool) -> None:
        """Note whether the VAD heard silence in the newest audio.

        A partial that begins in silence ends after the pause is known, and would keep the turn's
        whole text waiting; so the whole text is what is looked for.
        """
        if quiet == self._quiet:
            return
        self._quiet = quiet
        if quiet:
            voiced = self._voiced
            self._look(lambda: self._transcribe_ahead(voiced))
        else:
            self._voiced += 1

    def look_ahead(self) -> None:
        """Look for the words so far, which may be all: the speech seems to have died away."""
        if not self._quiet:
            self._look(self._glimpse)

    def _look(self, job: Job) -> None:
        if self._open and self.has_floor and self._took_ms <= SWIFT_MS:
            self._flush()
            self._recognise_with(job)

    def feed(self, samples: Float32) -> None:
        """Append audio (float32, 16 kHz) to the open utterance; without one, do nothing."""
        if not self._open:
            return
        self._since_onset.append(samples)
        self._turn_audio.append(samples)
        self._turn_samples += samples.size
        self._heard_samples += samples.size
        while self._turn_samples - self._turn_audio[0].size >= _JUDGED_SAMPLES:
            self._turn_samples -= self._turn_audio.popleft().size
        self._batch.append(samples)
        if sum(part.size for part in self._batch) >= self._chunk_samples:
            self._flush()

    def transcribe_pause(self, pause: int) -> None:
        """Ask for the utterance's text, as of now."""
        self._flush()
        self._wanted_pause = pause
        voiced = self._voiced if self._quiet else None
        self._recognise_with(lambda: self._transcribe(pause, voiced))

    def judge_pause(self, pause: int) -> None:
        """Ask for the utterance's end-of-turn probability, as of now; ``pause`` was transcribed."""
        if self._judge is not None and self._turn_audio:
            audio = np.concatenate(list(self._turn_audio))[-_JUDGED_SAMPLES:]
            self._judgement.submit(lambda: self._judge_pause(pause, audio))

    def draft_later(self) -> Callable[[Callable[[str], None]], None]:
        """Return what asks, on any thread, how the quicker of two passes hears the utterance.

        It is called back on the recogniser's thread: with "" where there is one pass, or the user
        has gone on since this was called.
        """
        voiced = self._voiced
        return lambda take: self._recognise_with(lambda: self._draft(voiced, take))

    def transcribe_overlap(self, probe: int) -> None:
        """Ask for the words of the utterance so far; :class:`OverlapHeard` answers."""
        self._flush()
        self._wanted_probe = probe
        quiet = self._quiet
        self._recognise_with(lambda: self._transcribe_overlap(probe, quiet))

    def forget(self, until_ms: float) -> None:
        """Close the utterance; speech that began after ``until_ms`` opens the next one.

        The rest of speech that is cut off here belongs to no turn: it is not recognised, however
        long it goes on.
        """
        self._batch.clear()
        self._turn_audio.clear()
        self._turn_samples = 0
        self._wanted_probe = 0
        self._voiced += 1
        kept = list(self._since_onset) if self._onset_ms > until_ms else []
        self._since_onset.clear()
        self._open = bool(kept)
        heard_ms, self._heard_samples = samples_to_ms(self._heard_samples), 0
        self._recognition.submit(lambda: self._reset(heard_ms))
        for samples in kept:
            self.feed(samples)

    def close(self) -> None:
        """End the workers."""
        self._wanted_pause = -1
        self._recognition.close()
        self._judgement.close()

    def _flush(self) -> None:
        if not self._batch:
            return
        samples = np.concatenate(self._batch)
        self._batch.clear()
        if self._queued_samples > _BACKLOG_SAMPLES:
            self._lost_samples += samples.size
            return
        with self._lock:
            self._queued_samples += samples.size
        self._recognise_with(lambda: self._recognise(samples))

    def _recognise_with(self, job: Job) -> None:
        def timed() -> None:
            began_ms = self._now_ms()
            try:
                job()
            finally:
                self._busy_ms += self._now_ms() - began_ms

        self._recognition.submit(timed)

    def _reset(self, heard_ms: float) -> None:
        self._recogniser.reset()
        busy_ms, self._busy_ms = self._busy_ms, 0.0
        if heard_ms >= _TELLING_MS:
            with self._lock:
                self._worst_rtf = max(self._worst_rtf or 0.0, busy_ms / heard_ms)

    def _recognise(self, samples: Float32) -> None:
        self._recogniser.accept(samples)
        with self._lock:
            self._queued_samples -= samples.size
            behind = self._queued_samples > 0
        if behind or self._quiet:
            return  # Of audio that is already old, or just before the whole text is asked for.
        partial = self._recogniser.partial()
        if partial is not None:
            self._tell(partial, partial.stable)
        if self._recogniser.endpoint():
            self._post(EndpointReached(self._now_ms()))

    def _glimpse(self) -> None:
        with self._lock:
            behind = self._queued_samples > 0
        if not behind:
            heard = self._conclude()
            self._tell(heard, heard.text)

    def _transcribe_ahead(self, voiced: int) -> None:
        if voiced == self._voiced:
            heard = self._conclude()
            self._ahead = (voiced, heard)
            self._tell(heard, heard.text)

    def _tell(self, heard: Transcript, stable: str) -> None:
        if heard.text:
            self._post(PartialHeard(self._now_ms(), heard.text, stable, heard.heard_by))

    def _conclude(self) -> Transcript:
        began_ms = self._now_ms()
        heard = self._recogniser.conclude()
        took_ms = self._now_ms() - began_ms
        if heard.trouble:
            self._on_error(EngineError(heard.trouble))
        # What was decoded before is told again at no cost, and says nothing of the next time.
        self._took_ms = max(took_ms, _FADING * self._took_ms)
        return heard

    def _transcribe(self, pause: int, voiced: int | None) -> None:
        if pause != self._wanted_pause:
            return  # The user went on before we came to it.
        heard = Transcript("")
        try:
            if self._ahead is not None and self._ahead[0] == voiced:
                heard = self._ahead[1]
            else:
                heard = self._conclude()
        finally:
            # Also after a failure: the turn waits for this word and must not wait for ever.
            self._post(
                PauseTranscribed(
                    self._now_ms(),
                    pause,
                    heard.text,
                    heard_by=heard.heard_by,
                    ending=heard.ending,
                )
            )

    def _draft(self, voiced: int, take: Callable[[str], None]) -> None:
        heard = None
        try:
            if voiced == self._voiced:
                heard = self._recogniser.draft()
        finally:
            # Also after a failure: an answer waits for it.
            take("" if heard is None else heard.text)

    def _transcribe_overlap(self, probe: int, quiet: bool) -> None:
        if probe != self._wanted_probe:
            return  # It was decided without it.
        heard = Transcript("")
        try:
            # Speech that has ended is decided on by these words.
            whole = self._recogniser.conclude
            heard = whole("interjection") if quiet else self._recogniser.glance()
        finally:
            self._post(
                OverlapHeard(
                    self._now_ms(), probe, heard.text, heard_by=heard.heard_by, nod=heard.nod
                )
            )

    def _judge_pause(self, pause: int, audio: Float32) -> None:
        if pause != self._wanted_pause or self._judge is None:
            return
        probability = self._judge.probability(audio)
        self._post(PauseJudged(self._now_ms(), pause, probability))
