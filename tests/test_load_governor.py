"""A process that does less: sensors, models loaded meanwhile, what a conversation makes of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import machines
import numpy as np
import pytest
from fakes import (
    EnergyVadModel,
    HumSpeech,
    ScriptedLanguageModel,
    ScriptedLanguageModelModel,
    ScriptedRecogniserModel,
)

from edgevoice import loading
from edgevoice.audio.script import ScriptedSource
from edgevoice.audio.wav_port import WavSink, WavSource
from edgevoice.config import override
from edgevoice.devices.root import Root
from edgevoice.errors import ArtifactError, EngineError
from edgevoice.events import (
    ErrorNotice,
    LoadNotice,
    MetricsNotice,
    Notice,
    StateNotice,
    TranscriptNotice,
)
from edgevoice.frames import Float32, Int16
from edgevoice.load_governor import Cheaper, LoadGovernor, described, read_condition
from edgevoice.load_policy import LoadRules, Reading, Step, TurnFigures, rules
from edgevoice.questions import speak_questions
from edgevoice.session import Pace, Session
from edgevoice.settings import Settings
from edgevoice.stages import Cancelled, EndOfTurn, Message, Speech, never
from edgevoice.store import Store
from edgevoice.weights import Engines

RULES = LoadRules(tuple(Step), missed_turns=1, met_turns=1, calm_ms=0.0, throttled_ms=1000.0)
SLOW, QUICK = TurnFigures(response_ms=9000.0), TurnFigures(response_ms=100.0)
LONG = "One two three four five. Six seven eight nine ten eleven. Twelve thirteen."


def policy(settings: Settings) -> LoadRules:
    """The steps of ``settings``, each at once."""
    return replace(RULES, steps=rules(settings).steps)


def small_recogniser() -> ScriptedRecogniserModel:
    return ScriptedRecogniserModel(["small heard one", "small heard two"])


def small_model() -> ScriptedLanguageModelModel:
    return ScriptedLanguageModelModel({}, "Small answers.")


CHEAPER = Cheaper(small_recogniser, small_model)


@contextmanager
def governed(
    figures: LoadRules = RULES,
    cheaper: Cheaper = CHEAPER,
    read: Callable[[], Reading | None] = lambda: None,
    reading_s: float = 60.0,
    kind: type[LoadGovernor] = LoadGovernor,
) -> Iterator[LoadGovernor]:
    governor = kind(figures, cheaper, read, reading_s)
    try:
        yield governor
    finally:
        governor.close()


def until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never came to that")


def tell(governor: LoadGovernor, *turns: TurnFigures) -> None:
    """Each of these is to change something."""
    for figures in turns:
        before = governor.standing
        LoadGovernor.turn(governor, figures)
        until(lambda before=before: governor.standing is not before)  # type: ignore[misc]


# --------------------------------------------------------------------------- the governor


def test_it_takes_and_gives_back_steps_and_says_so() -> None:
    with governed() as governor:
        assert described(governor.status()) == "nothing is left out; 4 steps are possible"
        tell(governor, SLOW, SLOW)
        assert governor.standing.taken == (Step.SPECULATION, Step.ANSWERS)
        tell(governor, QUICK)
        status = governor.status()
    assert status["steps"] == ["speculation", "answers", "recognition", "language-model"]
    assert status["taken"] == ["speculation"]
    assert status["changes"] == 3
    assert [(each["direction"], each["step"]) for each in status["latest"]] == [
        *(("down", "speculation"), ("down", "answers"), ("up", "answers")),
    ]
    assert status["latest"][0]["value"] == 9000.0
    assert described(status) == (
        "answers are not begun before the turn is over (last step up: first sound after 100 ms, "
        "budget 1500; turns with room in a row: 1)"
    )


def test_what_is_switched_off_does_nothing() -> None:
    with governed(replace(RULES, steps=())) as governor:
        governor.turn(SLOW)
        status = governor.status()
    assert status == {"steps": [], "taken": [], "changes": 0, "latest": []}
    assert described(status).startswith("no steps")
    assert "edgevoice-load" not in [thread.name for thread in threading.enumerate()]


def test_a_device_that_throttles_is_heard_of() -> None:
    readings = [Reading(("throttled",), 70.0)]
    with governed(read=lambda: readings[0], reading_s=0.01) as governor:
        until(lambda: governor.standing.taken == (Step.SPECULATION,))
        (change,) = governor.status()["latest"]
        assert change["detail"] == "the device throttles: throttled"
        readings[0] = Reading()
        tell(governor, QUICK)
        assert governor.standing.taken == ()


def test_many_turns_do_not_keep_it_from_looking_at_the_device() -> None:
    with governed(read=lambda: Reading(("throttled",)), reading_s=0.2) as governor:

        def told_and_seen() -> bool:
            governor.turn(TurnFigures(response_ms=1400.0))
            return bool(governor.standing.taken)

        until(told_and_seen)  # a turn every 10 ms


def test_a_device_that_tells_nothing_is_not_asked_again() -> None:
    asked = []
    with governed(read=lambda: asked.append(1), reading_s=0.01) as governor:
        until(lambda: bool(asked))
        tell(governor, SLOW)
        time.sleep(0.1)
    assert len(asked) == 1


def test_what_is_read_of_a_raspberry_pi(tmp_path: Path) -> None:
    held = machines.raspberry_pi_5(tmp_path, "throttled=0x50005")
    assert read_condition(held) == Reading(("under-voltage", "throttled"), 61.35)
    assert read_condition(Root(tmp_path / "nowhere", lambda _: "")) is None


def test_a_model_is_loaded_while_the_old_one_is_used() -> None:
    goes_on = threading.Event()

    def load() -> ScriptedRecogniserModel:
        goes_on.wait(10.0)
        return small_recogniser()

    with governed(cheaper=Cheaper(load, small_model)) as governor:
        tell(governor, SLOW, SLOW)
        governor.turn(SLOW)
        time.sleep(0.05)
        # Nobody waits for it, and nobody is told before it is there.
        assert governor.standing.taken == (Step.SPECULATION, Step.ANSWERS)
        assert governor.standing.recogniser is None
        goes_on.set()
        until(lambda: Step.RECOGNITION in governor.standing.taken)
        assert isinstance(governor.standing.recogniser, ScriptedRecogniserModel)
        first = governor.standing.recogniser
        tell(governor, QUICK)
        assert governor.standing.recogniser is None
        tell(governor, SLOW)
        assert governor.standing.recogniser is first  # it was kept


def test_a_model_that_does_not_load_is_no_step_and_the_next_one_is_taken() -> None:
    def broken() -> ScriptedRecogniserModel:
        raise ArtifactError("tiny: its first load crashed with SIGSEGV; pull the artifact again")

    with governed(cheaper=Cheaper(broken, small_model)) as governor:
        tell(governor, SLOW, SLOW, SLOW)
        assert governor.standing.taken == (Step.SPECULATION, Step.ANSWERS)
        tell(governor, SLOW)
        status = governor.status()
    assert status["taken"] == ["speculation", "answers", "language-model"]
    assert "recognition" not in status["steps"]
    lost = status["latest"][2]
    assert (lost["direction"], lost["step"]) == ("lost", "recognition")
    assert "SIGSEGV" in lost["detail"]


def test_a_cheaper_model_that_is_missing_is_said_at_the_start(tmp_path: Path) -> None:
    settings = override(Settings(), ["load.recogniser=tiny"])
    with pytest.raises(ArtifactError, match="tiny"):
        loading.cheaper(settings, Store(tmp_path))
    alone = override(Settings(), ['recogniser.first_pass=""'])
    assert loading.cheaper(alone, Store(tmp_path)) == Cheaper()


@pytest.mark.bundle
def test_what_the_settings_name_is_loaded_when_it_is_wanted(
    artifact: Callable[[str], Path],
) -> None:
    """The same artifact by its path stands in for a smaller one."""
    path = artifact("smollm2-135m-instruct-q8_0")
    settings = override(Settings(), [f"load.language_model={path}", 'recogniser.first_pass=""'])
    found = loading.cheaper(settings, Store(artifact("silero-vad").parent))
    assert found.recogniser is None
    assert found.language_model is not None
    model = found.language_model()
    conversation = model.open()
    assert conversation.count_tokens([Message("user", "Hello.")]) > 3
    conversation.close()
    model.close()


@pytest.mark.bundle
def test_real_models_change_between_two_turns(artifact: Callable[[str], Path]) -> None:
    """The bundle's own models, by their paths, stand in for smaller ones; they are loaded anew."""
    store = Store(artifact("silero-vad").parent)
    settings = override(
        Settings(),
        [
            f"load.recogniser={artifact('whisper-tiny.en-int8')}",
            f"load.language_model={artifact('smollm2-135m-instruct-q8_0')}",
            "language_model.max_answer_tokens=6",
            # The question has the answer's words, and comes soon behind it.
            "turns.echo_similarity=1",
        ],
    )
    (question,) = speak_questions(["What is the capital of France?"])
    quiet = np.zeros(8000, np.int16)
    notices: list[Notice] = []

    def watch(notice: Notice) -> None:
        notices.append(notice)
        if isinstance(notice, MetricsNotice):
            tell(governor, *{1: [SLOW] * 3, 2: [QUICK] * 3}.get(notice.turn, []))

    spare, engines = loading.cheaper(settings, store), loading.load_engines(settings, store)
    with governed(policy(settings), spare, kind=Deaf) as governor:
        session = Session(
            engines,
            settings,
            ScriptedSource([np.r_[quiet, question.samples]] * 3, lambda: session.at_rest, "fast"),
            WavSink(None, "fast"),
            watch,
            pace=Pace.LOCK_STEP,
            governor=governor,
        )
        session.run()
    engines.close()
    assert [n.message for n in notices if isinstance(n, ErrorNotice)] == []
    assert [n.direction for n in notices if isinstance(n, LoadNotice)] == ["down"] * 3 + ["up"] * 3
    said = [n for n in notices if isinstance(n, TranscriptNotice) and n.final]
    heard = [n.text for n in said if n.role == "user"]
    assert heard == ["What is the capital of France?"] * 3
    assert len([n for n in said if n.role == "agent" and n.text]) == 3


