"""The agent speaks through an echo path: does it interrupt itself, and can it be interrupted?

A whole session in lock step, with the real VAD, recogniser, end-of-turn model and voice; the
language model is a reader of prose, so that the agent speaks all the time. Its voice comes back
through `room.py` at each return loss, delay 120 ms, drift 100 ppm. Then flite and LibriVox voices
interrupt it, and then come the disturbances of `disturbances.py`. The level of a user's voice is
set against the agent's at the microphone (0 dB return loss: as loud as the user).

    python benchmarks/echo.py [--minutes 10] [--interruptions 30] [--disturbances 0]
                              [--return-loss 0 6 12] [--canceller aec3] [--seed 1] [--json FILE]

In lock step the time that models take is left out, and the same seed gives the same figures. It is
the seed of the room and of the agent's voice: another one is another echo under the same words, and
moves the figures by a few. Needs flite and the default bundle.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from disturbances import disturbances
from recordings import INTERRUPTIONS, VOICES, librivox, read_speech
from recordings import speak as flite
from room import Room

from edgevoice.audio.cleaning import clean_caller
from edgevoice.audio.wav_port import WavSink
from edgevoice.config import override
from edgevoice.engines.clauses import ClauseSplitter
from edgevoice.events import DecisionNotice, Notice, StateNotice, TranscriptNotice
from edgevoice.frames import FRAME_MS, FRAME_SAMPLES, SAMPLE_RATE_HZ, Float32, Frame
from edgevoice.loading import load_engines
from edgevoice.session import Pace, Session
from edgevoice.settings import Settings
from edgevoice.stages import Cancelled, Ending, Message, Speech, never
from edgevoice.weights import Engines

PROSE = (
    "The old harbour lies where the river meets the sea. Every morning the boats come in, and the "
    "gulls come with them. Nobody knows who built the tower on the hill. In winter the road is "
    "closed, so the letters come by sledge. Bread needs flour, water, salt, and a good deal of "
    "patience. A clock that is wrong twice a day is still better than none. The baker opens at "
    "five, and the smell of his ovens wakes the street. On Fridays there is a market with apples, "
    "cheese and wool. Children race their wheels down the lane until somebody calls them home. "
    "When the fog comes, a bell rings from the pier, slow and low, until it lifts again. "
)
QUESTION = "Tell me about the harbour."
USER_RMS = 0.06
SPOKEN_AFTER_S = 4.0
TOO_LATE_S = 3.0


class Reader:
    """A language model that reads prose aloud, and never comes to the end of it soon."""

    context_tokens = 1 << 20
    text = PROSE * 3

    def open(self) -> Reader:
        return self

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return len(messages)

    def prefill(self, messages: Sequence[Message], cancelled: Cancelled = never) -> int:
        return 0

    def ending(self, messages: Sequence[Message], cancelled: Cancelled = never) -> Ending | None:
        return None

    def begin(self, messages: Sequence[Message], cancelled: Cancelled = never) -> Ending | None:
        return None

    def generate(self, messages: Sequence[Message], cancelled: Cancelled = never) -> Iterator[str]:
        for word in self.text.split(" "):
            if cancelled():
                return
            yield f"{word} "

    def close(self) -> None:
        pass


class Said:
    """A voice that says a clause the same way each time, so that runs can be compared.

    Args:
        voice: Speaks all of ``text`` now, clause by clause as an answer is spoken.
    """

    def __init__(self, voice: Speech, text: str) -> None:
        self.sample_rate_hz = voice.sample_rate_hz
        self._voice = voice
        self._said: dict[str, Float32] = {}
        splitter = ClauseSplitter()
        for word in text.split(" "):
            for clause in splitter.feed(f"{word} "):
                self._say(clause)
        for clause in splitter.flush():
            self._say(clause)

    def _say(self, clause: str) -> Float32:
        if clause not in self._said:
            self._said[clause] = np.concatenate(list(self._voice.synthesise(clause)))
        return self._said[clause]

    def synthesise(self, text: str, cancelled: Cancelled = never) -> Iterator[Float32]:
        said = self._say(text)
        for first in range(0, said.size, self.sample_rate_hz):
            if cancelled():
                return
            yield said[first : first + self.sample_rate_hz]

    def close(self) -> None:
        self._voice.close()


@dataclass
class Sound:
    """Something that sounds in the room over the agent's voice, and what came of it."""

    name: str
    samples: Float32
    began_ms: float | None = None
    stopped_ms: float | None = None


