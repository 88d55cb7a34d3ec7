"""A language model's conversation that keeps what it has read: a turn costs only what is new.

Owns what the local engines share: which tokens are kept, what a prompt still needs, when a cancel
is looked at, whether a message is over, and the loop that writes an answer. The cache, the logits
and the choice of a token are each engine's: :mod:`edgevoice.engines.gguf`,
:mod:`edgevoice.engines.onnx_llm`. Fitting a long history into the context is the caller's work,
with ``count_tokens``.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from edgevoice.engines import ending
from edgevoice.engines.token_prefix import common_prefix
from edgevoice.errors import EngineError
from edgevoice.frames import Float32
from edgevoice.settings import LanguageModelSettings
from edgevoice.stages import Cancelled, Ending, Message, never

PREFILL_BATCH_TOKENS = 24
"""Tokens read between two looks at a cancel, 80 to 100 ms of SmolLM2-135M Q8_0 on one x86-64 core.
Most turns are one batch with what the template puts behind them: at 13 words the first token takes
0.8 to 0.9 of the time with batches of 16. Larger ones read no faster and make a cancel wait."""
_REMEMBERED_PROMPTS = 2
"""An answer is asked for by one prompt, over and over, and judged by the one without its mark."""


class ChatVocabulary(Protocol):
    """Text to tokens, as one model's vocabulary and chat template have it."""

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Return the tokens of ``messages`` up to where the answer begins."""
        ...

    def tokenise(self, text: str) -> list[int]:
        """Return the tokens of ``text``."""
        ...

    def ends_answer(self, token: int) -> bool:
        """Whether ``token`` ends the answer."""
        ...


@dataclass(frozen=True, slots=True)
class Writing:
    """One answer under way.

    Attributes:
        choose: Returns the next token, by the logits behind what was read last.
        text: Returns the text that a token completes, "" while a character is not whole.
    """

    choose: Callable[[], int]
    text: Callable[[int], str]


class KeptPrefixConversation(ABC):
    """Implements :class:`edgevoice.stages.LanguageModel` on an engine's cache.

    ``_kept`` is exactly what the cache holds, whatever was cancelled, closed or failed.
    """

    def __init__(
        self, vocabulary: ChatVocabulary, settings: LanguageModelSettings, context_tokens: int
    ) -> None:
        self.context_tokens = context_tokens
        self._settings = settings
        self._vocabulary = vocabulary
        self._kept: list[int] = []
        self._logits_are_last = False  # the engine's logits follow the last of _kept
        self._closed = False

        @functools.lru_cache(_REMEMBERED_PROMPTS)
        def templated(messages: tuple[Message, ...]) -> list[int]:
            return vocabulary.prompt(messages)

        self._templated = templated

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of the templated prompt, generation prompt included."""
        self._alive()
        return len(self._templated(tuple(messages)))

    def prefill(self, messages: Sequence[Message], cancelled: Cancelled = never) -> int:
        """Read ``messages``, generation prompt included, behind the longest common prefix.

        Returns the number of tokens that were evaluated: 0 when all of it was read before,
        fewer than needed when cancelled.

        Raises:
            EngineError: The prompt leaves no room in the context, or the engine fails.
        """
        return self._read(self._prompt(messages), cancelled)

    def ending(self, messages: Sequence[Message], cancelled: Cancelled = never) -> Ending | None:
        """Return the probability that a mark or the message's end follows its last word.

        Costs a softmax (0.15 ms) beside what reading ``messages`` costs anyway. On 35 turns and
        227 cuts of them SmolLM2-135M tells the one from the other with an area under the
        curve of 0.99 (`benchmarks/turn_text.py`).

        Raises:
            EngineError: As :meth:`prefill`.
        """
        return self._judge(self._words(messages), [], cancelled)

    def begin(self, messages: Sequence[Message], cancelled: Cancelled = never) -> Ending | None:
        """Judge as :meth:`ending`; the batch with the last word takes what follows as well.

        Where the mark changes the tokens of the last word, nothing can be read with it.

        Raises:
            EngineError: As :meth:`prefill`.
        """
        words, prompt = self._words(messages), self._prompt(messages)
        read_on = prompt[len(words) :] if prompt[: len(words)] == words else []
        return self._judge(words, read_on, cancelled)

    def generate(self, messages: Sequence[Message], cancelled: Cancelled = never) -> Iterator[str]:
        """Yield the answer as whole characters; a cancel or ``close()`` ends it within a token.

        Raises:
            EngineError: As :meth:`prefill`; at the first piece, since this is a generator.
        """
        prompt = self._prompt(messages)
        self._read(prompt, cancelled)
        if len(self._kept) < len(prompt):
            return  # cancelled
        room = min(self._settings.max_answer_tokens, self.context_tokens - len(prompt))
        with self._writing() as writing:
            for _ in range(room):
                if cancelled():
                    return
                self._alive()
                token = writing.choose()
                if self._vocabulary.ends_answer(token):
                    return
                if text := writing.text(token):
                    yield text
                if cancelled():
                    return
                self._decode([token])

    def close(self) -> None:
        """Free this conversation's cache. May be called more than once."""
        if not self._closed:
            self._closed = True
            self._free()

    # ---------------------------------------------------------------- what the engines do

    @abstractmethod
    def _evaluate(self, tokens: list[int], back: int) -> None:
        """Put ``tokens`` into the cache behind ``_kept``; compute what follows the last of them.

        Args:
            tokens: One batch.
            back: Compute what follows the batch without its last so many tokens as well, where
                that is not 0.

        Raises:
            EngineError: It failed; the cache still holds what ``_kept`` then says.
        """

    @abstractmethod
    def _cut_back(self, count: int) -> int:
        """Forget all but the first ``count`` tokens; return how many of them are left."""

    @abstractmethod
    def _logits(self, back: int) -> Float32:
        """Return what follows ``_kept`` without its last ``back`` tokens.

        ``back`` is 0, or what the last :meth:`_evaluate` was given. float32, ``[vocabulary]``.
        """

    @abstractmethod
    def _writing(self) -> AbstractContextManager[Writing]:
        """Begin an answer behind ``_kept``."""

    @abstractmethod
    def _free(self) -> None:
        """Free the cache; called once."""

    # ---------------------------------------------------------------- what they share

    @functools.cached_property
    def _tail(self) -> list[int]:
        return ending.tail(self._vocabulary.prompt)

    def _alive(self) -> None:
        if self._closed:
            raise EngineError("this conversation is closed; open another")

    def _prompt(self, messages: Sequence[Message]) -> list[int]:
        self._alive()
        prompt = self._templated(tuple(messages))
        if len(prompt) >= self.context_tokens:
            raise EngineError(
                f"a prompt of {len(prompt)} tokens leaves no room for an answer in a context of "
                f"{self.context_tokens}; shorten it or raise language_model.context_tokens"
            )
        return prompt

    def _words(self, messages: Sequence[Message]) -> list[int]:
        """Return the tokens of ``messages`` up to the last word; [] where that cannot be told."""
        prompt = self._prompt(ending.unmarked(messages))
        return prompt[: len(prompt) - len(self._tail)] if self._tail else []

    def _judge(
        self, words: list[int], behind: Sequence[int], cancelled: Cancelled
    ) -> Ending | None:
        if not words:
            return None
        evaluated = self._read(words, cancelled, behind)
        if len(self._kept) < len(words):
            return None  # cancelled
        logits = self._logits(len(self._kept) - len(words))
        share = ending.probability(logits, self._tail, self._vocabulary.tokenise)
        return Ending(share, evaluated, len(self._kept))

    def _read(self, prompt: Sequence[int], cancelled: Cancelled, behind: Sequence[int] = ()) -> int:
        """Read ``prompt``, and of ``behind`` what the last batch has room for."""
        kept = common_prefix(self._kept, prompt)
        complete = kept == len(prompt) == len(self._kept) and self._logits_are_last
        if kept == len(prompt) and not complete:
            kept -= 1  # the last token is read again for its logits
        self._keep(kept)
        evaluated, both = 0, [*prompt, *behind]
        while len(self._kept) < len(prompt) and not cancelled():
            end = min(len(self._kept) + PREFILL_BATCH_TOKENS, len(both))
            batch = both[len(self._kept) : end]
            self._decode(batch, max(end - len(prompt), 0))
            evaluated += len(batch)
        return evaluated

    def _keep(self, count: int) -> None:
        """Forget all but the first ``count`` tokens, or all where the cache cannot be cut."""
        if count < len(self._kept):
            self._logits_are_last = False
            del self._kept[self._cut_back(count) :]

    def _decode(self, tokens: list[int], back: int = 0) -> None:
        self._alive()
        self._logits_are_last = False
        self._evaluate(tokens, back)
        self._kept += tokens
        self._logits_are_last = True
