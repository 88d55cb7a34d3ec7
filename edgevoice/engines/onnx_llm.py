"""Language models as ONNX graphs, run by onnxruntime on the CPU with `tokenizers` alone.

One copy of the weights serves a whole process; each conversation has a cache of its own that keeps
what it has read, so that a turn costs only the tokens that are new. Fitting a long history into
the context is the caller's work, with ``count_tokens``. An artifact is `model.onnx` (with its
external data, if any), `tokenizer.json`, and the manifest's ``engine``::

    chat_template, bos_token, eos_token   for the template
    end_tokens                            ids that end an answer
    context_tokens                        positions that the graph's tables hold
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgevoice import host, manifest
from edgevoice.engines import ending
from edgevoice.engines.chat_tokens import ChatTokens
from edgevoice.engines.onnx_decoder import Decoder, Network
from edgevoice.engines.token_choice import TokenChoice
from edgevoice.engines.token_prefix import common_prefix
from edgevoice.errors import ArtifactError, EngineError
from edgevoice.frames import Float32
from edgevoice.settings import LanguageModelSettings
from edgevoice.stages import Cancelled, Ending, Message, never

FAMILY = "onnx-llm"
PREFILL_BATCH_TOKENS = 16
"""Tokens read between two looks at a cancel."""
_NEEDED = ("chat_template", "end_tokens", "context_tokens")


def load(artifact: Path, settings: LanguageModelSettings) -> OnnxModel:
    """Load the artifact in the folder ``artifact`` into this process.

    Raises:
        ArtifactError: It is missing, damaged, or no chat model.
        MissingDependencyError: `tokenizers` is not installed.
    """
    threads = host.threads(settings.threads)
    network, tokens, positions = _open(artifact, threads)
    return OnnxModel(network, tokens, settings, positions)


def probe_load(artifact: Path) -> None:
    """Load ``artifact``, read and answer a word; for :mod:`edgevoice.engines.probe`."""
    settings = LanguageModelSettings(context_tokens=256, max_answer_tokens=2)
    model = load(artifact, settings)
    conversation = model.open()
    list(conversation.generate([Message("user", "Hello.")]))
    conversation.close()
    model.close()


def open_scorer(artifact: Path, threads: int) -> OnnxScorer:
    """Load ``artifact`` to score text with; for the exporter's gates.

    Raises:
        ArtifactError: It cannot be loaded.
    """
    network, tokens, positions = _open(artifact, threads)
    return OnnxScorer(network, tokens, positions)


def _open(artifact: Path, threads: int) -> tuple[Network, ChatTokens, int]:
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
    network = Network(artifact / described.file(".onnx").path, threads)
    return network, tokens, int(known["context_tokens"])


class OnnxModel:
    """Loaded weights and the settings of every conversation on them."""

    def __init__(
        self, network: Network, tokens: ChatTokens, settings: LanguageModelSettings, positions: int
    ) -> None:
        self._network: Network | None = network
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


class OnnxConversation:
    """One cache: implements :class:`edgevoice.stages.LanguageModel`.

    ``_read_tokens`` is exactly what the cache holds, whatever was cancelled, closed or failed.
    """

    def __init__(
        self, decoder: Decoder, tokens: ChatTokens, settings: LanguageModelSettings
    ) -> None:
        self._decoder: Decoder | None = decoder
        self._tokens = tokens
        self._settings = settings
        self._read_tokens: list[int] = []
        self._logits: Float32 | None = None  # what follows the last of _read_tokens, [vocabulary]
        self.context_tokens = decoder.context_tokens

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of the templated prompt, generation prompt included."""
        self._alive()
        return len(self._tokens.prompt(messages))

    def prefill(self, messages: Sequence[Message], cancelled: Cancelled = never) -> int:
        """Read ``messages``, generation prompt included, behind the longest common prefix.

        Returns the number of tokens that were evaluated: 0 when all of it was read before,
        fewer than needed when cancelled.

        Raises:
            EngineError: The prompt leaves no room in the context, or onnxruntime fails.
        """
        return self._read(self._prompt(messages), cancelled)

    def ending(self, messages: Sequence[Message], cancelled: Cancelled = never) -> Ending | None:
        """Return the probability that a mark or the message's end follows its last word.

        Raises:
            EngineError: As :meth:`prefill`.
        """
        read, tail = ending.split(messages, self._prompt)
        if not tail or not read:
            return None
        evaluated = self._read(read, cancelled)
        if len(self._read_tokens) < len(read) or self._logits is None:
            return None  # cancelled
        share = ending.probability(self._logits, tail, self._tokens.tokenise)
        return Ending(share, evaluated)

    def generate(self, messages: Sequence[Message], cancelled: Cancelled = never) -> Iterator[str]:
        """Yield the answer as whole characters; a cancel or ``close()`` ends it within a token.

        Raises:
            EngineError: As :meth:`prefill`; at the first piece, since this is a generator.
        """
        prompt = self._prompt(messages)
        self._read(prompt, cancelled)
        if len(self._read_tokens) < len(prompt):
            return  # cancelled
        stream = self._tokens.stream()
        choice = TokenChoice(self._settings)
        room = min(self._settings.max_answer_tokens, self.context_tokens - len(prompt))
        for _ in range(room):
            if cancelled():
                return
            self._alive()
            assert self._logits is not None
            token = choice.choose(self._logits)
            if self._tokens.ends_answer(token):
                return
            if text := stream.take(token):
                yield text
            if cancelled():
                return
            self._decode([token])

    def close(self) -> None:
        """Free this conversation's cache. May be called more than once."""
        self._decoder = None
        self._logits = None

    def _alive(self) -> Decoder:
        if self._decoder is None:
            raise EngineError("this conversation is closed; open another")
        return self._decoder

    def _prompt(self, messages: Sequence[Message]) -> list[int]:
        self._alive()
        prompt = self._tokens.prompt(messages)
        if len(prompt) >= self.context_tokens:
            raise EngineError(
                f"a prompt of {len(prompt)} tokens leaves no room for an answer in a context of "
                f"{self.context_tokens}; shorten it or raise language_model.context_tokens"
            )
        return prompt

    def _read(self, prompt: list[int], cancelled: Cancelled) -> int:
        kept = common_prefix(self._read_tokens, prompt)
        complete = kept == len(prompt) == len(self._read_tokens) and self._logits is not None
        if kept == len(prompt) and not complete:
            kept -= 1  # the last token is read again for its logits
        if kept < len(self._read_tokens):
            del self._read_tokens[kept:]
            self._logits = None
        evaluated = 0
        while len(self._read_tokens) < len(prompt) and not cancelled():
            begin = len(self._read_tokens)
            batch = prompt[begin : begin + PREFILL_BATCH_TOKENS]
            self._decode(batch)
            evaluated += len(batch)
        return evaluated

    def _decode(self, tokens: list[int]) -> None:
        decoder = self._alive()
        self._logits = None
        self._logits = decoder.read(tokens, len(self._read_tokens))[0]
        self._read_tokens += tokens


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
