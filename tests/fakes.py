"""Fakes of the stages, each held to the same contract tests as the real engines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from edgevoice.errors import EngineError
from edgevoice.stages import Cancelled, Message, never


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
