"""One conversation: takes frames from a source, turns from the state machine, sound to a sink.

One thread (that of :meth:`Session.run`) owns all state: it reads a frame, lets the VAD hear it,
steps the turn-taking machine with what happened, and does what the machine asks for. Everything
slow runs on workers (:mod:`edgevoice.listening`, :mod:`edgevoice.answering`), whose results come
back through an inbox; so a slow stage delays the answer and never the audio.

Pace: with ``Pace.REAL_TIME`` the clock is the wall's. With ``Pace.LOCK_STEP`` it is the audio's:
the next frame waits until the workers have done all they can, so a recording runs as fast as the
models go and always the same way.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from enum import Enum, auto
from typing import Protocol, runtime_checkable

import numpy as np

from edgevoice.answering import Answerer
from edgevoice.audio.reference import Reference, SteppedReference, reference_of
from edgevoice.engines.edges import Continued, Edge, Paused, Started
from edgevoice.errors import AudioError, EdgevoiceError
from edgevoice.events import (
    Action,
    Announce,
    AnswerFailed,
    ClearNotice,
    CompleteAnswer,
    DecisionNotice,
    DropAnswer,
    DuckAnswer,
    ErrorNotice,
    Event,
    ForgetUtterance,
    HoldAnswer,
    InterruptAnswer,
    MetricsNotice,
    Notice,
    OverlapHeard,
    PartialHeard,
    PauseJudged,
    PauseTranscribed,
    PrepareAnswer,
    ReleaseAnswer,
    RestoreAnswer,
    ResumeAnswer,
    SpeechContinued,
    SpeechDismissed,
    SpeechPaused,
    SpeechStarted,
    SpeechSuspected,
    StartTimer,
    StateNotice,
    TimerFired,
    TranscribeOverlap,
    TranscribePause,
    TranscriptNotice,
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
from edgevoice.history import History
from edgevoice.latency import Mark, TurnMarks
from edgevoice.listening import Listener
from edgevoice.settings import Settings
from edgevoice.stages import EchoCanceller, Sink, Source
from edgevoice.tape import Tape
from edgevoice.turn_rules import rules
from edgevoice.turn_state import Phase, TurnState
from edgevoice.turns import step
from edgevoice.weights import Engines

_READ_TIMEOUT_S = 0.05
_LOCK_STEP_POLL_S = 0.001
_ECHO_TAIL_MS = 1500.0
"""Speech that begins this soon behind the agent's may be the end of its echo."""

_ANSWERING = (Phase.THINKING, Phase.SPEAKING, Phase.HELD)


class Pace(Enum):
    """What the session's clock follows."""

    REAL_TIME = auto()
    LOCK_STEP = auto()


@runtime_checkable
class LockStepSink(Sink, Protocol):
    """A sink whose clock the session moves."""

    def advance(self, samples: int) -> None:
        """Let ``samples`` of time pass at the speaker."""
        ...


