"""A language for conversations on a virtual clock, and the world that plays them to the machine.

A script is lines of text. Times are milliseconds: a number, or ``t1+300`` (300 after the first
turn was released), ``a1+300`` (after the first answer's first sound), ``e1-100`` (before the end
that the first answer would have without interruptions)::

    answer "Paris is the capital"       the next answer's words, 250 ms each; "" has no sound
    user 0 1200 "what is it" p=0.9      speech: begin, length, words; p of the end-of-turn model
                                        (ending=0.01 as well: the language model's)
    noise a1+500 200                    sound without words (also: margin=-3 voice=0.1)
    set max_hold_ms 1000                a figure of the rules
    world recogniser_ms 5000            a figure of the world: its delays
    at a1+900 held                      the phase then; `ducked`, `silent`, `sounding` as well
    user: what is it                    the history at the end, turn by turn
    agent: Paris is                     a turn cut off ends in --
    has interrupted 2                   a decision was taken (so many times)
    hasnt resumed                       and this one never

Every run also checks what must hold always: see :meth:`World.check`.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field

from edgevoice.events import (
    Action,
    Announce,
    AnswerFailed,
    AnswerFinished,
    AnswerSounded,
    CompleteAnswer,
    DropAnswer,
    DuckAnswer,
    Event,
    ForgetUtterance,
    HoldAnswer,
    InterruptAnswer,
    JudgePause,
    OverlapHeard,
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
    TextJudged,
    TimerFired,
    TranscribeOverlap,
    TranscribePause,
)
from edgevoice.turns import Phase, Rules, TurnState, step

TICK_MS = 4.0
WORD_MS = 250.0
WINDOW_MS = 32.0
_ANSWERING = (Phase.THINKING, Phase.SPEAKING, Phase.HELD)


@dataclass
class Sound:
    """What a microphone hears: speech with words, or noise without."""

    begin_ms: float
    length_ms: float
    words: list[str]
    probability: float = 0.95
    ending: float | None = None
    margin_db: float | None = None
    voice: float | None = None

    @property
    def end_ms(self) -> float:
        return self.begin_ms + self.length_ms

    def heard_by(self, at_ms: float) -> list[str]:
        share = min(1.0, max(0.0, (at_ms - self.begin_ms) / self.length_ms))
        return self.words[: round(share * len(self.words))]


@dataclass
class Delays:
    """How long the world's models take. Infinity is a model that never answers."""

    recogniser_ms: float = 120.0
    judge_ms: float = 40.0
    think_ms: float = 300.0
    fails: float = 0  # this many answers fail while they are made
    streaming: float = 0  # 1: the recogniser gives partials every 100 ms


