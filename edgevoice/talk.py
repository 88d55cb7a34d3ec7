"""Holds one conversation from the command line: with the microphone, or with recorded questions.

Owns putting ports, session, recorder and watchers together and what the conversation came to.
What is printed is :mod:`edgevoice.console`'s business, the page :mod:`edgevoice.report`'s.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from edgevoice import host
from edgevoice.audio.ports import open_ports
from edgevoice.audio.script import ScriptedSource
from edgevoice.audio.wav_port import WavSink
from edgevoice.errors import AudioError
from edgevoice.events import Notice, StateNotice, TranscriptNotice
from edgevoice.exchanges import Exchange, ExchangeLog
from edgevoice.load_governor import LoadGovernor
from edgevoice.questions import SpokenQuestion
from edgevoice.recording import Recorder, SessionRecord
from edgevoice.session import Pace, Session
from edgevoice.settings import Settings
from edgevoice.stages import EchoCanceller, Sink, Source
from edgevoice.tapes import Tapes
from edgevoice.weights import Engines

Watch = Callable[[Notice], None]


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a conversation came to.

    Attributes:
        exchanges: Every turn.
        answered: For each recorded question, whether any of an answer to it was heard.
        record: Both voices and all notices.
        cold_start_ms: From the start of the process to the first frame that was listened to.
        dropped_frames: Frames of 10 ms that the microphone gave and nobody read in time.
        failure: What ended the conversation before its time, if anything did.
    """

    exchanges: tuple[Exchange, ...]
    answered: tuple[bool, ...]
    record: SessionRecord
    cold_start_ms: float
    dropped_frames: int
    failure: AudioError | None


class _Watchers:
    """What every notice goes to, and what this module itself wants to know."""

    def __init__(self, recorder: Recorder, log: ExchangeLog, watch: Watch) -> None:
        self._all: tuple[Watch, ...] = (recorder.watch, log.watch, watch)
        self.cold_start_ms = 0.0

    def __call__(self, notice: Notice) -> None:
        if isinstance(notice, StateNotice) and not self.cold_start_ms:
            self.cold_start_ms = host.process_age_ms()
        for watch in self._all:
            watch(notice)


def with_microphone(
    engines: Engines,
    settings: Settings,
    canceller: EchoCanceller | None,
    watch: Watch,
    tapes: Tapes | None = None,
    *,
    governor: LoadGovernor | None = None,
) -> Conversation:
    """Talk until SIGINT or SIGTERM; ``tapes`` keeps a recording, if given.

    Raises:
        AudioError: There is no microphone or speaker. A device that is lost later is a
            ``failure``.
    """
    recorder, log = Recorder(), ExchangeLog()
    watchers = _Watchers(recorder, log, watch)
    source, sink = recorder.real_time_ports(*open_ports(settings.audio))
    session = Session(
        engines,
        settings,
        source,
        sink,
        watchers,
        echo_canceller=canceller,
        tape=tapes.begin(canceller) if tapes is not None else None,
        governor=governor,
    )
    failure = _run(session)
    return Conversation(
        log.exchanges, (), recorder.record(), watchers.cold_start_ms, source.dropped_frames, failure
    )


def with_questions(
    engines: Engines,
    settings: Settings,
    canceller: EchoCanceller | None,
    questions: Sequence[SpokenQuestion],
    watch: Watch,
    *,
    pace: Pace,
    tapes: Tapes | None = None,
    governor: LoadGovernor | None = None,
) -> Conversation:
    """Ask ``questions`` one after another, each when the last has been answered."""
    recorder, log = Recorder(), ExchangeLog()
    watchers = _Watchers(recorder, log, watch)
    session: Session | None = None
    script = ScriptedSource(
        [question.samples for question in questions],
        lambda: session is not None and session.at_rest,
        "fast" if pace is Pace.LOCK_STEP else "realtime",
    )
    answered = [False] * len(questions)

    def note_answer(notice: Notice) -> None:
        watchers(notice)
        if isinstance(notice, TranscriptNotice) and notice.role == "agent" and notice.final:
            answered[script.asked - 1] = True

    source, sink = _recorded(recorder, script, pace)
    session = Session(
        engines,
        settings,
        source,
        sink,
        note_answer,
        pace=pace,
        echo_canceller=canceller,
        tape=tapes.begin(canceller) if tapes is not None else None,
        governor=governor,
    )
    failure = _run(session)
    return Conversation(
        log.exchanges,
        tuple(answered),
        recorder.record(),
        watchers.cold_start_ms,
        source.dropped_frames,
        failure,
    )


def _run(session: Session) -> AudioError | None:
    with _ended_by_signals(session.stop):
        try:
            session.run()
        except AudioError as error:
            return error
    return None


def _recorded(recorder: Recorder, source: Source, pace: Pace) -> tuple[Source, Sink]:
    if pace is Pace.LOCK_STEP:
        return recorder.lock_step_ports(source, WavSink(None, "fast"))
    return recorder.real_time_ports(source, WavSink(None, "realtime"))


@contextmanager
def _ended_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Let the first SIGINT or SIGTERM end the conversation, and the second the process."""
    before = {int(n): signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}

    def end(number: int, frame: FrameType | None) -> None:
        del frame
        signal.signal(number, before[number])
        stop()

    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
