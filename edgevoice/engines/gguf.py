"""Language models in GGUF files, run by llama.cpp on the CPU.

One copy of the weights serves a whole process; each conversation has a llama context of its own
that keeps what it has read (the KV cache), so that a turn costs only the tokens that are new.
Fitting a long history into the context is the caller's work, with ``count_tokens``.
"""

from __future__ import annotations

import codecs
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgevoice import host, manifest
from edgevoice.engines import ending
from edgevoice.engines.gguf_weights import GgufWeights
from edgevoice.engines.llama_library import last_error, llama_cpp
from edgevoice.engines.token_prefix import common_prefix
from edgevoice.errors import ArtifactError, EngineError
from edgevoice.settings import LanguageModelSettings
from edgevoice.stages import Cancelled, Ending, Message, never

PREFILL_BATCH_TOKENS = 16
"""Tokens read between two looks at a cancel. On two x86-64 cores SmolLM2-135M Q4_1 reads as fast
in batches of 16 (65 ms each) as of 512, and the compute buffers shrink from 16 to 2 MB."""
PENALTY_WINDOW_TOKENS = 64


def load(artifact: Path, settings: LanguageModelSettings) -> GgufModel:
    """Load the GGUF of ``artifact`` (its folder, or the file itself) into this process.

    Raises:
        ArtifactError: It is missing, damaged, or no chat model.
    """
    template = None
    path = artifact
    if not artifact.is_file():
        described = manifest.read(artifact)
        if described.format != "gguf":
            raise ArtifactError(
                f"artifact {described.name!r} has format {described.format!r}; the language model "
                "must be gguf"
            )
        path = artifact / described.file(".gguf").path
        template = described.engine.get("chat_template")
    return GgufModel(GgufWeights(path, template), settings)


def probe_load(artifact: Path) -> None:
    """Load ``artifact``, read and answer a word; for :mod:`edgevoice.engines.probe`."""
    settings = LanguageModelSettings(context_tokens=256, max_answer_tokens=2)
    model = load(artifact, settings)
    conversation = model.open()
    list(conversation.generate([Message("user", "Hello.")]))
    conversation.close()
    model.close()


