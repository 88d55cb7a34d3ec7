"""Engines that do something around every call that takes time: record it, or choose its cores.

The engines stay what they are: a wrapped one passes everything on. The VAD is left as it is: its
hundred calls a second would cost more than they tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeAlias

from edgevoice.engines import providers
from edgevoice.engines.providers import Ran
from edgevoice.engines.two_passes import TwoPassModel
from edgevoice.frames import Float32
from edgevoice.stages import (
    Cancelled,
    Ending,
    EndOfTurn,
    Expected,
    LanguageModel,
    LanguageModelModel,
    Message,
    Recogniser,
    RecogniserModel,
    Speech,
    Transcript,
    never,
)
from edgevoice.weights import Engines

Around: TypeAlias = Callable[[str, str], AbstractContextManager[None]]
"""Takes the stage and what is done; entered on the thread that does it."""


def _nothing(stage: str, name: str) -> AbstractContextManager[None]:
    del stage, name
    return nullcontext()


def wrapped(engines: Engines, call: Around, stretch: Around = _nothing) -> Engines:
    """Return ``engines`` with ``call`` around each call.

    Args:
        engines: To be wrapped.
        call: Around one call; for what comes piece by piece, around the making of each piece.
        stretch: Around all pieces together, with whatever their taker does in between.
    """
    judge = engines.end_of_turn
    return Engines(
        vad=engines.vad,
        recogniser=_recogniser(engines.recogniser, call),
        end_of_turn=_EndOfTurn(judge, call) if judge is not None else None,
        language_model=_LanguageModelModel(engines.language_model, call, stretch),
        speech=_Speech(engines.speech, call, stretch),
    )


def _recogniser(model: RecogniserModel, call: Around) -> RecogniserModel:
    """Each pass is a stage of its own."""
    if isinstance(model, TwoPassModel):
        first = _RecogniserModel(model.first, call, "first-pass")
        return model.with_passes(first, _RecogniserModel(model.second, call))
    return _RecogniserModel(model, call)


class _RecogniserModel:
    def __init__(self, model: RecogniserModel, call: Around, stage: str = "recogniser") -> None:
        self._model, self._call, self._stage = model, call, stage
        self.provider: Ran | None = providers.of(model)

    def open(self) -> Recogniser:
        return _Recogniser(self._model.open(), self._call, self._stage)

    def close(self) -> None:
        self._model.close()


class _Recogniser:
    def __init__(self, recogniser: Recogniser, call: Around, stage: str) -> None:
        self._recogniser, self._call, self._stage = recogniser, call, stage

    def accept(self, samples: Float32) -> None:
        self._recogniser.accept(samples)

    def partial(self) -> Transcript | None:
        with self._call(self._stage, "partial"):
            return self._recogniser.partial()

    def draft(self) -> Transcript | None:
        return self._recogniser.draft()  # both passes are stages themselves

    def conclude(self, expected: Expected = "turn") -> Transcript:
        with self._call(self._stage, "final text"):
            return self._recogniser.conclude(expected)

    def glance(self) -> Transcript:
        with self._call(self._stage, "words over the agent"):
            return self._recogniser.glance()

    def endpoint(self) -> bool:
        return self._recogniser.endpoint()

    def reset(self) -> None:
        self._recogniser.reset()


class _EndOfTurn:
    def __init__(self, judge: EndOfTurn, call: Around) -> None:
        self._judge, self._call = judge, call
        self.provider: Ran | None = providers.of(judge)

    def probability(self, samples: Float32) -> float:
        with self._call("end-of-turn", "judgement"):
            return self._judge.probability(samples)


class _LanguageModelModel:
    def __init__(self, model: LanguageModelModel, call: Around, stretch: Around) -> None:
        self._model, self._call, self._stretch = model, call, stretch
        self.provider: Ran | None = providers.of(model)

    def open(self) -> LanguageModel:
        return _LanguageModel(self._model.open(), self._call, self._stretch)

    def close(self) -> None:
        self._model.close()


class _LanguageModel:
    def __init__(self, model: LanguageModel, call: Around, stretch: Around) -> None:
        self._model, self._call, self._stretch = model, call, stretch

    @property
    def context_tokens(self) -> int:
        return self._model.context_tokens

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return self._model.count_tokens(messages)

    def prefill(self, messages: Sequence[Message], cancelled: Cancelled = never) -> int:
        with self._call("language-model", "prefill"):
            return self._model.prefill(messages, cancelled)

    def ending(self, messages: Sequence[Message], cancelled: Cancelled = never) -> Ending | None:
        with self._call("language-model", "is the text over"):
            return self._model.ending(messages, cancelled)

    def begin(self, messages: Sequence[Message], cancelled: Cancelled = never) -> Ending | None:
        with self._call("language-model", "is the text over"):
            return self._model.begin(messages, cancelled)

    def generate(self, messages: Sequence[Message], cancelled: Cancelled = never) -> Iterator[str]:
        pieces = self._model.generate(messages, cancelled)
        with self._stretch("language-model", "answer"):
            while True:
                with self._call("language-model", "token"):
                    piece = next(pieces, None)
                if piece is None:
                    return
                yield piece

    def close(self) -> None:
        self._model.close()


class _Speech:
    def __init__(self, speech: Speech, call: Around, stretch: Around) -> None:
        self._speech, self._call, self._stretch = speech, call, stretch
        self.provider: Ran | None = providers.of(speech)

    @property
    def sample_rate_hz(self) -> int:
        return self._speech.sample_rate_hz

    def synthesise(self, text: str, cancelled: Cancelled = never) -> Iterator[Float32]:
        chunks = self._speech.synthesise(text, cancelled)
        with self._stretch("speech", "clause"):
            while True:
                with self._call("speech", "sound"):
                    chunk = next(chunks, None)
                if chunk is None:
                    return
                yield chunk

    def close(self) -> None:
        self._speech.close()
