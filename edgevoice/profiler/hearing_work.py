"""The work by which the hearing stages are measured: as a conversation gives it to them."""

from __future__ import annotations

import itertools
from typing import TypeVar

import numpy as np

from edgevoice.frames import FRAME_SAMPLES, Float32, Int16, ms_to_samples, samples_to_ms
from edgevoice.profiler.workload import NotMeasurable, Sample, Stopwatch, Times
from edgevoice.settings import Settings
from edgevoice.stages import EndOfTurn, Recogniser
from edgevoice.store import Store

Sound = TypeVar("Sound", Int16, Float32)

_FRAMES = 100
"""Frames of one sample: one alone takes less than the clock and the loop around it cost."""

_LOUD = 0.01


class VadWork:
    """Frames of speech, one by one."""

    def __init__(self, store: Store, settings: Settings, speech: Float32) -> None:
        from edgevoice.engines.silero_vad import load_vad

        model = load_vad(store.path(settings.vad.model), settings.vad)
        self.engine: object = model
        self._vad = model.open()
        self._frames = itertools.cycle(_frames(speech))

    def sample(self) -> Sample:
        """Measure a second of audio."""
        frames = [next(self._frames) for _ in range(_FRAMES)]
        watch = Stopwatch()
        for frame in frames:
            self._vad.accept(frame)
        windows = _FRAMES * FRAME_SAMPLES / self._vad.window_samples
        return {"window_ms": watch.ms / windows}


class EchoWork:
    """Frames of speech while the agent speaks all the time, since a canceller rests otherwise.

    What is played is the same speech half a second earlier: a real echo's delay does not matter
    to the cost.
    """

    def __init__(self, settings: Settings, speech: Int16) -> None:
        from edgevoice.audio.echo import Aec3Canceller

        if settings.audio.canceller in ("none", "system"):
            raise NotMeasurable(f'audio.canceller = "{settings.audio.canceller}"')
        self._canceller = Aec3Canceller(
            noise_suppression=settings.audio.noise_suppression,
            gain_control=settings.audio.gain_control,
        )
        self.engine: object = None
        played = np.roll(speech, ms_to_samples(500.0))
        self._frames = itertools.cycle(zip(_frames(speech), _frames(played), strict=True))

    def sample(self) -> Sample:
        """Measure a second of audio."""
        frames = [next(self._frames) for _ in range(_FRAMES)]
        watch = Stopwatch()
        for captured, played in frames:
            self._canceller.process(captured, played)
        return {"frame_ms": watch.ms / _FRAMES}


class RecogniserWork:
    """A question, at once for the speed and piece by piece for what a conversation waits for.

    Of two passes this is the second, as seldom asked for partials as it is in a conversation.
    """

    stage = "recogniser"

    def __init__(self, store: Store, settings: Settings, speech: Float32) -> None:
        from edgevoice.engines.recogniser import load_recogniser, of_first_pass, of_second_pass

        listen = settings.recogniser.heard_with()
        if self.stage not in listen:
            raise NotMeasurable("one recogniser listens alone")
        chosen = settings.recogniser
        if len(listen) > 1:
            chosen = (of_second_pass if self.stage == "recogniser" else of_first_pass)(chosen)
        model = load_recogniser(store.path(listen[self.stage]), chosen)
        self.engine: object = model
        self._recogniser = model.open()
        self._piece_ms = settings.recogniser.chunk_ms
        self._speech = spoken_part(speech)

    def sample(self) -> Sample:
        """Measure the question in both ways."""
        self._recogniser.reset()
        watch = Stopwatch()
        self._recogniser.accept(self._speech)
        self._recogniser.conclude()
        busy_ms = watch.ms
        replayed = replay(self._recogniser, self._speech, self._piece_ms)
        return {"real_time_factor": busy_ms / samples_to_ms(self._speech.size), **replayed}


class FirstPassWork(RecogniserWork):
    """The same, of the pass that hears along."""

    stage = "first-pass"


def replay(recogniser: Recogniser, speech: Float32, piece_ms: float = 100.0) -> Sample:
    """Feed ``speech`` as a microphone would, on a clock that leaps over the waiting.

    A piece is taken when it has been spoken and the recogniser is done with the ones before, so
    the figures are those of real time and cost only the computing. Those of partials are left out
    where none comes.
    """
    recogniser.reset()
    size = ms_to_samples(piece_ms)
    clock_ms = np.zeros(2)
    first_ms: Times | None = None
    late_ms: list[Times] = []
    for start in range(0, speech.size, size):
        piece = speech[start : start + size]
        spoken_ms = samples_to_ms(start + piece.size)
        clock_ms = np.maximum(clock_ms, spoken_ms)
        watch = Stopwatch()
        recogniser.accept(piece)
        # The last piece is followed by silence, in which the session asks for no partial.
        partial = recogniser.partial() if start + size < speech.size else None
        clock_ms = clock_ms + watch.ms
        if partial is not None and partial.text:
            first_ms = clock_ms if first_ms is None else first_ms
            late_ms.append(clock_ms - spoken_ms)
    watch = Stopwatch()
    recogniser.conclude()
    found = {"final_ms": clock_ms + watch.ms - samples_to_ms(speech.size)}
    if first_ms is None:
        return found
    return {"first_partial_ms": first_ms, "partial_ms": np.median(late_ms, axis=0), **found}


class EndOfTurnWork:
    """The end of a question."""

    def __init__(self, store: Store, settings: Settings, speech: Float32) -> None:
        from edgevoice.engines.recogniser import load_end_of_turn

        if not settings.end_of_turn.model:
            raise NotMeasurable('end_of_turn.model = ""')
        folder = store.path(settings.end_of_turn.model)
        self._judge: EndOfTurn = load_end_of_turn(folder, settings.end_of_turn)
        self.engine: object = self._judge
        self._speech = speech

    def sample(self) -> Sample:
        """Measure one judgement."""
        watch = Stopwatch()
        self._judge.probability(self._speech)
        return {"judge_ms": watch.ms}


def spoken_part(speech: Float32) -> Float32:
    """Return ``speech`` from its first to its last loud sample."""
    loud = np.flatnonzero(np.abs(speech) > _LOUD)
    return speech[loud[0] : loud[-1] + 1] if loud.size else speech


def _frames(speech: Sound) -> list[Sound]:
    whole = speech.size // FRAME_SAMPLES * FRAME_SAMPLES
    return [speech[i : i + FRAME_SAMPLES] for i in range(0, whole, FRAME_SAMPLES)]