@dataclass
class Speaking:
    """One answer on its way to, or at, the speaker."""

    number: int
    words: list[str]
    ready_ms: float
    released: bool = False
    sounded_ms: float | None = None
    held: bool = False
    gain: float = 1.0
    position_ms: float = 0.0
    furthest_ms: float = 0.0
    over: bool = False

    @property
    def length_ms(self) -> float:
        return WORD_MS * len(self.words)

    def heard(self) -> list[str]:
        return self.words[: int(self.furthest_ms // WORD_MS)]


@dataclass
class World:
    """Microphone, models and speaker on one virtual clock, with the machine in the middle."""

    rules: Rules = field(default_factory=Rules)
    delays: Delays = field(default_factory=Delays)
    answers: list[str] = field(default_factory=list)
    state: TurnState = field(default_factory=TurnState)
    now_ms: float = 0.0
    decisions: list[str] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    history: list[tuple[str, str]] = field(default_factory=list)
    current: Speaking | None = None
    anchors: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    utterance: list[Sound] = field(default_factory=list)
    played: list[tuple[int, list[str], bool]] = field(default_factory=list)
    said: str = ""
    said_ms: float = float("-inf")
    wasted_share: float = 0.0
    _timer: StartTimer | None = None
    _queue: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _order: itertools.count[int] = field(default_factory=itertools.count)
    _waiting: list[tuple[str, float, Callable[[float], None]]] = field(default_factory=list)
    _turns: int = 0
    _sounded: int = 0
    _released_text: str = ""

    # ------------------------------------------------------------ what the script says

    def later(self, at_ms: float, do: Callable[[], None]) -> None:
        if at_ms < float("inf"):
            heapq.heappush(self._queue, (at_ms, next(self._order), do))

    def when(self, time: str, do: Callable[[float], None]) -> None:
        """Do something at a time that may be counted from an anchor not reached yet."""
        found = re.fullmatch(r"([tae]\d+)?([+-]?\d+)?", time)
        if not found:
            raise ValueError(f"no time: {time!r}")
        anchor, offset = found[1], float(found[2] or 0)
        if anchor is None or anchor in self.anchors:
            at_ms = self.anchors.get(anchor or "", 0.0) + offset
            self.later(at_ms, lambda: do(at_ms))
        else:
            self._waiting.append((anchor, offset, do))

    def hear(self, sound: Sound) -> None:
        """Let the VAD and the recogniser hear ``sound``, which begins now."""
        begin_ms, end_ms = sound.begin_ms, sound.end_ms
        margin, voice = sound.margin_db, sound.voice

        def windows() -> None:
            self.send(SpeechSuspected(self.now_ms, begin_ms, margin))

        self.later(begin_ms + WINDOW_MS, windows)
        if sound.length_ms < 2 * WINDOW_MS:
            self.later(end_ms + 2 * WINDOW_MS, lambda: self.send(SpeechDismissed(self.now_ms)))
            return

        def started() -> None:
            self.utterance.append(sound)
            self.send(SpeechStarted(self.now_ms, begin_ms, margin))

        def continued() -> None:
            length_ms = self.now_ms - begin_ms
            self.send(SpeechContinued(self.now_ms, length_ms, margin, voice))

        def partial() -> None:
            if self.state.phase in _ANSWERING and sound in self.utterance:
                self.overlap_heard(0, self.text(self.now_ms))

        self.later(begin_ms + 2 * WINDOW_MS, started)
        at_ms = begin_ms + 3 * WINDOW_MS
        while at_ms <= end_ms:
            self.later(at_ms, continued)
            at_ms += WINDOW_MS
        if self.delays.streaming:
            at_ms = begin_ms + 200.0
            while at_ms <= end_ms + 100.0:
                self.later(at_ms, partial)
                at_ms += 100.0
        self.later(end_ms + 2 * WINDOW_MS, lambda: self.send(SpeechPaused(self.now_ms, end_ms)))

    def text(self, at_ms: float) -> str:
        return " ".join(word for sound in self.utterance for word in sound.heard_by(at_ms))

    # ------------------------------------------------------------ the clock

    def run(self, until_ms: float) -> None:
        while self.now_ms < until_ms:
            self.now_ms += TICK_MS
            while self._queue and self._queue[0][0] <= self.now_ms:
                heapq.heappop(self._queue)[2]()
            if self._timer is not None and self._timer.due_ms <= self.now_ms:
                due, self._timer = self._timer, None
                self.send(TimerFired(self.now_ms, due.timer))
            self._play()

    def _play(self) -> None:
        answer = self.current
        if answer is None or answer.over or not answer.released or self.now_ms < answer.ready_ms:
            return
        if not answer.held and answer.position_ms < answer.length_ms:
            answer.position_ms += TICK_MS
            answer.furthest_ms = max(answer.furthest_ms, answer.position_ms)
            if self.state.phase not in _ANSWERING:
                self.problems.append(f"{self.now_ms}: the agent speaks in {self.state.phase}")
            if answer.sounded_ms is None:
                answer.sounded_ms = self.now_ms
                self._sounded += 1
                self._anchor(f"a{self._sounded}", self.now_ms)
                self._anchor(f"e{self._sounded}", self.now_ms + answer.length_ms)
                self.send(AnswerSounded(self.now_ms, answer.number))
        if answer is self.current and answer.position_ms >= answer.length_ms:
            answer.over = True
            self.send(AnswerFinished(self.now_ms, answer.number))

    def _anchor(self, name: str, at_ms: float) -> None:
        self.anchors.setdefault(name, at_ms)
        waiting, self._waiting = self._waiting, []
        for anchor, offset, do in waiting:
            if anchor == name:
                due_ms = at_ms + offset
                self.later(due_ms, lambda do=do, due_ms=due_ms: do(due_ms))  # type: ignore[misc]
            else:
                self._waiting.append((anchor, offset, do))

    # ------------------------------------------------------------ the machine's hands

    def send(self, event: Event) -> None:
        self.state, actions = step(self.state, event, self.rules)
        for action in actions:
            self.actions.append(action)
            self._do(action)

    def overlap_heard(self, probe: int, text: str) -> None:
        answer = self.current
        said, remaining_ms = "", None
        if answer is not None and answer.released:
            begin = int(max(0.0, answer.position_ms - 4000) // WORD_MS)
            end = int((answer.position_ms + 400) // WORD_MS) + 1
            said = " ".join(answer.words[begin:end])
            remaining_ms = answer.length_ms - answer.position_ms
        self.send(OverlapHeard(self.now_ms, probe, text, said, remaining_ms))

    def _do(self, action: Action) -> None:
        match action:
            case StartTimer():
                self._timer = action
            case TranscribePause(pause=pause):
                text = self.text(self.now_ms)
                onset_ms = self.state.onset_ms
                said = self.said if onset_ms - self.said_ms < 1500 else ""

                def transcribed() -> None:
                    wasted = self.wasted_share
                    self.send(PauseTranscribed(self.now_ms, pause, text, said, wasted))

                self.later(self.now_ms + self.delays.recogniser_ms, transcribed)
            case JudgePause(pause=pause):
                probability = self.utterance[-1].probability if self.utterance else 0.5

                def judged() -> None:
                    self.send(PauseJudged(self.now_ms, pause, probability))

                self.later(self.now_ms + self.delays.judge_ms, judged)
            case TranscribeOverlap(probe=probe):
                overlap = self.text(self.now_ms)
                self.later(
                    self.now_ms + self.delays.recogniser_ms,
                    lambda: self.overlap_heard(probe, overlap),
                )
            case ForgetUtterance(until_ms=until_ms):
                self.utterance = [s for s in self.utterance if s.begin_ms > until_ms]
            case PrepareAnswer(answer=number):
                words = self._next_answer().split()
                self.current = Speaking(number, words, self.now_ms + self.delays.think_ms)
                ending = self.utterance[-1].ending if self.utterance else None
                # A model that cannot say says so at once.
                judged_text_ms = self.now_ms + (0.0 if ending is None else 100.0)
                judged_text = TextJudged(judged_text_ms, number, ending)
                self.later(judged_text_ms, lambda: self.send(judged_text))
                if self.delays.fails > 0:
                    self.delays.fails -= 1
                    self.later(
                        self.now_ms + 100,
                        lambda: self.send(AnswerFailed(self.now_ms, number, "broken")),
                    )
            case ReleaseAnswer(answer=number, text=text):
                answer = self._answer(number)
                answer.released = True
                self._turns += 1
                self._anchor(f"t{self._turns}", self.now_ms)
                self.history.append(("user", text))
                self._released_text = text
            case DropAnswer(answer=number):
                if self._answer(number).furthest_ms:
                    self.problems.append(f"{self.now_ms}: an answer that was heard is dropped")
                self.current = None
                if self._released_text:
                    self.history.pop()
                    self._released_text = ""
            case DuckAnswer(answer=number):
                self._answer(number).gain = 0.3
            case RestoreAnswer(answer=number):
                self._answer(number).gain = 1.0
            case HoldAnswer(answer=number):
                self._answer(number).held = True
            case ResumeAnswer(answer=number):
                answer = self._answer(number)
                if not answer.held:
                    self.problems.append(f"{self.now_ms}: resumed and was not held")
                answer.held, answer.gain = False, 1.0
                answer.position_ms = answer.position_ms // WORD_MS * WORD_MS
            case InterruptAnswer(answer=number) | CompleteAnswer(answer=number):
                answer = self._answer(number)
                whole = isinstance(action, CompleteAnswer)
                heard = " ".join(answer.words if whole else answer.heard())
                if heard:
                    self.history.append(("agent", heard if whole else f"{heard} --"))
                self.played.append((number, answer.heard(), whole))
                self.said, self.said_ms = " ".join(answer.heard()[-16:]), self.now_ms
                if not whole:
                    self.said_ms = float("-inf")
                self.current = None
                self._released_text = ""
            case Announce(decision=decision):
                self.decisions.append(decision)

    def _next_answer(self) -> str:
        return self.answers.pop(0) if self.answers else "one two three four five six seven eight"

    def _answer(self, number: int) -> Speaking:
        assert self.current is not None and self.current.number == number, (
            f"{self.now_ms}: answer {number} is asked for, {self.current} is there"
        )
        return self.current

    # ------------------------------------------------------------ what holds always

    def check(self) -> None:
        """Check that nothing hangs, nobody was spoken over, and history is what was played."""
        assert not self.problems, self.problems
        assert self.state.phase is Phase.LISTENING, f"stuck in {self.state}"
        assert self.current is None, "an answer is left over"
        assert not self._waiting, f"never came to {[anchor for anchor, *_ in self._waiting]}"
        entered = [text.removesuffix(" --") for role, text in self.history if role == "agent"]
        assert entered == [" ".join(words) for _, words, _ in self.played if words]


def play(script: str, rules: Rules | None = None) -> World:
    """Run a script to its end, and check what it expects and what holds always."""
    world = World(rules or Rules())
    expected: list[tuple[str, str]] = []
    wanted: list[tuple[str, int | None]] = []
    last_ms = 0.0
    for written in script.strip().splitlines():
        line = written.split("#")[0].strip()
        if not line:
            continue
        if line.startswith(("user:", "agent:")):
            role, _, text = line.partition(":")
            expected.append((role, text.strip()))
            continue
        command, *given = shlex.split(line)
        match command, given:
            case "answer", [words]:
                world.answers.append(words)
            case "user" | "noise", [begin, length, *rest]:
                options = dict(word.split("=") for word in rest if re.match(r"\w+=", word))
                spoken = [word for word in rest if not re.match(r"\w+=", word)]
                _add_sound(world, begin, float(length), " ".join(spoken).split(), options)
                last_ms += float(length) + 4000.0
            case "set", [name, value]:
                figure = value == "yes" if value in ("yes", "no") else float(value)
                world.rules = dataclasses.replace(world.rules, **{name: figure})  # type: ignore[arg-type]
            case "world", ["wasted_share", value]:
                world.wasted_share = float(value)
            case "world", [name, value]:
                setattr(world.delays, name, float(value))
            case "at", [time, wanted_state]:
                world.when(time, _expectation(world, line, wanted_state))
            case "has", [decision]:
                wanted.append((decision, None))
            case "has", [decision, count]:
                wanted.append((decision, int(count)))
            case "hasnt", [decision]:
                wanted.append((decision, 0))
            case _:
                raise ValueError(f"cannot read {line!r}")
    world.run(last_ms + 8_000.0)
    while world.state.phase is not Phase.LISTENING and world.now_ms < 60_000.0:
        world.run(world.now_ms + 1_000.0)
    world.check()
    assert world.history == expected, f"history: {world.history}; {world.decisions}"
    for decision, count in wanted:
        found = world.decisions.count(decision)
        assert found == count if count is not None else found, (decision, world.decisions)
    return world


def _add_sound(
    world: World, begin: str, length_ms: float, words: list[str], options: dict[str, str]
) -> None:
    def begin_now(at_ms: float) -> None:
        margin, voice = options.get("margin"), options.get("voice")
        world.hear(
            Sound(
                at_ms,
                length_ms,
                words,
                float(options.get("p", 0.95)),
                float(options["ending"]) if "ending" in options else None,
                None if margin is None else float(margin),
                None if voice is None else float(voice),
            )
        )

    world.when(begin, begin_now)


def _expectation(world: World, line: str, wanted: str) -> Callable[[float], None]:
    def look(at_ms: float) -> None:
        answer = world.current
        match wanted:
            case "ducked":
                true = answer is not None and answer.gain < 1.0 and not answer.held
            case "silent":
                true = answer is None or answer.held or answer.sounded_ms is None
            case "sounding":
                true = answer is not None and answer.sounded_ms is not None and not answer.held
            case phase:
                true = world.state.phase is Phase(phase)
        if not true:
            world.problems.append(f"{line!r} is not so: {world.state.phase}, {answer}")

    return look
