"""Two recognisers as one: whose text it is, whatever comes when."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from edgevoice.engines.bounded_wait import BoundedRecogniser
from edgevoice.engines.two_passes import TwoPassModel
from edgevoice.errors import EngineError
from edgevoice.events import Event, OverlapHeard, PartialHeard, PauseTranscribed
from edgevoice.frames import Float32, samples_to_ms
from edgevoice.listening import Listener
from edgevoice.stages import Expected, Transcript

WAIT_MS = 300.0


class Scripted:
    """A pass that says what it is told to, with what it was given behind it."""

    def __init__(self, says: str = "") -> None:
        self.says = says
        self.opened = 0
        self.accepted = 0
        self.concluded = 0
        self.growing: Transcript | None = None
        self.over = False
        self.fails: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()

    def open(self) -> Pass:
        self.opened += 1
        return Pass(self)

    def close(self) -> None:
        self.says = "closed"


class Pass:
    """One stream of a :class:`Scripted`."""

    def __init__(self, script: Scripted) -> None:
        self._script = script
        self._samples = 0

    def accept(self, samples: Float32) -> None:
        self._script.accepted += samples.size
        self._samples += samples.size

    def partial(self) -> Transcript | None:
        return self._script.growing

    def conclude(self, expected: Expected = "turn") -> Transcript:
        self._script.concluded += 1
        # What was said when it was asked, however late the answer comes.
        says, heard_ms = self._script.says, samples_to_ms(self._samples)
        self._script.gate.wait(10)
        if self._script.fails is not None:
            raise self._script.fails
        return Transcript(says, says, heard_ms)

    def draft(self) -> None: ...

    def glance(self) -> Transcript:
        return self.conclude()

    def endpoint(self) -> bool:
        return self._script.over

    def reset(self) -> None:
        self._samples = 0


class Passes:
    def __init__(self) -> None:
        self.first = Scripted("what is ther")
        self.second = Scripted("What is there?")
        self.model = TwoPassModel(self.first, self.second, WAIT_MS)
        self.both = self.model.open()


@pytest.fixture
def passes() -> Iterator[Passes]:
    made = Passes()
    yield made
    made.second.gate.set()


def sound(milliseconds: int) -> Float32:
    return np.full(milliseconds * 16, 0.1, np.float32)


def test_the_first_hears_along_and_the_second_writes(passes: Passes) -> None:
    passes.both.accept(sound(500))
    assert passes.both.partial() is None
    passes.first.growing = Transcript("what", "", 500.0)
    assert passes.both.partial() == Transcript("what", "", 500.0, "first")
    assert passes.second.concluded == 0
    found = passes.both.conclude()
    assert found == Transcript("What is there?", "What is there?", 500.0, "second")
    assert passes.first.concluded == 0  # nobody needs its word


def test_what_the_second_makes_of_a_long_turn_comes_before_the_firsts_words(passes: Passes) -> None:
    passes.first.growing = Transcript("what is")
    passes.second.growing = Transcript("What is", "What")
    passes.both.accept(sound(100))
    assert passes.both.partial() == Transcript("What is", "What", 0.0, "second")


def test_what_has_no_words_is_not_rewritten(passes: Passes) -> None:
    """A keyboard over the agent, of which Whisper would make a sentence."""
    passes.second.growing = Transcript("I'm not sure what to do")
    passes.both.accept(sound(1000))
    assert passes.both.partial() is None


def test_a_late_second_leaves_the_first_its_word(passes: Passes) -> None:
    passes.both.accept(sound(500))
    passes.second.gate.clear()
    begun = time.monotonic()
    found = passes.both.conclude()
    assert (found.text, found.heard_by, found.trouble) == ("what is ther", "first", "")
    assert time.monotonic() - begun < 5.0


def test_one_that_is_still_at_it_is_not_asked_to_do_more_meanwhile(passes: Passes) -> None:
    passes.both.accept(sound(500))
    passes.second.gate.clear()
    passes.both.conclude()
    passes.second.growing = Transcript("never seen")
    passes.first.growing = Transcript("what is there and")
    passes.both.accept(sound(500))
    partial = passes.both.partial()
    assert partial is not None and partial.heard_by == "first"
    assert passes.both.conclude().heard_by == "first"
    assert passes.second.concluded == 1
    passes.second.gate.set()
    found = passes.both.conclude()
    assert (found.heard_by, found.audio_ms) == ("second", 1000.0)  # nothing is lost meanwhile


def test_one_that_was_late_does_not_look_ahead(passes: Passes) -> None:
    """Until it has been in time: its decodes would hold up the first pass."""
    passes.first.growing = Transcript("what is")
    passes.second.growing = Transcript("What is")
    passes.second.gate.clear()
    passes.both.conclude()
    passes.second.gate.set()
    time.sleep(0.02)
    partial = passes.both.partial()
    assert partial is not None and partial.heard_by == "first"
    assert passes.both.conclude().heard_by == "second"
    partial = passes.both.partial()
    assert partial is not None and partial.heard_by == "second"


def test_what_a_late_one_heard_belongs_to_no_later_utterance(passes: Passes) -> None:
    passes.both.accept(sound(500))
    passes.second.gate.clear()
    passes.both.conclude()
    passes.both.reset()
    passes.both.accept(sound(300))
    passes.second.says = "Stop."
    passes.second.gate.set()
    found = passes.both.conclude()
    assert (found.text, found.audio_ms, found.heard_by) == ("Stop.", 300.0, "second")
    assert passes.second.opened == 2


def test_a_failing_second_leaves_the_first_its_word_and_says_so(passes: Passes) -> None:
    passes.second.fails = EngineError("no such tensor")
    passes.both.accept(sound(500))
    found = passes.both.conclude()
    assert (found.text, found.heard_by) == ("what is ther", "first")
    assert found.trouble == ("the second pass failed, the first pass's words stand: no such tensor")
    passes.second.fails = None
    assert passes.both.conclude().heard_by == "second"


def test_a_first_that_hears_nothing_leaves_the_second_its_word(passes: Passes) -> None:
    passes.first.says = ""
    passes.both.accept(sound(500))
    assert passes.both.conclude().text == "What is there?"


def test_where_the_second_hears_no_words_there_are_none(passes: Passes) -> None:
    """A hum, of which the first makes letters; the second's guard knows better."""
    passes.second.says = ""
    passes.both.accept(sound(500))
    found = passes.both.conclude()
    assert (found.text, found.heard_by) == ("", "second")