class Session:
    """Runs one conversation.

    Args:
        engines: Shared weights; the session opens its own streams on them.
        settings: The configuration.
        source: Started and stopped by the session.
        sink: Likewise; under ``Pace.LOCK_STEP`` it must be a :class:`LockStepSink`.
        watch: Takes every notice, on the session's thread. It must not block.
        pace: What the clock follows.
        echo_canceller: Removes the agent's voice from the microphone, if given.
        tape: Keeps what is heard, played and decided, if given; closed by the session.
    """

    def __init__(
        self,
        engines: Engines,
        settings: Settings,
        source: Source,
        sink: Sink,
        watch: Callable[[Notice], None],
        *,
        pace: Pace = Pace.REAL_TIME,
        echo_canceller: EchoCanceller | None = None,
        tape: Tape | None = None,
    ) -> None:
        self._settings = settings
        self._source = source
        self._sink = sink
        self._watch = watch
        self._pace = pace
        self._lock_step_sink: LockStepSink | None = None
        if pace is Pace.LOCK_STEP:
            if not isinstance(sink, LockStepSink):
                raise AudioError(f"{type(sink).__name__} cannot run in lock step; use a WAV sink")
            self._lock_step_sink = sink
        self._echo_canceller = echo_canceller
        self._tape = tape
        self._reference: Reference = (
            reference_of(sink) if pace is Pace.REAL_TIME else SteppedReference(sink)
        )
        self._stopping = threading.Event()
        self._inbox: queue.SimpleQueue[Event | Callable[[], None]] = queue.SimpleQueue()
        self._started_ns = time.monotonic_ns()
        self._frames = 0
        self._frame_end_ms = 0.0
        self._timer: StartTimer | None = None
        self._state = TurnState()
        self._rules = rules(settings, judged=engines.end_of_turn is not None)
        self._history = History(settings.language_model.system_prompt)
        self._marks = TurnMarks()
        self._turns = 0
        self._released_text = ""
        self._told_text = ""
        self._agent_text = ""
        self._last_said = ""
        self._last_said_ms = float("-inf")
        self._reciting = 0
        self._suspected = False
        preroll_frames = max(1, round(settings.vad.preroll_ms / FRAME_MS))
        # The onset is known min_speech_ms late, plus a window of the VAD: both must fit as well.
        lookback_frames = round(settings.vad.min_speech_ms / FRAME_MS) + 16
        self._recent: deque[Float32] = deque(maxlen=preroll_frames + lookback_frames)
        self._vad = engines.vad.open()
        self._edges = engines.vad.open_edges()
        self._listener = Listener(
            engines.recogniser.open(),
            engines.end_of_turn,
            self._inbox.put,
            self.now_ms,
            self._report_later,
        )
        self._language_model = engines.language_model.open()
        self._answerer = Answerer(
            self._language_model,
            engines.speech,
            sink,
            answer_tokens=settings.language_model.max_answer_tokens,
            duck_gain=settings.turns.duck_gain,
            post=self._inbox.put,
            mark=self._mark,
            now_ms=self.now_ms,
            on_forgotten=lambda turns: self._inbox.put(lambda: self._history.forget_oldest(turns)),
        )

    # ---------------------------------------------------------------- for other threads

    def now_ms(self) -> float:
        """Milliseconds on the session's clock."""
        if self._pace is Pace.LOCK_STEP:
            return self._frames * FRAME_MS
        return (time.monotonic_ns() - self._started_ns) / 1e6

    def stop(self) -> None:
        """End the session soon; may be called from any thread, and from a signal handler."""
        self._stopping.set()

    # ---------------------------------------------------------------- the session's thread

    def run(self) -> None:
        """Hold the conversation until the source ends or :meth:`stop` is called.

        Raises:
            AudioError: A port was lost. What the session knows has been noticed before.
        """
        try:
            self._sink.start()
            self._source.start()
            self._started_ns = time.monotonic_ns()
            self._answerer.warm(self._history.messages())
            self._notice(StateNotice(self.now_ms(), self._state.phase.value))
            while not self._stopping.is_set() and self._turn_the_crank():
                pass
        except AudioError as error:
            self._notice(ErrorNotice(self.now_ms(), str(error), fatal=True))
            raise
        finally:
            self._close()

    @property
    def at_rest(self) -> bool:
        """True when nobody speaks and nothing is being worked on."""
        return (
            self._state.phase is Phase.LISTENING
            and not self._edges.speaking
            and self._listener.idle
            and self._answerer.idle
            and self._inbox.empty()
        )

    @property
    def history(self) -> History:
        """What was said and heard."""
        return self._history

    def _turn_the_crank(self) -> bool:
        try:
            frame = self._source.read(_READ_TIMEOUT_S)
        except EOFError:
            return False
        if frame is not None:
            self._hear(frame)
        self._settle()
        if self._pace is Pace.LOCK_STEP:
            while not (self._listener.idle and self._answerer.idle and self._inbox.empty()):
                time.sleep(_LOCK_STEP_POLL_S)
                self._settle()
        return True

    def _settle(self) -> None:
        """Let the machine see all that has happened by now."""
        self._answerer.poll()
        while True:
            try:
                item = self._inbox.get_nowait()
            except queue.Empty:
                break
            if callable(item):
                item()
            else:
                event = self._with_context(item)
                self._note(event)
                self._step(event)
        timer = self._timer
        if timer is not None and self.now_ms() >= timer.due_ms:
            self._timer = None
            self._step(TimerFired(self.now_ms(), timer.timer))
        self._tell_agent_text()

    def _hear(self, frame: Frame) -> None:
        self._frames += 1
        self._frame_end_ms = (
            self.now_ms()
            if self._pace is Pace.LOCK_STEP
            else (frame.captured_ns - self._started_ns) / 1e6
        )
        captured = frame.samples
        if self._echo_canceller is not None or self._tape is not None:
            played = self._reference.read(frame)
            if self._tape is not None:
                self._tape.hear(frame, played)
            if self._echo_canceller is not None:
                captured = self._echo_canceller.process(captured, played)
        if self._lock_step_sink is not None:
            self._lock_step_sink.advance(FRAME_SAMPLES)
        samples = to_float32(captured)
        self._recent.append(samples)
        self._listener.feed(samples)
        decisions = self._vad.accept(samples)
        for edge in self._edges.feed(decisions):
            self._step(self._speech_event(edge))
        self._note_suspicion()
        self._listener.note_quiet(self._edges.quiet)

    def _echo_margin_db(self) -> float | None:
        """How far what the canceller left stands above an echo; None while none can sound."""
        known = self._echo_canceller.evidence() if self._echo_canceller is not None else None
        return None if known is None else known.margin_db

    def _speech_event(self, edge: Edge) -> Event:
        # Edges count audio from the stream's start; the session's clock also knows lost frames.
        shift_ms = self._frame_end_ms - samples_to_ms(self._frames * FRAME_SAMPLES)
        at_ms = self._frame_end_ms
        match edge:
            case Started(onset_ms=onset_ms):
                begin_ms = onset_ms + shift_ms
                self._open_utterance(begin_ms)
                return SpeechStarted(at_ms, begin_ms, self._echo_margin_db())
            case Continued(speech_ms=speech_ms):
                return SpeechContinued(at_ms, speech_ms, self._echo_margin_db())
            case Paused(end_ms=end_ms):
                return SpeechPaused(at_ms, end_ms + shift_ms)

    def _note_suspicion(self) -> None:
        """Step with a first window of speech, or with its coming to nothing."""
        onset_ms = self._edges.suspected_ms
        if onset_ms is not None and not self._suspected:
            shift_ms = self._frame_end_ms - samples_to_ms(self._frames * FRAME_SAMPLES)
            margin_db = self._echo_margin_db()
            self._step(SpeechSuspected(self._frame_end_ms, onset_ms + shift_ms, margin_db))
        elif onset_ms is None and self._suspected and not self._edges.speaking:
            self._step(SpeechDismissed(self._frame_end_ms))
        self._suspected = onset_ms is not None

    def _with_context(self, event: Event) -> Event:
        """Add what the machine needs to know beside the words: what the agent is saying."""
        if isinstance(event, PartialHeard) and self._state.phase in _ANSWERING:
            event = OverlapHeard(event.at_ms, 0, event.text)
        match event:
            case OverlapHeard():
                remaining_ms = self._answerer.remaining_ms
                return replace(event, said=self._answerer.said(), remaining_ms=remaining_ms)
            case PauseTranscribed():
                near = self._state.onset_ms - self._last_said_ms < _ECHO_TAIL_MS
                wasted_share = self._answerer.speculation.wasted_share
                said = self._last_said if near else ""
                return replace(event, said=said, wasted_share=wasted_share)
            case _:
                return event

    def _open_utterance(self, onset_ms: float) -> None:
        lookback_ms = self._frame_end_ms - onset_ms + self._settings.vad.preroll_ms
        audio = np.concatenate(list(self._recent))
        self._listener.speech_started(onset_ms, audio[-ms_to_samples(lookback_ms) :])

    def _step(self, event: Event) -> None:
        if self._tape is not None:
            self._tape.note(event)
        self._state, actions = step(self._state, event, self._rules)
        if isinstance(event, SpeechPaused) and self._state.phase is Phase.ENDPOINTING:
            self._marks.restart(event.end_ms, event.at_ms)
        for action in actions:
            self._do(action)

    def _note(self, event: Event) -> None:
        """Tell watchers what the machine does not act on, and keep the turn's marks."""
        match event:
            case PartialHeard(at_ms=at_ms, text=text):
                if self._state.phase in (Phase.USER_SPEAKING, Phase.ENDPOINTING):
                    whole = f"{self._state.carried} {text}".strip()
                    self._notice(TranscriptNotice(at_ms, "user", whole, final=False))
                    # What is read while the user speaks need not be read when the turn is over.
                    budget = self._rules.speculation_budget
                    if self._answerer.speculation.wasted_share <= budget:
                        self._answerer.warm(self._history.messages(whole))
            case PauseTranscribed(at_ms=at_ms, pause=pause) if pause == self._state.pause:
                self._marks.mark("transcribed", at_ms)
            case PauseJudged(at_ms=at_ms, pause=pause) if pause == self._state.pause:
                self._marks.mark("judged", at_ms)
            case AnswerFailed(at_ms=at_ms, reason=reason):
                self._notice(ErrorNotice(at_ms, reason))
            case _:
                pass

    def _do(self, action: Action) -> None:
        now_ms = self.now_ms()
        match action:
            case StartTimer():
                self._timer = action
            case TranscribePause(pause=pause):
                self._listener.transcribe_pause(pause)
            case TranscribeOverlap(probe=probe):
                self._listener.transcribe_overlap(probe)
            case PrepareAnswer(answer=answer, text=text):
                self._prepare(answer, text)
            case ReleaseAnswer(answer=answer, text=text):
                self._turns += 1
                self._marks.mark("endpoint", now_ms)
                self._history.user_said(text)
                self._released_text = text
                self._agent_text = ""
                self._tell_user_text(text)
                self._answerer.release(answer)
            case DropAnswer(answer=answer):
                self._answerer.stop(answer)
                if self._released_text:
                    self._history.retract_user(self._released_text)
                    self._released_text = ""
            case DuckAnswer(answer=answer):
                self._answerer.duck(answer)
            case RestoreAnswer(answer=answer):
                self._answerer.restore(answer)
            case HoldAnswer(answer=answer):
                self._answerer.hold(answer)
            case ResumeAnswer(answer=answer):
                self._answerer.resume(answer)
            case InterruptAnswer(answer=answer):
                heard = self._answerer.stop(answer)
                self._notice(ClearNotice(now_ms))
                self._history.agent_said(heard.text, cut_off=True, unheard=heard.unheard)
                self._close_turn(heard.text, interrupted=True)
            case CompleteAnswer(answer=answer):
                self._last_said = self._answerer.said()
                self._last_said_ms = now_ms
                if answer == self._reciting:
                    self._history.forget_unheard()
                heard = self._answerer.finish(answer)
                self._history.agent_said(heard.text, cut_off=False)
                self._close_turn(heard.text, interrupted=False)
            case ForgetUtterance(until_ms=until_ms):
                self._listener.forget(until_ms)
            case Announce(decision=decision, phase=phase, evidence=evidence):
                margin_db = self._echo_margin_db()
                if margin_db is not None:
                    evidence = {**evidence, "echo_margin_db": margin_db}
                self._notice(DecisionNotice(now_ms, decision, evidence))
                self._notice(StateNotice(now_ms, phase))

    def _prepare(self, answer: int, text: str) -> None:
        """Begin an answer: the model's, or the rest of the one that was interrupted."""
        rest = self._history.unheard
        if rest and self._rules.phrases.asks_to_go_on(text):
            self._reciting = answer
            self._answerer.recite(answer, rest)
        else:
            self._answerer.prepare(answer, self._history.messages(text))

    def _close_turn(self, heard: str, *, interrupted: bool) -> None:
        now_ms = self.now_ms()
        self._released_text = ""
        self._told_text = ""
        self._agent_text = ""
        if heard:
            self._notice(TranscriptNotice(now_ms, "agent", heard, True, interrupted))
        figures = self._answerer.speculation.figures()
        self._notice(MetricsNotice(now_ms, self._turns, self._marks.spans_ms(), figures))

    def _tell_agent_text(self) -> None:
        if self._state.phase not in _ANSWERING:
            return
        text = self._answerer.text_so_far()
        if text and text != self._agent_text:
            self._agent_text = text
            self._notice(TranscriptNotice(self.now_ms(), "agent", text, final=False))

    def _tell_user_text(self, text: str) -> None:
        """Tell the words of a turn that ended, less those told before the user went on with it.

        What was final stays final, so a watcher that joins final texts has each word once.
        """
        rest = text.removeprefix(self._told_text).strip()
        self._told_text = text
        if rest:
            self._notice(TranscriptNotice(self.now_ms(), "user", rest, final=True))

    def _mark(self, name: Mark) -> None:
        # Workers call this; a mark is one dictionary entry, set once.
        self._marks.mark(name, self.now_ms())

    def _report_later(self, error: Exception) -> None:
        message = str(error) if isinstance(error, EdgevoiceError) else repr(error)
        self._inbox.put(lambda: self._notice(ErrorNotice(self.now_ms(), message)))

    def _notice(self, notice: Notice) -> None:
        if self._tape is not None:
            self._tape.note(notice)
        self._watch(notice)

    def _close(self) -> None:
        self._source.stop()
        if self._state.phase in (Phase.SPEAKING, Phase.HELD):
            heard = self._answerer.stop(self._state.answer)
            self._history.agent_said(heard.text, cut_off=True)
            self._close_turn(heard.text, interrupted=True)
        self._answerer.close()
        self._listener.close()
        self._language_model.close()
        self._sink.stop()
        if self._tape is not None:
            self._tape.close()
