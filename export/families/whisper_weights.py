"""What the Whisper graphs need of a source, whichever format it is in.

Owns the sizes, and the names under which tensors are asked for: CTranslate2's, with query, key
and value of self-attention in one matrix (``linear_0``), and key and value of cross-attention in
one (``linear_1``). :mod:`edgevoice.export.families.whisper_ctranslate2` and
:mod:`edgevoice.export.families.whisper_checkpoint` answer them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgevoice.errors import ArtifactError


@dataclass(frozen=True, slots=True)
class Sizes:
    """Dimensions of a Whisper model, read from its tensors."""

    n_mels: int
    n_audio_ctx: int
    n_audio_state: int
    n_audio_head: int
    n_audio_layer: int
    n_vocab: int
    n_text_ctx: int
    n_text_state: int
    n_text_head: int
    n_text_layer: int

    @property
    def is_multilingual(self) -> bool:
        """English-only models have 51864 tokens, all others more (openai/whisper, model.py)."""
        return self.n_vocab >= 51865

    @property
    def encoder_parameters(self) -> int:
        """Number of weights of the encoder's graph, the decoder's cross-attention keys included."""
        audio = self.n_audio_state
        front = 3 * audio * (self.n_mels + audio) + 2 * self.n_audio_ctx * audio  # and silence
        cross = 2 * self.n_text_layer * audio * self.n_text_state
        return front + self.n_audio_layer * 12 * audio**2 + cross

    @property
    def decoder_parameters(self) -> int:
        """Number of weights of the decoder's graph, the tied embedding counted once."""
        text = self.n_text_state
        return (self.n_vocab + self.n_text_ctx) * text + self.n_text_layer * 14 * text**2


class Weights(Protocol):
    """The tensors of one Whisper model, and what its source says beside them."""

    @property
    def path(self) -> Path:
        """What messages name."""

    @property
    def sizes(self) -> Sizes:
        """Dimensions of the model."""

    @property
    def vocabulary(self) -> Sequence[str]:
        """Tokens in the order of their ids, as GPT-2 writes bytes; "" where an id has none."""

    def floats(self, name: str) -> NDArray[np.float32]:
        """Return tensor ``name`` as float32; products' weights are [out, in].

        Raises:
            ArtifactError: There is no such tensor, or it is no float.
        """


def require_heads(path: Path, sizes: Sizes) -> None:
    """Make sure that the channels of ``sizes`` make whole heads.

    Raises:
        ArtifactError: They do not.
    """
    for state, heads in (
        (sizes.n_audio_state, sizes.n_audio_head),
        (sizes.n_text_state, sizes.n_text_head),
    ):
        if heads < 1 or state % heads:
            raise ArtifactError(f"{path}: {state} channels do not make {heads} heads")
