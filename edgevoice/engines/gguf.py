"""Language models in GGUF files, run by llama.cpp on the CPU.

One copy of the weights serves a whole process; each conversation has a llama context of its own,
whose KV cache holds what :mod:`edgevoice.engines.kept_prefix` keeps.
"""

from __future__ import annotations

import codecs
import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from edgevoice import host, manifest, spare_core
from edgevoice.engines.gguf_weights import GgufWeights
from edgevoice.engines.kept_prefix import (
    PREFILL_BATCH_TOKENS,
    KeptPrefixConversation,
    Writing,
)
from edgevoice.engines.llama_library import last_error, llama_cpp
from edgevoice.errors import ArtifactError, EngineError
from edgevoice.frames import Float32
from edgevoice.settings import LanguageModelSettings
from edgevoice.spare_core import SpareCore

PENALTY_WINDOW_TOKENS = 64
FIRST_CELLS = 512
"""Tokens that a new conversation's cache holds. llama.cpp writes zeros over all of a cache, so that
it takes its memory at once: 7 MB of SmolLM2 so, 26 MB for 2048 tokens. Most talks end before."""


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


class GgufModel:
    """Loaded weights and the settings of every conversation on them."""

    def __init__(self, weights: GgufWeights, settings: LanguageModelSettings) -> None:
        self._weights = weights
        self._settings = settings
        self._spare = spare_core.found(settings.threads, settings.cores)
        self._lock = threading.Lock()
        self._closed = False

    def open(self) -> GgufConversation:
        """Start a conversation; its context takes memory (9 MB of SmolLM2, 28 once it is long)."""
        return GgufConversation(self._weights, self._settings, self._spare)

    def close(self) -> None:
        """Free the weights once the last open conversation is closed too."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._weights.release()


class GgufConversation(KeptPrefixConversation):
    """One llama context, and a larger one when that is full.

    Args:
        weights: What it runs on.
        settings: Of the language model.
        spare: The core that it may use beside its own while that is idle, if any.
    """

    def __init__(
        self,
        weights: GgufWeights,
        settings: LanguageModelSettings,
        spare: SpareCore | None = None,
    ) -> None:
        context_tokens = min(settings.context_tokens, weights.trained_context_tokens)
        super().__init__(weights, settings, context_tokens)
        weights.retain()
        self._weights = weights
        self._spare = spare
        self._threads = host.threads(settings.threads)
        self._cells = min(FIRST_CELLS, context_tokens)
        try:
            self._context: Any = _new_context(weights, settings, self._cells)
        except EngineError:
            weights.release()
            raise

    def _evaluate(self, tokens: list[int], back: int) -> None:
        if (needed := len(self._kept) + len(tokens)) > self._cells:
            self._grow(needed)
        self._decode_batch(tokens, back)

    def _grow(self, needed: int) -> None:
        """Move to a context with room for ``needed`` tokens, and with all that is kept."""
        cells = min(max(2 * self._cells, needed), self.context_tokens)
        larger = _new_context(self._weights, self._settings, cells)
        size = llama_cpp.llama_state_seq_get_size(self._context, 0)
        state = (ctypes.c_uint8 * size)()
        moved = llama_cpp.llama_state_seq_get_data(self._context, state, size, 0)
        moved = moved and llama_cpp.llama_state_seq_set_data(larger, state, size, 0)
        llama_cpp.llama_free(self._context)
        self._context, self._cells = larger, cells
        self._threads = host.threads(self._settings.threads)
        if not moved:  # a kind of cache that llama.cpp cannot copy is read again
            again, self._kept = self._kept, []
            for start in range(0, len(again), PREFILL_BATCH_TOKENS):
                batch = again[start : start + PREFILL_BATCH_TOKENS]
                self._decode_batch(batch, 0)
                self._kept += batch

    def _decode_batch(self, tokens: list[int], back: int) -> None:
        # The batch points into these arrays and does not keep them alive.
        array = (llama_cpp.llama_token * len(tokens))(*tokens)
        batch = llama_cpp.llama_batch_get_one(array, len(tokens))
        wanted = (ctypes.c_int8 * len(tokens))()
        wanted[-1] = wanted[-1 - back] = 1
        batch.logits = ctypes.cast(wanted, ctypes.POINTER(ctypes.c_int8))
        with self._spare.threads() if self._spare else nullcontext(self._threads) as threads:
            if threads != self._threads:
                llama_cpp.llama_set_n_threads(self._context, threads, threads)
                self._threads = threads
            status = llama_cpp.llama_decode(self._context, batch)
        if status != 0:
            read = len(self._kept)
            self._keep(0)
            raise EngineError(
                f"llama.cpp failed (status {status}) after {read} tokens: {last_error()}"
            )

    def _cut_back(self, count: int) -> int:
        memory = llama_cpp.llama_get_memory(self._context)
        # A recurrent state (LFM2, Mamba) cannot be cut back: such a model reads all of it again.
        if count and llama_cpp.llama_memory_seq_rm(memory, 0, count, -1):
            return count
        llama_cpp.llama_memory_clear(memory, False)
        return 0

    def _logits(self, back: int) -> Float32:
        # Counted from the end, and only those that were wanted.
        row: Float32 = np.ctypeslib.as_array(
            llama_cpp.llama_get_logits_ith(self._context, -2 if back else -1),
            (self._weights.vocabulary_size,),
        )
        return row

    @contextmanager
    def _writing(self) -> Iterator[Writing]:
        # Bytes that are no UTF-8 can be neither shown nor spoken.
        characters = codecs.getincrementaldecoder("utf-8")("ignore")
        sampler = _new_sampler(self._weights, self._settings)
        try:
            yield Writing(
                lambda: int(llama_cpp.llama_sampler_sample(sampler, self._context, -1)),
                lambda token: characters.decode(self._weights.piece(token)),
            )
        finally:
            llama_cpp.llama_sampler_free(sampler)

    def _free(self) -> None:
        llama_cpp.llama_free(self._context)
        self._weights.release()


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
    if not context:
        raise EngineError(
            f"llama.cpp makes no context of {tokens} tokens: {last_error()}; "
            "lower language_model.context_tokens"
        )
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
