"""A source that asks recorded questions one after another, each when the last has been answered.

Owns when the next question may begin; how a recording becomes frames is
:mod:`edgevoice.audio.wav_port`'s business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from edgevoice.audio.wav_port import Pace, WavSource
from edgevoice.frames import Frame, Int16, samples_to_ms

QUIET_MS = 500.0
"""Rest before each question. An utterance that began just now is not known at once, and a VAD
wants to have heard a little silence first."""

PATIENCE_MS = 180_000.0
"""An answer that takes longer than this after its question is not waited for."""


class ScriptedSource:
    """Speaks questions into the session; see :class:`edgevoice.stages.Source`.

    Args:
        questions: Each mono 16 kHz int16, shape ``[n]``.
        at_rest: Whether the other side has nothing to say or do; asked on the reading thread.
        pace: As for :class:`~edgevoice.audio.wav_port.WavSource`.
    """

    def __init__(
        self, questions: Sequence[Int16], at_rest: Callable[[], bool], pace: Pace = "realtime"
    ) -> None:
        self._questions = list(questions)
        self._at_rest = at_rest
        self._voice = WavSource(np.zeros(0, dtype=np.int16), pace)
        self._asked = 0
        self._rest_began = 0
        self._question_ended = 0

    @property
    def dropped_frames(self) -> int:
        """Always 0: a script can wait."""
        return self._voice.dropped_frames

    @property
    def asked(self) -> int:
        """How many questions have begun."""
        return self._asked

    def start(self) -> None:
        """Start the clock."""
        self._voice.start()

    def read(self, timeout_s: float) -> Frame | None:
        """Return the next frame; :class:`EOFError` when the last question has been answered."""
        if self._voice.remaining_samples():
            self._rest_began = self._question_ended = self._voice.delivered_samples
        elif not self._at_rest():
            self._rest_began = self._voice.delivered_samples
            if self._since(self._question_ended) > PATIENCE_MS:
                raise EOFError(f"question {self._asked} was not answered in time")
        elif self._since(self._rest_began) >= QUIET_MS:
            if self._asked == len(self._questions):
                raise EOFError("every question has been asked")
            self._voice.append(self._questions[self._asked])
            self._asked += 1
        return self._voice.read(timeout_s)

    def stop(self) -> None:
        """End the stream."""
        self._voice.stop()

    def _since(self, position: int) -> float:
        return samples_to_ms(self._voice.delivered_samples - position)