@dataclass
class Script:
    """Asks whenever the agent is silent, and lets the next sound begin when it has spoken a while.

    Attributes:
        question: Samples of the user's question.
        sounds: Over the agent's voice, in turn; they come as long as there are any.
        length_ms: The conversation ends here, or with the last sound where that is later.
    """

    question: Float32
    sounds: list[Sound]
    length_ms: float
    state: str = "listening"
    since_ms: float = 0.0
    last_end_ms: float = 0.0
    at_ms: float = 0.0
    speaking_ms: float = 0.0
    own: list[float] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)
    playing: Float32 | None = None
    current: Sound | None = None
    position: int = 0

    def watch(self, notice: Notice) -> None:
        if isinstance(notice, StateNotice) and notice.state != self.state:
            self.state, self.since_ms = notice.state, self.at_ms
        elif isinstance(notice, DecisionNotice) and notice.decision == "interrupted":
            sound = self.current
            if sound is not None and sound.stopped_ms is None:
                sound.stopped_ms = self.at_ms
            elif sound is None:
                self.own.append(self.at_ms)
        elif isinstance(notice, TranscriptNotice) and notice.role == "user" and notice.final:
            self.heard.append(notice.text)

    def near(self) -> Float32 | None:
        """Return the room's next frame; None at the end."""
        self.at_ms += FRAME_MS
        rested = self.at_ms - max(self.since_ms, self.last_end_ms)
        if self.state == "speaking":
            self.speaking_ms += FRAME_MS
        if self.playing is None:
            waited = self.current is None or rested > TOO_LATE_S * 1000.0
            if waited:
                self.current = None
                if self.at_ms > self.length_ms and all(s.began_ms for s in self.sounds):
                    return None
            if self.state == "listening" and rested > 700.0:
                self._begin(self.question)
            elif waited and self.state == "speaking" and rested > SPOKEN_AFTER_S * 1000.0:
                self.current = next((s for s in self.sounds if s.began_ms is None), None)
                if self.current is not None:
                    self.current.began_ms = self.at_ms
                    self._begin(self.current.samples)
        frame = np.zeros(FRAME_SAMPLES, np.float32)
        if self.playing is not None:
            part = self.playing[self.position : self.position + FRAME_SAMPLES]
            frame[: part.size] = part
            self.position += FRAME_SAMPLES
            if self.position >= self.playing.size:
                self.playing, self.last_end_ms = None, self.at_ms
        return frame

    def _begin(self, samples: Float32) -> None:
        self.playing, self.position = samples, 0


class RoomSource:
    """The microphone of that room, in lock step with the session's speaker."""

    dropped_frames = 0

    def __init__(self, near: Callable[[], Float32 | None], sink: WavSink, room: Room) -> None:
        self._near = near
        self._sink = sink
        self._room = room
        self._seq = 0

    def start(self) -> None:
        pass

    def read(self, timeout_s: float) -> Frame:
        near = self._near()
        if near is None:
            raise EOFError
        samples = self._room.hear(self._sink.last_played(FRAME_SAMPLES), near)
        self._seq += 1
        return Frame(self._seq - 1, self._seq * FRAME_MS * 1_000_000, samples)

    def stop(self) -> None:
        pass


class ForgetfulSink(WavSink):
    """Keeps no recording of ten minutes, and does not need one."""

    def _record(self, count: int) -> None:
        self.playout.pull(count)


def voice(path: Path, longest_s: float = 6.0) -> Float32:
    samples = read_speech(path)
    loud = np.flatnonzero(np.abs(samples) > 0.01)
    samples = samples[loud[0] : loud[-1] + 1][: round(longest_s * SAMPLE_RATE_HZ)]
    scaled: Float32 = (samples * (USER_RMS / np.sqrt((samples**2).mean()))).astype(np.float32)
    return scaled


