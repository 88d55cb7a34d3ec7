"""Questions are asked one after another, each when the last has been answered."""

import numpy as np
import pytest

from edgevoice.audio.script import PATIENCE_MS, QUIET_MS, ScriptedSource
from edgevoice.frames import FRAME_MS, Int16


def tone(level: int, frames: int = 3) -> Int16:
    return np.full(frames * 160, level, dtype=np.int16)


class Agent:
    """Is busy for a while after it heard something."""

    def __init__(self, busy_frames: int) -> None:
        self.busy_frames = busy_frames
        self.busy = 0

    def hear(self, samples: Int16) -> None:
        self.busy = self.busy_frames if samples.any() else max(0, self.busy - 1)

    def at_rest(self) -> bool:
        return self.busy == 0


def levels(source: ScriptedSource, agent: Agent) -> list[int]:
    heard = []
    source.start()
    while True:
        try:
            frame = source.read(0.1)
        except EOFError:
            return heard
        assert frame is not None
        agent.hear(frame.samples)
        heard.append(int(frame.samples[0]))


def test_each_question_waits_for_rest() -> None:
    agent = Agent(busy_frames=40)
    source = ScriptedSource([tone(1), tone(2)], agent.at_rest, "fast")
    heard = levels(source, agent)
    quiet = int(QUIET_MS / FRAME_MS)
    assert heard.index(1) == quiet
    gap = heard.index(2) - heard.index(1) - 3
    assert quiet + 38 <= gap <= quiet + 42
    assert len(heard) - heard.index(2) - 3 == gap  # and the end waits for the last answer
    assert heard.count(1) == heard.count(2) == 3
    assert source.asked == 2
    assert source.dropped_frames == 0


def test_an_answer_without_end_is_not_waited_for() -> None:
    agent = Agent(busy_frames=10**9)
    source = ScriptedSource([tone(1), tone(2)], agent.at_rest, "fast")
    heard = levels(source, agent)
    assert source.asked == 1
    assert len(heard) * FRAME_MS == pytest.approx(QUIET_MS + PATIENCE_MS, abs=100)


def test_stop_ends_it() -> None:
    source = ScriptedSource([tone(1)], lambda: True, "fast")
    source.start()
    source.stop()
    with pytest.raises(EOFError):
        source.read(0.1)
