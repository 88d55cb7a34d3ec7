"""What a GGUF model makes of a text: the logits behind every token, and a look at its weights.

Owns llama.cpp's side of measuring. The runtime's conversations (:mod:`edgevoice.engines.gguf`)
need one row of logits at a time and a chat template; here neither holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgevoice import manifest
from edgevoice.engines import gguf_file
from edgevoice.engines.llama_library import last_error, llama_cpp, prepare
from edgevoice.errors import ArtifactError, EngineError
from edgevoice.quant import ggml
from edgevoice.quant.ggml import Float32

WINDOW_TOKENS = 256
"""Tokens that are read at once, each time from an empty context."""

Watcher = Callable[[ggml.Tensor], object]


class GgufScorer:
    """A loaded GGUF model that scores token sequences of up to :data:`WINDOW_TOKENS`.

    ``watch`` is called with every matrix product as it is computed: its inputs are
    ``src[0]`` (weights) and ``src[1]`` (activations). With ``writable`` the weights are a copy
    that :meth:`overwrite` may change; otherwise they are mapped from the file.
    """

    def __init__(
        self, path: Path, threads: int, watch: Watcher | None = None, writable: bool = False
    ) -> None:
        """Load ``path``.

        Raises:
            ArtifactError: The file is not sound.
            EngineError: There is no memory for a context.
        """
        gguf_file.read_header(path)
        prepare()
        parameters = llama_cpp.llama_model_default_params()
        mapped, copied = llama_cpp.LLAMA_LOAD_MODE_MMAP, llama_cpp.LLAMA_LOAD_MODE_NONE
        parameters.load_mode = copied if writable else mapped
        # Weights that are packed again for a faster product could not be read or overwritten.
        parameters.use_extra_bufts = not (writable or watch)
        self._model: Any = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
        if not self._model:
            raise ArtifactError(f"{path}: llama.cpp cannot load it: {last_error()}")
        self._vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        self.vocabulary_size = int(llama_cpp.llama_vocab_n_tokens(self._vocabulary))
        self._addresses: dict[str, int] = {}
        self._watch = watch
        self._failure: Exception | None = None
        self._callback = llama_cpp.ggml_backend_sched_eval_callback(self._on_node)
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx = settings.n_batch = settings.n_ubatch = WINDOW_TOKENS
        settings.n_threads = settings.n_threads_batch = threads
        if watch or writable:
            settings.cb_eval = self._callback
        self._context: Any = llama_cpp.llama_init_from_model(self._model, settings)
        if not self._context:
            llama_cpp.llama_model_free(self._model)
            raise EngineError(f"llama.cpp makes no context for {path}: {last_error()}")
        self._batch = llama_cpp.llama_batch_init(WINDOW_TOKENS, 0, 1)

    def tokenise(self, text: str) -> list[int]:
        """Return the tokens of ``text`` with those that this model wants around it."""
        data = text.encode("utf-8", "replace")
        room = len(data) + 8
        tokens = (llama_cpp.llama_token * room)()
        count = llama_cpp.llama_tokenize(
            self._vocabulary, data, len(data), tokens, room, True, False
        )
        return list(tokens[: max(count, 0)])

    def logits(self, tokens: Sequence[int]) -> Float32:
        """Return what follows each of ``tokens``, read from an empty context.

        Returns:
            float32, ``[len(tokens), vocabulary_size]``, a copy.

        Raises:
            EngineError: llama.cpp fails, or there are too many tokens.
        """
        self._read(tokens, rows=True)
        found = llama_cpp.llama_get_logits(self._context)
        shape = (len(tokens), self.vocabulary_size)
        return np.ctypeslib.as_array(found, shape).copy()

    def read(self, tokens: Sequence[int]) -> None:
        """Read ``tokens`` for what ``watch`` sees; logits are computed for the last one only."""
        self._read(tokens, rows=False)

    def overwrite(self, name: str, data: bytes) -> None:
        """Put ``data`` in the place of the weights ``name``, in the type that they have.

        Raises:
            EngineError: No product has used these weights yet, or the size differs.
        """
        if name not in self._addresses:
            raise EngineError(f"no product with {name!r} has been seen; read some tokens first")
        address = self._addresses[name]
        size = ggml.library().ggml_nbytes(address)
        if size != len(data):
            raise EngineError(f"{name} has {size} bytes, {len(data)} were to be written")
        ggml.library().ggml_backend_tensor_set(address, data, 0, size)

    def close(self) -> None:
        """Free the model. May be called more than once."""
        if self._context:
            llama_cpp.llama_batch_free(self._batch)
            llama_cpp.llama_free(self._context)
            llama_cpp.llama_model_free(self._model)
            self._context = self._model = None

    def _read(self, tokens: Sequence[int], *, rows: bool) -> None:
        if not 0 < len(tokens) <= WINDOW_TOKENS:
            raise EngineError(f"{len(tokens)} tokens at once; 1 to {WINDOW_TOKENS} can be read")
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), False)
        batch = self._batch
        batch.n_tokens = len(tokens)
        for place, token in enumerate(tokens):
            batch.token[place] = token
            batch.pos[place] = place
            batch.n_seq_id[place] = 1
            batch.seq_id[place][0] = 0
            batch.logits[place] = rows or place == len(tokens) - 1
        status = llama_cpp.llama_decode(self._context, batch)
        if self._failure:
            raise self._failure
        if status != 0:
            raise EngineError(f"llama.cpp failed (status {status}): {last_error()}")

    def _on_node(self, address: int, asked: bool, _user_data: object) -> bool:
        # An exception cannot pass through C: it is kept, and raised when the C code is back.
        try:
            if ggml.library().ggml_op_desc(address) != b"MUL_MAT":
                return not asked
            node = ggml.at(address)
            weights = ggml.at(node.src[0])
            if not weights.name.endswith(b".weight"):
                return not asked
            self._addresses[weights.name.decode()] = node.src[0]
            if self._watch is None:
                return not asked
            if not asked:
                self._watch(node)
        except Exception as error:
            self._failure = error
            return False
        return True


def values(address: int) -> Float32:
    """Return a float32 tensor's values, ``[rows, columns]``; all leading dimensions are rows."""
    tensor = ggml.at(address)
    out = np.empty(ggml.library().ggml_nbytes(address) // 4, np.float32)
    ggml.library().ggml_backend_tensor_get(address, out.ctypes.data, 0, out.nbytes)
    return out.reshape(-1, tensor.ne[0])


def windows(tokens: Sequence[int], most: int = 0) -> list[list[int]]:
    """Cut ``tokens`` into windows; the first ``most`` of them only, when that is not 0."""
    kept = list(tokens[:most] if most else tokens)
    cut = [kept[i : i + WINDOW_TOKENS] for i in range(0, len(kept), WINDOW_TOKENS)]
    return [window for window in cut if len(window) > 1]


def open_scorer(artifact: Path, threads: int) -> GgufScorer:
    """Load the GGUF of an artifact's folder (or the file itself) to score text with."""
    path = artifact
    if not artifact.is_file():
        path = artifact / manifest.read(artifact).file(".gguf").path
    return GgufScorer(path, threads)


def probe_load(path: Path) -> None:
    """Load ``path`` and score two tokens; for :mod:`edgevoice.engines.probe`."""
    scorer = GgufScorer(path, 1)
    scorer.logits([*scorer.tokenise("Hello there."), 0][:2])
    scorer.close()