def interruptions(count: int, folder: Path) -> list[Sound]:
    made = []
    for number, (text, name) in enumerate(itertools.product(INTERRUPTIONS, VOICES)):
        made.append(Sound(text, voice(flite(text, name, folder / f"over-{number}.wav"))))
    made += [Sound(clip.text, voice(clip.path)) for clip in librivox()]
    return [replace(made[i % len(made)]) for i in range(count)]


def hold(
    engines: Engines, settings: Settings, script: Script, return_loss_db: float, seed: int
) -> Script:
    sink = ForgetfulSink(None, "fast")
    room = Room(delay_ms=120.0, return_loss_db=return_loss_db, drift_ppm=100.0, seed=seed)
    Session(
        engines,
        settings,
        RoomSource(script.near, sink, room),
        sink,
        script.watch,
        pace=Pace.LOCK_STEP,
        echo_canceller=clean_caller(settings.audio),
    ).run()
    return script


def percentile(values: list[float], share: float) -> float | None:
    return round(float(np.percentile(values, share))) if values else None


def measure(
    engines: Engines, settings: Settings, arguments: argparse.Namespace, loss_db: float
) -> dict[str, Any]:
    folder: Path = arguments.folder
    seed = 3 * arguments.seed
    question = voice(flite(QUESTION, "rms", folder / "question.wav"))
    alone = hold(
        engines, settings, Script(question, [], arguments.minutes * 6e4), loss_db, seed - 2
    )
    users = interruptions(arguments.interruptions, folder)
    stops = (
        hold(engines, settings, Script(question, users, 0.0), loss_db, seed - 1) if users else None
    )
    noises = [Sound(d.name, d.samples) for d in disturbances()[: arguments.disturbances]]
    hums = hold(engines, settings, Script(question, noises, 0.0), loss_db, seed) if noises else None
    took = [s.stopped_ms - s.began_ms for s in users if s.stopped_ms and s.began_ms]
    lost = [s.name for s in noises if s.stopped_ms is not None]
    own = len(alone.own) + sum(len(s.own) for s in (stops, hums) if s is not None)
    spoken_ms = alone.speaking_ms + sum(s.speaking_ms for s in (stops, hums) if s is not None)
    return {
        "return loss, dB": loss_db,
        "minutes of the agent's speech": round(spoken_ms / 6e4, 1),
        "self-interruptions": own,
        "interrupted by the user": f"{len(took)} of {len(users)}",
        "user's first sound to the stop, p50 ms": percentile(took, 50),
        "the same, p90": percentile(took, 90),
        "answers lost to disturbances": f"{len(lost)} of {len(noises)}",
        "lost": lost,
        "not stopped": [s.name for s in users if s.stopped_ms is None],
        "heard": stops.heard if stops else [],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--interruptions", type=int, default=30)
    parser.add_argument("--disturbances", type=int, default=0, help="how many, 64 at most")
    parser.add_argument("--return-loss", type=float, nargs="+", default=[0.0, 6.0, 12.0])
    parser.add_argument("--canceller", choices=("aec3", "none"), default="aec3")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    settings = override(Settings(), [*arguments.set, f"audio.canceller={arguments.canceller}"])
    onnxruntime.set_seed(arguments.seed)
    loaded = load_engines(settings, patient=True)
    engines = replace(loaded, language_model=Reader(), speech=Said(loaded.speech, Reader.text))
    with tempfile.TemporaryDirectory() as scratch:
        arguments.folder = Path(scratch)
        rows = []
        for loss_db in arguments.return_loss:
            rows.append(measure(engines, settings, arguments, loss_db))
            print(rows[-1], file=sys.stderr)
    loaded.close()
    shown = [key for key, value in rows[0].items() if not isinstance(value, list)]
    print("| | " + " | ".join(str(row[shown[0]]) for row in rows) + " |")
    print("| --- |" + " ---: |" * len(rows))
    for key in shown[1:]:
        print(f"| {key} | " + " | ".join(str(row[key]) for row in rows) + " |")
    for row in rows:
        for key in ("lost", "not stopped"):
            if row[key]:
                print(f"\n{row['return loss, dB']:g} dB, {key}: {'; '.join(row[key])}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