# --------------------------------------------------------------------------- a conversation


class Talk:
    """One conversation in lock step, in which something is done between two turns."""

    def __init__(
        self,
        governor: LoadGovernor,
        *,
        turns: int = 2,
        between: Callable[[Talk], None] = lambda talk: None,
        settings: Settings | None = None,
        heard: Sequence[str] = tuple(f"usual heard {number}" for number in range(9)),
        judge: EndOfTurn | None = None,
        speech: Speech | None = None,
    ) -> None:
        self.notices: list[Notice] = []
        self._between = between
        engines = Engines(
            EnergyVadModel(),
            ScriptedRecogniserModel(heard),
            judge,
            ScriptedLanguageModelModel({}, LONG),
            speech or HumSpeech(),
        )
        parts = (np.zeros(8000), np.full(16_000, 6000), np.zeros(100_000))
        audio: Int16 = np.concatenate(parts * turns).astype(np.int16)
        self.session = Session(
            engines,
            settings or override(Settings(), ["load.answer_tokens=8"]),
            WavSource(audio, "fast", tail_s=0.0),
            WavSink(None, "fast"),
            self._note,
            pace=Pace.LOCK_STEP,
            governor=governor,
        )

    def _note(self, notice: Notice) -> None:
        self.notices.append(notice)
        if isinstance(notice, MetricsNotice) and notice.turn == 1:
            self._between(self)

    def run(self) -> Talk:
        self.session.run()
        return self

    def texts(self, role: str) -> list[str]:
        found = [n for n in self.notices if isinstance(n, TranscriptNotice) and n.final]
        return [notice.text for notice in found if notice.role == role]

    def load_notices(self) -> list[LoadNotice]:
        return [notice for notice in self.notices if isinstance(notice, LoadNotice)]

    def spans_ms(self) -> list[dict[str, float]]:
        return [n.spans_ms for n in self.notices if isinstance(n, MetricsNotice)]