class GgufModel:
    """Loaded weights and the settings of every conversation on them."""

    def __init__(self, weights: GgufWeights, settings: LanguageModelSettings) -> None:
        self._weights = weights
        self._settings = settings
        self._lock = threading.Lock()
        self._closed = False

    def open(self) -> GgufConversation:
        """Start a conversation; its context takes memory (28 MB at 2048 tokens of SmolLM2)."""
        return GgufConversation(self._weights, self._settings)

    def close(self) -> None:
        """Free the weights once the last open conversation is closed too."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._weights.release()


class GgufConversation:
    """One llama context: implements :class:`edgevoice.stages.LanguageModel`.

    ``_tokens`` is exactly what the KV cache holds, whatever was cancelled, closed or failed.
    """

    def __init__(self, weights: GgufWeights, settings: LanguageModelSettings) -> None:
        weights.retain()
        self._weights = weights
        self._settings = settings
        self._tokens: list[int] = []
        self._logits_are_last = False  # the logits in the context follow the last of _tokens
        self.context_tokens = min(settings.context_tokens, weights.trained_context_tokens)
        self._context: Any = _new_context(weights, settings, self.context_tokens)
        if not self._context:
            weights.release()
            raise EngineError(
                f"llama.cpp makes no context of {self.context_tokens} tokens: {last_error()}; "
                "lower language_model.context_tokens"
            )

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of the templated prompt, generation prompt included."""
        self._alive()
        return len(self._weights.prompt(messages))

    def prefill(self, messages: Sequence[Message], cancelled: Cancelled = never) -> int:
        """Read ``messages``, generation prompt included, behind the longest common prefix.

        Returns the number of tokens that were evaluated: 0 when all of it was read before,
        fewer than needed when cancelled.

        Raises:
            EngineError: The prompt leaves no room in the context, or llama.cpp fails.
        """
        return self._read(self._prompt(messages), cancelled)

    def ending(self, messages: Sequence[Message], cancelled: Cancelled = never) -> Ending | None:
        """Return the probability that a mark or the message's end follows its last word.

        Costs a softmax (0.15 ms) beside what reading ``messages`` costs anyway. On 35 turns and
        227 cuts of them SmolLM2-135M Q4_1 tells the one from the other with an area under the
        curve of 0.99 (`benchmarks/turn_text.py`).

        Raises:
            EngineError: As :meth:`prefill`.
        """
        read, tail = ending.split(messages, self._prompt)
        if not tail or not read:
            return None
        evaluated = self._read(read, cancelled)
        if len(self._tokens) < len(read):
            return None  # cancelled
        logits = np.ctypeslib.as_array(
            llama_cpp.llama_get_logits_ith(self._context, -1), (self._weights.vocabulary_size,)
        )
        return Ending(ending.probability(logits, tail, self._weights.tokenise), evaluated)

    def generate(self, messages: Sequence[Message], cancelled: Cancelled = never) -> Iterator[str]:
        """Yield the answer as whole characters; a cancel or ``close()`` ends it within a token.

        Raises:
            EngineError: As :meth:`prefill`; at the first piece, since this is a generator.
        """
        prompt = self._prompt(messages)
        self._read(prompt, cancelled)
        if len(self._tokens) < len(prompt):
            return  # cancelled
        # Bytes that are no UTF-8 can be neither shown nor spoken.
        characters = codecs.getincrementaldecoder("utf-8")("ignore")
        room = min(self._settings.max_answer_tokens, self.context_tokens - len(prompt))
        sampler = _new_sampler(self._weights, self._settings)
        try:
            for _ in range(room):
                if cancelled():
                    return
                token = llama_cpp.llama_sampler_sample(sampler, self._context, -1)
                if self._weights.ends_answer(token):
                    return
                if text := characters.decode(self._weights.piece(token)):
                    yield text
                if cancelled():
                    return
                self._decode([token])
        finally:
            llama_cpp.llama_sampler_free(sampler)

    def close(self) -> None:
        """Free this conversation's context. May be called more than once."""
        if self._context:
            llama_cpp.llama_free(self._context)
            self._context = None
            self._weights.release()

    def _alive(self) -> None:
        if not self._context:
            raise EngineError("this conversation is closed; open another")

    def _prompt(self, messages: Sequence[Message]) -> list[int]:
        self._alive()
        prompt = self._weights.prompt(messages)
        if len(prompt) >= self.context_tokens:
            raise EngineError(
                f"a prompt of {len(prompt)} tokens leaves no room for an answer in a context of "
                f"{self.context_tokens}; shorten it or raise language_model.context_tokens"
            )
        return prompt

    def _read(self, prompt: list[int], cancelled: Cancelled) -> int:
        kept = common_prefix(self._tokens, prompt)
        complete = kept == len(prompt) == len(self._tokens) and self._logits_are_last
        if kept == len(prompt) and not complete:
            kept -= 1  # the last token is read again for its logits
        self._keep(kept)
        evaluated = 0
        while len(self._tokens) < len(prompt) and not cancelled():
            batch = prompt[len(self._tokens) : len(self._tokens) + PREFILL_BATCH_TOKENS]
            self._decode(batch)
            evaluated += len(batch)
        return evaluated

    def _keep(self, count: int) -> None:
        """Forget all but the first ``count`` tokens."""
        if count == len(self._tokens):
            return
        memory = llama_cpp.llama_get_memory(self._context)
        self._logits_are_last = False
        # A recurrent state (LFM2, Mamba) cannot be cut back: such a model reads all of it again.
        if count and llama_cpp.llama_memory_seq_rm(memory, 0, count, -1):
            del self._tokens[count:]
        else:
            llama_cpp.llama_memory_clear(memory, False)
            self._tokens.clear()

    def _decode(self, tokens: list[int]) -> None:
        self._alive()
        # The batch points into this array and does not keep it alive.
        array = (llama_cpp.llama_token * len(tokens))(*tokens)
        status = llama_cpp.llama_decode(
            self._context, llama_cpp.llama_batch_get_one(array, len(tokens))
        )
        if status != 0:
            self._keep(0)
            raise EngineError(
                f"llama.cpp failed (status {status}) after {len(self._tokens)} tokens: "
                f"{last_error()}"
            )
        self._tokens += tokens
        self._logits_are_last = True


def _new_context(weights: GgufWeights, settings: LanguageModelSettings, tokens: int) -> Any:
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx = tokens
    parameters.n_batch = parameters.n_ubatch = PREFILL_BATCH_TOKENS
    parameters.n_threads = parameters.n_threads_batch = host.threads(settings.threads)
    # Half the memory of f16 at the same speed (25 for 46 MB at 2048 tokens of SmolLM2).
    parameters.type_k = parameters.type_v = llama_cpp.GGML_TYPE_Q8_0
    context = llama_cpp.llama_init_from_model(weights.native, parameters)
    if not context:
        # Heads that are not a multiple of q8_0's 32 values, or no flash attention.
        parameters.type_k = parameters.type_v = llama_cpp.GGML_TYPE_F16
        context = llama_cpp.llama_init_from_model(weights.native, parameters)
    return context


def _new_sampler(weights: GgufWeights, settings: LanguageModelSettings) -> Any:
    chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
    steps = [
        llama_cpp.llama_sampler_init_penalties(
            weights.vocabulary_size, PENALTY_WINDOW_TOKENS, settings.repetition_penalty, 0.0, 0.0
        )
    ]
    if settings.temperature == 0:
        steps.append(llama_cpp.llama_sampler_init_greedy())
    else:
        steps += [
            llama_cpp.llama_sampler_init_top_p(settings.top_p, 1),
            llama_cpp.llama_sampler_init_temp(settings.temperature),
            llama_cpp.llama_sampler_init_dist(llama_cpp.LLAMA_DEFAULT_SEED),
        ]
    for step in steps:
        llama_cpp.llama_sampler_chain_add(chain, step)
    return chain
