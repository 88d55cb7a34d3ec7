"""One conversation: takes frames from a source, turns from the state machine, sound to a sink.

One thread (that of :meth:`Session.run`) owns all state: it reads a frame, lets the VAD hear it,
steps the turn-taking machine with what happened, and does what the machine asks for. Everything
slow runs on workers (:mod:`edgevoice.listening`, :mod:`edgevoice.answering`), whose results come
back through an inbox; so a slow stage delays the answer and never the audio.

Pace: with ``Pace.REAL_TIME`` the clock is the wall's. With ``Pace.LOCK_STEP`` it is the audio's:
the next frame waits until all is done that can be, in a fixed order, so a recording runs as fast as
the models go and always the same way.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from enum import Enum, auto
from typing import Protocol, runtime_checkable

from edgevoice.answering import Answerer
from edgevoice.audio.reference import SteppedReference, reference_of
from edgevoice.conduct import Conductor
from edgevoice.errors import AudioError, EdgevoiceError
from edgevoice.events import (
    AnswerFailed,
    ErrorNotice,
    Event,
    Notice,
    OverlapHeard,
    PartialHeard,
    PauseJudged,
    PauseTranscribed,
    ProviderNotice,
    ReleaseAnswer,
    SpeechPaused,
    StateNotice,
    TextJudged,
    TimerFired,
    TranscriptNotice,
)
from edgevoice.frames import (
    FRAME_MS,
    FRAME_SAMPLES,
    Frame,
)
from edgevoice.history import History
from edgevoice.latency import Mark, TurnMarks
from edgevoice.listening import Listener
from edgevoice.load_follower import LoadFollower
from edgevoice.load_governor import LoadGovernor
from edgevoice.microphone import Microphone
from edgevoice.settings import Settings
from edgevoice.stages import EchoCanceller, Sink, Source
from edgevoice.tape import Tape
from edgevoice.turn_rules import rules
from edgevoice.turn_state import Phase, TurnState
from edgevoice.turns import step
from edgevoice.weights import Engines
from edgevoice.workers import SteppedWorker, Worker

_READ_TIMEOUT_S = 0.05
_LOCK_STEP_POLL_S = 0.001
_USERS = (Phase.USER_SPEAKING, Phase.ENDPOINTING)
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
        governor: Says when to do less, if given.
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
        governor: LoadGovernor | None = None,
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
        self._tape = tape
        self._stopping = threading.Event()
        self._inbox: queue.SimpleQueue[Event | Callable[[], None]] = queue.SimpleQueue()
        self._started_ns = time.monotonic_ns()
        self._frames = 0
        self._state = TurnState()
        self._providers = engines.providers()
        self._rules = rules(settings, judged=engines.end_of_turn is not None)
        self._history = History(settings.language_model.system_prompt)
        self._marks = TurnMarks()
        self._listener = Listener(
            engines.recogniser.open(),
            engines.end_of_turn,
            self._inbox.put,
            self.now_ms,
            self._report_later,
            chunk_ms=settings.recogniser.chunk_ms,
            worker=SteppedWorker if pace is Pace.LOCK_STEP else Worker,
        )
        self._microphone = Microphone(
            engines,
            settings.vad,
            self._listener,
            reference_of(sink) if pace is Pace.REAL_TIME else SteppedReference(sink),
            self._step,
            echo_canceller=echo_canceller,
            tape=tape,
        )
        self._answerer = Answerer(
            engines.language_model.open(),
            engines.speech,
            sink,
            answer_tokens=settings.language_model.max_answer_tokens,
            duck_gain=settings.turns.duck_gain,
            post=self._inbox.put,
            mark=self._mark,
            now_ms=self.now_ms,
            on_forgotten=lambda turns: self._inbox.put(lambda: self._history.forget_oldest(turns)),
        )
        self._conductor = Conductor(
            self._listener,
            self._answerer,
            self._history,
            self._marks,
            self._rules.phrases,
            notice=self._notice,
            now_ms=self.now_ms,
            echo_margin_db=self._microphone.echo_margin_db,
        )
        self._load: LoadFollower | None = None
        if governor is not None:
            self._load = LoadFollower(
                governor,
                engines,
                settings,
                self._listener,
                self._answerer,
                speculate=self._speculate,
                at_rest=lambda: self.at_rest,
                messages=self._history.messages,
                report=self._report_later,
                notice=self._notice,
                now_ms=self.now_ms,
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
            for stage, ran in self._providers.items():
                self._notice(
                    ProviderNotice(self.now_ms(), stage, ran.name, ran.detail, ran.passed_over)
                )
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
            and not self._microphone.speaking
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
            self._finish()
        return True

    def _finish(self) -> None:
        """Let all be done that this frame calls for, one thing after the other."""
        while True:
            if not self._answerer.idle:
                self._answerer.hurry()
                time.sleep(_LOCK_STEP_POLL_S)
            elif self._inbox.empty() and not self._listener.step():
                return
            else:
                self._settle()

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
        timer = self._conductor.take_due_timer()
        if timer is not None:
            self._step(TimerFired(self.now_ms(), timer))
        if self._state.phase in _ANSWERING:
            self._conductor.tell_agent_text()
        if self._load is not None:
            self._load.follow()

    def _hear(self, frame: Frame) -> None:
        self._frames += 1
        frame_end_ms = (
            self.now_ms()
            if self._pace is Pace.LOCK_STEP
            else (frame.captured_ns - self._started_ns) / 1e6
        )
        samples = self._microphone.clean(frame)
        if self._lock_step_sink is not None:
            self._lock_step_sink.advance(FRAME_SAMPLES)
        self._microphone.hear(samples, frame_end_ms)

    def _with_context(self, event: Event) -> Event:
        """Add what the machine needs to know beside the words: what the agent is saying."""
        if (
            isinstance(event, PartialHeard)
            and event.heard_by != "first"
            and self._state.phase in _ANSWERING
        ):
            event = OverlapHeard(event.at_ms, 0, event.text, heard_by=event.heard_by)
        match event:
            case OverlapHeard():
                remaining_ms = self._answerer.remaining_ms
                return replace(event, said=self._answerer.said(), remaining_ms=remaining_ms)
            case PauseTranscribed():
                wasted_share = self._answerer.speculation.wasted_share
                said = self._conductor.said_before(self._state.onset_ms)
                return replace(event, said=said, wasted_share=wasted_share)
            case _:
                return event

    def _step(self, event: Event) -> None:
        if self._tape is not None:
            self._tape.note(event)
        self._state, actions = step(self._state, event, self._rules)
        self._listener.has_floor = self._state.phase in _USERS
        if isinstance(event, SpeechPaused) and self._state.phase is Phase.ENDPOINTING:
            self._marks.restart(event.end_ms, event.at_ms)
        for action in actions:
            if isinstance(action, ReleaseAnswer):
                self._microphone.note_turn()
            self._conductor.do(action)

    def _note(self, event: Event) -> None:
        """Tell watchers what the machine does not act on, and keep the turn's marks."""
        match event:
            case PartialHeard(at_ms=at_ms, text=text, stable=stable, heard_by=heard_by):
                if self._state.phase in _USERS:
                    whole = f"{self._state.carried} {text}".strip()
                    # Where two passes listen, the first shows how a turn goes on, and the second
                    # what it was.
                    if heard_by != "second" or stable == text:
                        self._notice(
                            TranscriptNotice(at_ms, "user", whole, final=False, heard_by=heard_by)
                        )
                    # What is read while the user speaks need not be read when the turn is over;
                    # what will be rewritten would have to be read again.
                    budget = self._rules.speculation_budget
                    wasteful = self._answerer.speculation.wasted_share >= budget
                    if heard_by != "first" and not wasteful:
                        self._answerer.warm(self._history.messages(whole))
            case PauseTranscribed(at_ms=at_ms, pause=pause, heard_by=heard_by) if (
                pause == self._state.pause
            ):
                self._marks.mark("transcribed", at_ms)
                self._conductor.heard_by = heard_by
            case PauseJudged(at_ms=at_ms, pause=pause) if pause == self._state.pause:
                self._marks.mark("judged", at_ms)
            case TextJudged(at_ms=at_ms, answer=answer) if answer == self._state.answer:
                self._marks.mark("judged", at_ms)
            case AnswerFailed(at_ms=at_ms, reason=reason):
                self._notice(ErrorNotice(at_ms, reason))
            case _:
                pass

    def _mark(self, name: Mark) -> None:
        # Workers call this; a mark is one dictionary entry, set once.
        self._marks.mark(name, self.now_ms())

    def _report_later(self, error: Exception) -> None:
        message = str(error) if isinstance(error, EdgevoiceError) else repr(error)
        self._inbox.put(lambda: self._notice(ErrorNotice(self.now_ms(), message)))

    def _notice(self, notice: Notice) -> None:
        if self._tape is not None:
            self._tape.note(notice)
        if self._load is not None:
            self._load.note(notice)
        self._watch(notice)

    def _speculate(self, wanted: bool) -> None:
        """Let work be done ahead as the settings say, or not at all."""
        budget = self._settings.turns.speculation_budget if wanted else 0.0
        self._rules = replace(self._rules, speculation_budget=budget)

    def _close(self) -> None:
        self._source.stop()
        if self._state.phase in (Phase.SPEAKING, Phase.HELD):
            self._conductor.break_off(self._state.answer)
        self._answerer.close()
        self._listener.close()
        self._sink.stop()
        if self._tape is not None:
            self._tape.close()