class Deaf(LoadGovernor):
    """Is told nothing by the conversation: the test tells it."""

    def turn(self, figures: TurnFigures) -> None:
        pass


def test_each_step_is_told_and_felt() -> None:
    def all_steps(talk: Talk) -> None:
        tell(governor, SLOW, SLOW, SLOW, SLOW)

    with governed(kind=Deaf) as governor:
        talk = Talk(governor, between=all_steps).run()
    assert [(n.direction, n.step, n.taken) for n in talk.load_notices()][-1] == (
        *("down", "language-model"),
        ("speculation", "answers", "recognition", "language-model"),
    )
    assert [n.step for n in talk.load_notices()] == [str(each) for each in Step]
    before, after = talk.spans_ms()
    # The answer was begun ahead; now it is not.
    assert before["first_token"] < before["endpoint"] <= after["first_token"]
    assert talk.texts("user") == ["usual heard 0", "small heard one"]
    assert talk.texts("agent") == [LONG, "Small answers."]
    # What was said before is not forgotten with the model that heard it.
    assert [turn.content for turn in talk.session.history.turns] == [
        *("usual heard 0", LONG, "small heard one", "Small answers."),
    ]


def test_a_shorter_answer_ends_with_a_sentence() -> None:
    with governed(kind=Deaf) as governor:
        tell(governor, SLOW, SLOW)
        talk = Talk(governor, turns=1).run()
    assert talk.texts("agent") == ["One two three four five."]


