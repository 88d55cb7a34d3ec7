"""Language models as ONNX graphs, run by onnxruntime on the CPU with `tokenizers` alone.

One copy of the weights serves a whole process; each conversation has a cache of its own, which
holds what :mod:`edgevoice.engines.kept_prefix` keeps. An artifact is `model.onnx` (with its
external data, if any), `tokenizer.json`, and the manifest's ``engine``::

    chat_template, bos_token, eos_token   for the template
    end_tokens                            ids that end an answer
    context_tokens                        positions that the graph's tables hold
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from edgevoice import host, manifest
from edgevoice.engines.chat_tokens import ChatTokens
from edgevoice.engines.kept_prefix import KeptPrefixConversation, Writing
from edgevoice.engines.onnx_decoder import Decoder, Network
from edgevoice.engines.providers import ON_CPU, Wanted
from edgevoice.engines.token_choice import TokenChoice
from edgevoice.errors import ArtifactError, EngineError
from edgevoice.frames import Float32
from edgevoice.settings import LanguageModelSettings

FAMILY = "onnx-llm"
_NEEDED = ("chat_template", "end_tokens", "context_tokens")


def load(artifact: Path, settings: LanguageModelSettings) -> OnnxModel:
    """Load the artifact in the folder ``artifact`` into this process.

    Raises:
        ArtifactError: It is missing, damaged, or no chat model.
        MissingDependencyError: `tokenizers` is not installed.
    """
    threads = host.threads(settings.threads)
    wanted = Wanted(settings.providers, settings.provider_required)
    network, tokens, positions = _open(artifact, threads, wanted)
    return OnnxModel(network, tokens, settings, positions)


def open_scorer(artifact: Path, threads: int) -> OnnxScorer:
    """Load ``artifact`` to score text with; for the exporter's gates.

    Raises:
        ArtifactError: It cannot be loaded.
    """
    network, tokens, positions = _open(artifact, threads)
    return OnnxScorer(network, tokens, positions)


def _open(artifact: Path, threads: int, wanted: Wanted = ON_CPU) -> tuple[Network, ChatTokens, int]:
    described = manifest.read(artifact)
    if described.family != FAMILY:
        raise ArtifactError(
            f"artifact {described.name!r} has family {described.family!r}; this engine runs "
            f"{FAMILY}"
        )
    known = described.engine
    if missing := [key for key in _NEEDED if not known.get(key)]:
        raise ArtifactError(
            f"artifact {described.name!r} does not say its {', '.join(missing)}; export it again, "
            "from an -instruct or -chat checkpoint"
        )
    tokens = ChatTokens(
        artifact / described.file("tokenizer.json").path,
        str(known["chat_template"]),
        [int(token) for token in known["end_tokens"]],
        {key: str(known.get(key, "")) for key in ("bos_token", "eos_token")},
    )
    network = Network(artifact / described.file(".onnx").path, threads, wanted)
    return network, tokens, int(known["context_tokens"])


class OnnxModel:
    """Loaded weights and the settings of every conversation on them."""

    def __init__(
        self, network: Network, tokens: ChatTokens, settings: LanguageModelSettings, positions: int
    ) -> None:
        self._network: Network | None = network
        self.provider = network.provider
        self._tokens = tokens
        self._settings = settings
        self._positions = positions
        self._lock = threading.Lock()

    def open(self) -> OnnxConversation:
        """Start a conversation; its cache takes memory as it fills.

        Raises:
            EngineError: The model is closed.
        """
        with self._lock:
            if self._network is None:
                raise EngineError("the language model is closed; load it again")
            context = min(self._settings.context_tokens, self._positions)
            decoder = Decoder(self._network, context)
        return OnnxConversation(decoder, self._tokens, self._settings)

    def close(self) -> None:
        """Free the weights once the last open conversation is closed too."""
        with self._lock:
            self._network = None


class OnnxConversation(KeptPrefixConversation):
    """One cache of the graph."""

    def __init__(
        self, decoder: Decoder, tokens: ChatTokens, settings: LanguageModelSettings
    ) -> None:
        super().__init__(tokens, settings, decoder.context_tokens)
        self._decoder: Decoder | None = decoder
        self._tokens = tokens
        self._rows = np.empty((0, 0), np.float32)  # the logits of the tokens that were read last

    def _evaluate(self, tokens: list[int], back: int) -> None:
        assert self._decoder is not None, "asked for only while the conversation is open"
        self._rows = self._decoder.read(tokens, len(self._kept), back + 1)

    def _cut_back(self, count: int) -> int:
        return count  # the next read is told how much of the cache counts

    def _logits(self, back: int) -> Float32:
        row: Float32 = self._rows[-1 - back]
        return row

    @contextmanager
    def _writing(self) -> Iterator[Writing]:
        choice, stream = TokenChoice(self._settings), self._tokens.stream()
        yield Writing(lambda: choice.choose(self._rows[-1]), stream.take)

    def _free(self) -> None:
        self._decoder = None


class OnnxScorer:
    """Implements :class:`edgevoice.quant.divergence.Scorer`."""

    def __init__(self, network: Network, tokens: ChatTokens, positions: int) -> None:
        self.vocabulary_size = network.vocabulary_size
        self._decoder: Decoder | None = Decoder(network, positions)
        self._tokens = tokens

    def tokenise(self, text: str) -> list[int]:
        """Return the tokens of ``text``."""
        return self._tokens.tokenise(text)

    def logits(self, tokens: Sequence[int]) -> Float32:
        """Return what follows each of ``tokens``, read from an empty cache.

        float32, ``[len(tokens), vocabulary_size]``.

        Raises:
            EngineError: There are more tokens than the context holds, or onnxruntime fails.
        """
        if self._decoder is None:
            raise EngineError("this scorer is closed; open another")
        return self._decoder.read(tokens, 0, len(tokens))

    def close(self) -> None:
        """Free the model. May be called more than once."""
        self._decoder = None
