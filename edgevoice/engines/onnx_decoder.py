"""A language model's ONNX graph with its cache: tokens in, logits out.

Owns the session (shared by all conversations) and the cache buffers (one conversation's). What the
tokens mean is :mod:`edgevoice.engines.onnx_llm`'s business. The graph is the exporter's
(:mod:`edgevoice.export.llm_graph`): it writes keys and values into the buffers where they end, so
that a token costs no copy, and forgetting is a smaller length.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from edgevoice.engines.ort import open_on
from edgevoice.engines.providers import ON_CPU, Wanted
from edgevoice.errors import ArtifactError, EngineError
from edgevoice.frames import Float32

_CACHE = "past_key_values."
_INPUTS = ("input_ids", "total_length", "logits_from")


class Network:
    """The loaded graph."""

    def __init__(self, path: Path, threads: int, wanted: Wanted = ON_CPU) -> None:
        """Load ``path`` on the first of ``wanted`` that takes it.

        Raises:
            ArtifactError: It cannot be loaded, or is not a graph that keeps its cache in place.
            EngineError: A provider is required and cannot run it.
        """
        self.path = path
        self.session: Any
        self.session, self.provider = open_on(path, threads, wanted)
        inputs = {i.name: i for i in self.session.get_inputs()}
        outputs = {o.name: o for o in self.session.get_outputs()}
        missing = [name for name in _INPUTS if name not in inputs]
        self.cache_shapes = {
            name: (int(i.shape[1]), int(i.shape[3]))
            for name, i in inputs.items()
            if name.startswith(_CACHE)
        }
        if missing or not self.cache_shapes or "logits" not in outputs:
            raise ArtifactError(
                f"{path} has no {', '.join(missing) or 'cache'} among its inputs, so it is no "
                "language model for this engine; export it with `edgevoice export --family "
                "onnx-llm`"
            )
        self.vocabulary_size = int(outputs["logits"].shape[2])


class Decoder:
    """One cache. Not safe to use from two threads at once."""

    def __init__(self, network: Network, context_tokens: int) -> None:
        """Reserve a cache of ``context_tokens``.

        The memory is the system's until a token is written there: SmolLM2-135M takes 45 KB each.
        """
        self._network = network
        self._binding: Any = network.session.io_binding()
        self.context_tokens = context_tokens
        self._buffers: list[Any] = []
        for name, (heads, width) in network.cache_shapes.items():
            zeros = np.zeros((1, heads, context_tokens, width), np.float32)
            buffer = ort.OrtValue.ortvalue_from_numpy(zeros)
            self._buffers += [zeros, buffer]
            self._binding.bind_ortvalue_input(name, buffer)
            self._binding.bind_ortvalue_output(name.replace(_CACHE, "present."), buffer)

    def read(self, tokens: Sequence[int], place: int, wanted: int = 1) -> Float32:
        """Put ``tokens`` into the cache from ``place`` on; return what follows the last of them.

        Args:
            tokens: At least one, and no more than there is room behind ``place``.
            place: How many tokens of the cache stand before them.
            wanted: How many of the last tokens' logits to compute.

        Returns:
            float32 ``[wanted, vocabulary]``.

        Raises:
            EngineError: onnxruntime fails; the cache holds ``place`` tokens then.
        """
        total = place + len(tokens)
        if not 0 < len(tokens) <= self.context_tokens - place:
            raise EngineError(
                f"{len(tokens)} tokens after {place} do not fit a context of {self.context_tokens}"
            )
        feed = {
            "input_ids": np.array([tokens], np.int64),
            "total_length": np.array([total], np.int32),
            "logits_from": np.array([len(tokens) - wanted], np.int64),
        }
        try:
            for name, value in feed.items():
                self._binding.bind_cpu_input(name, value)
            self._binding.bind_output("logits")
            self._network.session.run_with_iobinding(self._binding)
            # The last output is the one that was bound last.
            logits: Float32 = self._binding.get_outputs()[-1].numpy()
        except Exception as error:  # onnxruntime's own classes derive from Exception alone
            raise EngineError(
                f"the language model failed after {place} tokens: {str(error)[:200]}"
            ) from error
        first: Float32 = logits[0]
        return first