def test_a_glance_at_sound_without_words_costs_no_decode(passes: Passes) -> None:
    passes.first.says = ""
    for _ in range(9):
        passes.both.accept(sound(100))
        assert passes.both.glance() == replace_text(passes.both.glance(), "")
    assert passes.second.concluded == 0
    passes.both.accept(sound(200))
    assert passes.both.glance().text == "What is there?"  # it may be deaf to this voice
    passes.both.accept(sound(500))
    assert passes.both.glance().text == ""
    assert passes.second.concluded == 1


def test_words_over_the_agent_are_the_seconds(passes: Passes) -> None:
    for _ in range(3):
        passes.both.accept(sound(320))
        assert passes.both.glance().heard_by == "second"
    assert passes.first.concluded == 1  # that there are words is known
    passes.both.reset()
    passes.first.says = ""
    passes.both.accept(sound(320))
    assert passes.both.glance().heard_by == "first"


def replace_text(heard: Transcript, text: str) -> Transcript:
    return Transcript(text, text, heard.audio_ms, "first")


def test_an_endpoint_counts_when_the_second_hears_no_more_words_either(passes: Passes) -> None:
    passes.both.accept(sound(2000))
    assert not passes.both.endpoint()
    passes.first.over = True
    assert not passes.both.endpoint()  # it is looked at for the first time
    passes.both.accept(sound(300))
    assert not passes.both.endpoint()
    assert passes.second.concluded == 1
    passes.second.says = "What is there, and who?"  # the first is deaf to it
    passes.both.accept(sound(300))
    assert not passes.both.endpoint()
    passes.both.accept(sound(600))
    assert passes.both.endpoint()


def test_an_endpoint_where_nobody_hears_words_counts_at_once(passes: Passes) -> None:
    passes.first.over = True
    passes.second.says = ""
    passes.both.accept(sound(2500))
    assert passes.both.endpoint()


def test_without_a_bound_it_is_waited_for() -> None:
    script = Scripted("late")
    script.gate.clear()
    recogniser = BoundedRecogniser(script, None)
    recogniser.accept(sound(100))
    threading.Timer(0.1, script.gate.set).start()
    assert recogniser.conclude() == Transcript("late", "late", 100.0)


def test_a_draft_is_the_firsts(passes: Passes) -> None:
    passes.both.accept(sound(500))
    assert passes.both.draft() == Transcript("what is ther", "what is ther", 500.0, "first")
    assert passes.second.concluded == 0


def test_closing_frees_both(passes: Passes) -> None:
    passes.model.close()
    assert (passes.first.says, passes.second.says) == ("closed", "closed")