def test_an_answer_without_an_early_sentence_is_cut() -> None:
    with governed(kind=Deaf) as governor:
        tell(governor, SLOW, SLOW)
        settings = override(Settings(), ["load.answer_tokens=3"])
        talk = Talk(governor, turns=1, settings=settings).run()
    assert talk.texts("agent") == ["One two three"]


def test_what_was_left_out_comes_back() -> None:
    def back(talk: Talk) -> None:
        tell(governor, QUICK, QUICK, QUICK, QUICK)

    with governed(kind=Deaf) as governor:
        tell(governor, SLOW, SLOW, SLOW, SLOW)
        talk = Talk(governor, between=back).run()
    assert talk.texts("user")[0] == "small heard one"
    assert talk.texts("user")[1].startswith("usual heard")
    assert talk.texts("agent") == ["Small answers.", LONG]
    _, last = talk.spans_ms()
    assert last["first_token"] < last["endpoint"]
    # A conversation that begins under load is told why.
    assert [n.direction for n in talk.load_notices()] == ["down"] * 4 + ["up"] * 4
    assert isinstance(talk.notices[0], StateNotice)


def test_a_model_that_cannot_be_opened_leaves_the_conversation_as_it_was() -> None:
    class Full(ScriptedLanguageModelModel):
        def open(self) -> ScriptedLanguageModel:
            raise EngineError("llama.cpp makes no context: out of memory")

    def all_steps(talk: Talk) -> None:
        tell(governor, SLOW, SLOW, SLOW, SLOW)

    settings = override(Settings(), ["load.answer_tokens=60"])
    cheaper = Cheaper(small_recogniser, lambda: Full({}))
    with governed(cheaper=cheaper, kind=Deaf) as governor:
        talk = Talk(governor, between=all_steps, settings=settings).run()
    errors = [notice.message for notice in talk.notices if isinstance(notice, ErrorNotice)]
    assert errors == ["llama.cpp makes no context: out of memory"]
    assert talk.texts("agent") == [LONG, LONG]


class Told(LoadGovernor):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(replace(RULES, steps=()))
        self.turns: list[TurnFigures] = []

    def turn(self, figures: TurnFigures) -> None:
        self.turns.append(figures)


@pytest.mark.parametrize("probability", [0.9, 0.0])
def test_a_wait_that_was_meant_is_no_load(probability: float) -> None:
    class Judge:
        def probability(self, samples: Float32) -> float:
            return probability

    governor = Told()
    heard = ("what is this",) if probability else ("tell me of the",)
    talk = Talk(governor, turns=1, heard=heard, judge=Judge()).run()
    (spans_ms,) = talk.spans_ms()
    (turn,) = governor.turns
    assert (spans_ms["first_sound"] > 1000) == (probability == 0.0)
    assert turn.response_ms is not None
    assert 100 < turn.response_ms < 300


def test_a_turn_that_nobody_heard_tells_nothing_of_its_sound() -> None:
    class Mute(HumSpeech):
        def synthesise(self, text: str, cancelled: Cancelled = never) -> Iterator[Float32]:
            return iter(())

    governor = Told()
    Talk(governor, turns=1, speech=Mute()).run()
    assert governor.turns == [TurnFigures(None, governor.turns[0].recognition_rtf, None)]
