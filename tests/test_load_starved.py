"""The default bundle on a core that others take away: it does less, and later all of it again.

What is asserted is the policy's doing, never a time: the budget is what the same bundle took, on
the same core, before anybody took it away.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from edgevoice.audio.script import ScriptedSource
from edgevoice.audio.wav_port import WavSink
from edgevoice.config import override
from edgevoice.events import ErrorNotice, LoadNotice, MetricsNotice, Notice
from edgevoice.frames import Int16
from edgevoice.load_governor import LoadGovernor, described
from edgevoice.load_policy import rules
from edgevoice.loading import load_engines
from edgevoice.profiler.second_load import busy
from edgevoice.questions import speak_questions
from edgevoice.session import Session
from edgevoice.settings import Settings
from edgevoice.store import Store
from edgevoice.weights import Engines

AT_ONCE = 5
MOST = 25
PATIENCE_TURNS = 8


@contextmanager
def on_one_core() -> Iterator[int]:
    """Keep this thread, and those that it starts, on one core."""
    allowed = os.sched_getaffinity(0)
    core = max(allowed)
    os.sched_setaffinity(0, {core})
    try:
        yield core
    finally:
        os.sched_setaffinity(0, allowed)


class Competition:
    """Others that count on ``core``. On a machine that is busy anyway it takes more of them."""

    def __init__(self, core: int) -> None:
        self._core = core
        self._count = 0
        self._others = ExitStack()

    def grow(self) -> None:
        if self._count < MOST:
            self._count += AT_ONCE
            for process in self._others.enter_context(busy(AT_ONCE)):
                os.sched_setaffinity(process, {self._core})

    def end(self) -> None:
        self._others.close()


class Conversation:
    """Asks the same question over and over, in real time, until somebody has heard enough."""

    def __init__(
        self,
        engines: Engines,
        settings: Settings,
        question: Int16,
        governor: LoadGovernor | None = None,
        watch: Callable[[Conversation, Notice], None] = lambda talk, notice: None,
    ) -> None:
        self.responses_ms: list[float] = []
        self.notices: list[Notice] = []
        self._watch = watch
        source = ScriptedSource([question] * 50, lambda: self.session.at_rest)
        self.session = Session(
            engines,
            settings,
            source,
            WavSink(None, "realtime"),
            self._note,
            governor=governor,
        )

    def _note(self, notice: Notice) -> None:
        self.notices.append(notice)
        if isinstance(notice, MetricsNotice) and "first_sound" in notice.spans_ms:
            self.responses_ms.append(notice.spans_ms["first_sound"])
        self._watch(self, notice)

    def run(self) -> Conversation:
        self.session.run()
        return self


@pytest.mark.bundle
@pytest.mark.timeout(300)
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cannot keep to one core here")
def test_it_steps_down_while_starved_and_up_again(artifact: Callable[[str], Path]) -> None:
    store = Store(artifact("silero-vad").parent)
    (spoken,) = speak_questions(["What is the capital of France?"])
    settings = override(
        Settings(),
        [
            *("language_model.max_answer_tokens=10", "load.answer_tokens=6"),
            # The question has the answer's words, and comes soon behind it.
            "turns.echo_similarity=1",
        ],
    )
    with on_one_core() as core:
        engines = load_engines(settings, store)
        try:
            usual_ms = unstarved(engines, settings, spoken.samples)
            taken, given_back = starved(engines, settings, spoken.samples, 2 * usual_ms, core)
        finally:
            engines.close()
    assert [(notice.direction, notice.step) for notice in (taken, given_back)] == [
        ("down", "speculation"),
        ("up", "speculation"),
    ]
    assert taken.value > taken.bound
    assert given_back.value < given_back.bound
    assert "turns over budget in a row: 2" in taken.detail


def unstarved(engines: Engines, settings: Settings, question: Int16) -> float:
    """Return what a turn takes, the median of three."""

    def enough(talk: Conversation, notice: Notice) -> None:
        if len(talk.responses_ms) == 3:
            talk.session.stop()

    return sorted(Conversation(engines, settings, question, watch=enough).run().responses_ms)[1]


def starved(
    engines: Engines, settings: Settings, question: Int16, budget_ms: float, core: int
) -> tuple[LoadNotice, LoadNotice]:
    """Take the core away until a step down is told, then give it back until a step up is."""
    settings = override(
        settings,
        [
            f"load.response_budget_ms={budget_ms}",
            *("load.recognition_budget_rtf=100", "load.gap_budget_ms=60000"),
            *("load.missed_turns=2", "load.met_turns=2", "load.room=1", "load.calm_s=0"),
        ],
    )
    # Nothing but the core is to be judged: what this machine's sensors say is none of the test's.
    governor = LoadGovernor(rules(settings), read=lambda: None)
    changes: list[LoadNotice] = []
    told: list[str] = []
    competition = Competition(core)
    competition.grow()
    turns = itertools.count(1)

    def watch(talk: Conversation, notice: Notice) -> None:
        if isinstance(notice, LoadNotice):
            changes.append(notice)
            told.append(described(governor.status()))
            competition.end()
            if len(changes) == 2:
                talk.session.stop()
        if isinstance(notice, MetricsNotice):
            if next(turns) >= PATIENCE_TURNS * (1 + 2 * len(changes)):
                talk.session.stop()
            elif not changes:
                competition.grow()

    try:
        talk = Conversation(engines, settings, question, governor, watch).run()
    finally:
        competition.end()
    status = governor.status()
    governor.close()
    seen = f"budget {budget_ms:.0f}, first sounds {talk.responses_ms}"
    assert not [notice for notice in talk.notices if isinstance(notice, ErrorNotice)]
    assert len(changes) == 2, f"{len(changes)} changes; {seen}"
    assert told[0].startswith("answers are not begun before the turn is over (last step down: ")
    assert (status["steps"], status["taken"]) == (["speculation", "answers", "recognition"], [])
    assert [change["direction"] for change in status["latest"]] == ["down", "up"]
    return changes[0], changes[1]
