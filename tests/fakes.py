"""Fakes of the stages, each held to the same contract tests as the real engines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from edgevoice.engines.edges import SpeechEdges
from edgevoice.engines.speakable import speakable
from edgevoice.errors import EngineError
from edgevoice.frames import Float32
from edgevoice.stages import Cancelled, Ending, Expected, Message, Transcript, never


class ScriptedLanguageModel:
    """Answers from a script: the last user message picks the answer, a word is a token."""

    def __init__(
        self, answers: Mapping[str, str], otherwise: str = "I see.", context_tokens: int = 512
    ) -> None:
        self._answers = dict(answers)
        self._otherwise = otherwise
        self._context_tokens = context_tokens
        self._read: list[str] = []
        self._closed = False
        self.prefilled: list[tuple[Message, ...]] = []

    @property
    def context_tokens(self) -> int:
        return self._context_tokens

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return len(self._tokens(messages))

    def prefill(self, messages: Sequence[Message], cancelled: Cancelled = never) -> int:
        tokens = self._tokens(messages)
        if len(tokens) >= self._context_tokens:
            raise EngineError(
                f"a prompt of {len(tokens)} tokens leaves no room in {self._context_tokens}"
            )
        self.prefilled.append(tuple(messages))
        kept = 0
        while kept < min(len(tokens), len(self._read)) and tokens[kept] == self._read[kept]:
            kept += 1
        del self._read[kept:]
        for token in tokens[kept:]:
            if cancelled():
                break
            self._read.append(token)
        return len(self._read) - kept

    def ending(self, messages: Sequence[Message], cancelled: Cancelled = never) -> Ending | None:
        self._tokens(messages)
        unfinished = messages[-1].content.rstrip(".?!").endswith((" and", " the", " of"))
        return None if cancelled() else Ending(0.01 if unfinished else 0.6, 0, 0)

    def begin(self, messages: Sequence[Message], cancelled: Cancelled = never) -> Ending | None:
        return self.ending(messages, cancelled)

    def generate(self, messages: Sequence[Message], cancelled: Cancelled = never) -> Iterator[str]:
        self.prefill(messages, cancelled)
        asked = next((m.content for m in reversed(messages) if m.role == "user"), "")
        words = self._answers.get(asked, self._otherwise).split(" ")
        for index, word in enumerate(words):
            if cancelled():
                return
            yield word if index == 0 else f" {word}"
            self._read.append(word)

    def close(self) -> None:
        self._closed = True

    def _tokens(self, messages: Sequence[Message]) -> list[str]:
        if self._closed:
            raise EngineError("this conversation is closed; open another")
        tokens = [t for m in messages for t in (f"<{m.role}>", *m.content.split(), "<end>")]
        return [*tokens, "<assistant>"]


class ScriptedLanguageModelModel:
    """Opens conversations that follow one script."""

    def __init__(
        self, answers: Mapping[str, str], otherwise: str = "I see.", context_tokens: int = 512
    ) -> None:
        self._script = (answers, otherwise, context_tokens)

    def open(self) -> ScriptedLanguageModel:
        return ScriptedLanguageModel(*self._script)

    def close(self) -> None:
        """Nothing to free."""


class EnergyVad:
    """Hears speech in every window of 32 ms that is louder than a whisper."""

    window_samples = 512

    def __init__(self) -> None:
        self._rest = np.zeros(0, dtype=np.float32)

    def accept(self, samples: Float32) -> Sequence[bool]:
        audio = np.concatenate((self._rest, samples))
        whole = audio.size - audio.size % self.window_samples
        self._rest = audio[whole:]
        windows = audio[:whole].reshape(-1, self.window_samples)
        return [bool(np.abs(window).mean() > 0.02) for window in windows]

    def reset(self) -> None:
        self._rest = self._rest[:0]


class EnergyVadModel:
    """Loaded weights of nothing."""

    def open(self) -> EnergyVad:
        return EnergyVad()

    def open_edges(self) -> SpeechEdges:
        return SpeechEdges(32.0, min_speech_ms=64.0, min_silence_ms=96.0)


class ScriptedRecogniser:
    """Hears the script's next text in every utterance that has 100 ms of sound; "" is a noise."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = list(texts)
        self._loud_samples = 0

    def accept(self, samples: Float32) -> None:
        self._loud_samples += int((np.abs(samples) > 0.02).sum())

    @property
    def _heard(self) -> bool:
        return self._loud_samples >= 1600 and bool(self._texts)

    @property
    def _text(self) -> str:
        return self._texts[0] if self._heard else ""

    def partial(self) -> Transcript | None:
        return Transcript(self._text) if self._text else None

    def draft(self) -> None: ...

    def glance(self) -> Transcript:
        return self.conclude()

    def conclude(self, expected: Expected = "turn") -> Transcript:
        return Transcript(self._text)

    def endpoint(self) -> bool:
        return False

    def reset(self) -> None:
        if self._heard:
            self._texts.pop(0)
        self._loud_samples = 0


class ScriptedRecogniserModel:
    """Opens recognisers that each hear the whole script."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts

    def open(self) -> ScriptedRecogniser:
        return ScriptedRecogniser(self._texts)

    def close(self) -> None:
        """Nothing to free."""


class HumSpeech:
    """Hums 200 ms for every word, in chunks of 100 ms."""

    sample_rate_hz = 16_000

    def synthesise(self, text: str, cancelled: Cancelled = never) -> Iterator[Float32]:
        hum = 0.3 * np.sin(np.arange(1600) * 2 * np.pi * 200 / 16_000)
        for _ in range(2 * len(speakable(text).split())):
            if cancelled():
                return
            yield hum.astype(np.float32)

    def close(self) -> None:
        """Nothing to free."""
