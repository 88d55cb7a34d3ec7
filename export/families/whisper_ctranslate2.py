"""Whisper in a CTranslate2 folder: ``model.bin`` and ``vocabulary.txt`` or ``.json``.

Reading the file is :mod:`edgevoice.export.ctranslate2`'s business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgevoice.errors import ArtifactError
from edgevoice.export import ctranslate2
from edgevoice.export.ctranslate2 import Checkpoint
from edgevoice.export.families.whisper_weights import Sizes, require_heads

MODEL = "model.bin"
_GELU = 3  # CTranslate2's enumeration of activations


@dataclass(frozen=True, slots=True)
class CTranslate2Whisper:
    """:class:`edgevoice.export.families.whisper_weights.Weights` of a CTranslate2 folder."""

    checkpoint: Checkpoint
    sizes: Sizes
    vocabulary: Sequence[str]

    @property
    def path(self) -> Path:
        """The ``model.bin``."""
        return self.checkpoint.path

    def floats(self, name: str) -> NDArray[np.float32]:
        """Return tensor ``name``; the names are CTranslate2's own."""
        return self.checkpoint.floats(name)


def read(folder: Path) -> CTranslate2Whisper:
    """Read ``folder``.

    Raises:
        ArtifactError: It is damaged, not a Whisper model, or its two files do not belong together.
    """
    checkpoint = ctranslate2.read(folder / MODEL)
    found = sizes(checkpoint)
    vocabulary = ctranslate2.read_vocabulary(folder)
    if len(vocabulary) != found.n_vocab:
        raise ArtifactError(
            f"{folder}: the vocabulary has {len(vocabulary)} tokens, model.bin {found.n_vocab}; "
            "both must be of the same model"
        )
    return CTranslate2Whisper(checkpoint, found, vocabulary)


def sizes(checkpoint: Checkpoint) -> Sizes:
    """Read the sizes of ``checkpoint``.

    Raises:
        ArtifactError: It is not a Whisper model, or of a build that the graphs do not cover.
    """
    if checkpoint.specification != "WhisperSpec":
        raise ArtifactError(
            f"{checkpoint.path} holds a {checkpoint.specification or 'nameless model'}, the family "
            "'whisper' takes a WhisperSpec"
        )
    activation = checkpoint.integer("decoder/activation")
    if activation != _GELU:
        raise ArtifactError(
            f"{checkpoint.path}: activation {activation}, Whisper has {_GELU} (GELU)"
        )
    conv = checkpoint.shape("encoder/conv1/weight", 3)
    audio = checkpoint.shape("encoder/position_encodings/encodings", 2)
    vocabulary = checkpoint.shape("decoder/embeddings/weight", 2)
    text = checkpoint.shape("decoder/position_encodings/encodings", 2)
    found = Sizes(
        n_mels=conv[1],
        n_audio_ctx=audio[0],
        n_audio_state=audio[1],
        n_audio_head=checkpoint.integer("encoder/num_heads"),
        n_audio_layer=checkpoint.layers("encoder"),
        n_vocab=vocabulary[0],
        n_text_ctx=text[0],
        n_text_state=text[1],
        n_text_head=checkpoint.integer("decoder/num_heads"),
        n_text_layer=checkpoint.layers("decoder"),
    )
    require_heads(checkpoint.path, found)
    return found