class Bench:
    """A listener whose recogniser has two passes."""

    def __init__(self, passes: Passes) -> None:
        self.events: list[Event] = []
        self.errors: list[Exception] = []
        self.listener = Listener(
            passes.both, None, self.events.append, lambda: 0.0, self.errors.append
        )

    def settle(self) -> None:
        for _ in range(5000):
            if self.listener.idle:
                return
            time.sleep(0.002)
        raise AssertionError("the listener never came to rest")

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def bench(passes: Passes) -> Iterator[Bench]:
    made = Bench(passes)
    yield made
    passes.second.gate.set()
    made.listener.close()


def say(bench: Bench, milliseconds: int) -> None:
    for _ in range(milliseconds // 100):
        bench.listener.feed(sound(100))


def test_events_say_whose_words_they_are(passes: Passes, bench: Bench) -> None:
    bench.listener.has_floor = True
    passes.first.growing = Transcript("what is")
    bench.listener.speech_started(0, sound(300))
    say(bench, 500)
    bench.settle()
    bench.listener.note_quiet(True)
    bench.listener.transcribe_pause(1)
    bench.settle()
    heard = [(e.text, e.heard_by) for e in bench.of(PartialHeard) if isinstance(e, PartialHeard)]
    assert heard[0] == ("what is", "first")
    assert heard[-1] == ("What is there?", "second")
    (pause,) = bench.of(PauseTranscribed)
    assert pause == PauseTranscribed(0.0, 1, "What is there?", heard_by="second")
    assert passes.second.concluded == 1  # as soon as it was quiet, and no second time


def test_a_second_pass_that_fails_is_told_and_the_turn_goes_on(
    passes: Passes, bench: Bench
) -> None:
    passes.second.fails = RuntimeError("bad alloc")
    bench.listener.speech_started(0, sound(500))
    bench.listener.transcribe_pause(1)
    bench.settle()
    (pause,) = bench.of(PauseTranscribed)
    assert pause == PauseTranscribed(0.0, 1, "what is ther", heard_by="first")
    assert "bad alloc" in str(bench.errors[0])


def test_speech_that_goes_on_cancels_what_was_asked_of_the_second_pass(
    passes: Passes, bench: Bench
) -> None:
    """Two pauses while it is busy: the first one's text is nobody's, and is not decoded."""
    passes.first.gate.clear()  # both pauses wait in the inbox behind it
    passes.second.gate.clear()
    bench.listener.speech_started(0, sound(300))
    bench.listener.transcribe_pause(1)
    wait_for(lambda: passes.second.concluded)  # it runs, and is late
    bench.listener.note_quiet(True)
    bench.listener.note_quiet(False)
    say(bench, 300)
    bench.listener.transcribe_pause(2)
    say(bench, 300)
    bench.listener.transcribe_pause(3)
    passes.first.gate.set()
    passes.second.gate.set()
    bench.settle()
    told = [(e.pause, e.heard_by) for e in bench.events if isinstance(e, PauseTranscribed)]
    assert told[-1] == (3, "second")
    assert 2 not in [pause for pause, _ in told]


def test_an_interruption_that_comes_while_the_second_pass_is_late(
    passes: Passes, bench: Bench
) -> None:
    """A turn was answered with the first pass's words; speech over the answer is heard anew."""
    bench.listener.speech_started(0, sound(500))
    passes.second.gate.clear()
    bench.listener.transcribe_pause(1)
    wait_for(lambda: bench.of(PauseTranscribed))
    bench.listener.forget(600)
    bench.listener.speech_started(2000, sound(400))
    bench.listener.transcribe_overlap(1)
    wait_for(lambda: bench.of(OverlapHeard))
    (over,) = bench.of(OverlapHeard)
    assert over == OverlapHeard(0.0, 1, "what is ther", heard_by="first")
    passes.second.says = "Stop it."
    passes.second.gate.set()
    bench.listener.transcribe_overlap(2)
    bench.settle()
    assert bench.of(OverlapHeard)[-1] == OverlapHeard(0.0, 2, "Stop it.", heard_by="second")


def test_the_end_of_speech_over_the_agent_is_the_seconds_to_judge(
    passes: Passes, bench: Bench
) -> None:
    """While it goes on, the first pass's silence is enough; what it is in the end is not."""
    passes.first.says = ""
    bench.listener.speech_started(0, sound(400))
    bench.listener.transcribe_overlap(1)
    bench.settle()
    bench.listener.note_quiet(True)
    bench.listener.transcribe_overlap(2)
    bench.settle()
    assert [e.text for e in bench.events if isinstance(e, OverlapHeard)] == ["", "What is there?"]


def wait_for(there: Callable[[], object]) -> None:
    for _ in range(2500):
        if there():
            return
        time.sleep(0.002)
    raise AssertionError("it never came")
