"""Whisper in a Hugging Face checkpoint (``WhisperForConditionalGeneration``).

Owns the names that transformers gives the tensors (``modeling_whisper.py``) and the vocabulary of
its tokenizer files. Containers are :mod:`edgevoice.export.hf_checkpoint`'s business.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevoice.errors import ArtifactError
from edgevoice.export import hf_checkpoint
from edgevoice.export.families.whisper_weights import Sizes, require_heads
from edgevoice.export.hf_checkpoint import HfCheckpoint

# CTranslate2's names of the parts of a layer, and transformers'. Fused ones have several.
_PARTS: Mapping[str, tuple[str, ...]] = {
    "self_attention/linear_0": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attention/linear_1": ("self_attn.out_proj",),
    "self_attention/layer_norm": ("self_attn_layer_norm",),
    "attention/linear_0": ("encoder_attn.q_proj",),
    "attention/linear_1": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "attention/linear_2": ("encoder_attn.out_proj",),
    "attention/layer_norm": ("encoder_attn_layer_norm",),
    "ffn/layer_norm": ("final_layer_norm",),
    "ffn/linear_0": ("fc1",),
    "ffn/linear_1": ("fc2",),
}
_OTHERS: Mapping[str, str] = {
    "position_encodings/encodings": "embed_positions.weight",
    "embeddings/weight": "embed_tokens.weight",
    "layer_norm/gamma": "layer_norm.weight",
    "layer_norm/beta": "layer_norm.bias",
    "conv1/weight": "conv1.weight",
    "conv1/bias": "conv1.bias",
    "conv2/weight": "conv2.weight",
    "conv2/bias": "conv2.bias",
}
_LEAVES = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}
_PREFIX = "model."


@dataclass(frozen=True, slots=True)
class HfWhisper:
    """:class:`edgevoice.export.families.whisper_weights.Weights` of a checkpoint folder."""

    checkpoint: HfCheckpoint
    sizes: Sizes
    vocabulary: Sequence[str]
    prefix: str

    @property
    def path(self) -> Path:
        """The folder."""
        return self.checkpoint.folder

    def floats(self, name: str) -> NDArray[np.float32]:
        """Return the tensor that CTranslate2 calls ``name``."""
        stack, _, rest = name.partition("/")
        if rest in _OTHERS:
            return self.checkpoint.floats(f"{self.prefix}{stack}.{_OTHERS[rest]}")
        layer, _, rest = rest.partition("/")
        part, _, leaf = rest.rpartition("/")
        before = f"{self.prefix}{stack}.layers.{layer.removeprefix('layer_')}"
        pieces = [f"{before}.{p}.{_LEAVES[leaf]}" for p in _PARTS[part]]
        return np.concatenate([self._piece(piece) for piece in pieces])

    def _piece(self, name: str) -> NDArray[np.float32]:
        # The key projection has no bias.
        if name.endswith(".k_proj.bias"):
            return np.zeros(self.checkpoint.shapes[name.replace("bias", "weight")][0], np.float32)
        return self.checkpoint.floats(name)


def read(folder: Path, allow_pickle: bool = False) -> HfWhisper:
    """Read ``folder``.

    Raises:
        ArtifactError: Something is missing or damaged, or it is not a Whisper model.
    """
    checkpoint = hf_checkpoint.read(folder, allow_pickle)
    found = sizes(checkpoint.folder, checkpoint.config)
    prefix = _PREFIX if any(n.startswith(_PREFIX) for n in checkpoint.shapes) else ""
    whisper = HfWhisper(checkpoint, found, read_vocabulary(folder, found.n_vocab), prefix)
    _require_shapes(whisper)
    return whisper


def sizes(folder: Path, config: Mapping[str, Any]) -> Sizes:
    """Read the sizes from ``config.json``.

    Raises:
        ArtifactError: It is not Whisper's, or of a build that the graphs do not cover.
    """
    if config.get("model_type") != "whisper":
        raise ArtifactError(
            f"{folder}: config.json says model_type {config.get('model_type')!r}, the family "
            "'whisper' takes 'whisper'"
        )
    if config.get("activation_function", "gelu") != "gelu":
        raise ArtifactError(
            f"{folder}: activation {config['activation_function']!r}, Whisper has 'gelu'"
        )
    whole = HfCheckpoint(folder, config, {}, {}).integer
    state = whole("d_model")
    found = Sizes(
        n_mels=whole("num_mel_bins"),
        n_audio_ctx=whole("max_source_positions"),
        n_audio_state=state,
        n_audio_head=whole("encoder_attention_heads"),
        n_audio_layer=whole("encoder_layers"),
        n_vocab=whole("vocab_size"),
        n_text_ctx=whole("max_target_positions"),
        n_text_state=state,
        n_text_head=whole("decoder_attention_heads"),
        n_text_layer=whole("decoder_layers"),
    )
    require_heads(folder, found)
    return found


def read_vocabulary(folder: Path, n_vocab: int) -> list[str]:
    """Return the ``n_vocab`` tokens of ``tokenizer.json``, or ``vocab.json`` and its additions.

    Ids without a token are "": older tokenizers do not list the timestamps.

    Raises:
        ArtifactError: Neither is there, it is not Whisper's kind, or it has ids beyond the model's.
    """
    whole, plain = folder / "tokenizer.json", folder / "vocab.json"
    added = folder / "added_tokens.json"
    try:
        if whole.is_file():
            data = json.loads(whole.read_text(encoding="utf-8"))
            ids = dict(data["model"]["vocab"])
            ids |= {token["content"]: token["id"] for token in data["added_tokens"]}
        elif plain.is_file():
            ids = dict(json.loads(plain.read_text(encoding="utf-8")))
            if added.is_file():
                ids |= json.loads(added.read_text(encoding="utf-8"))
        else:
            raise ArtifactError(
                f"{folder} has no tokenizer.json and no vocab.json; fetch the tokenizer's files too"
            )
        vocabulary = [""] * n_vocab
        for token, number in ids.items():
            if not 0 <= int(number) < n_vocab:
                raise ArtifactError(
                    f"{folder}: the tokenizer has id {number} ({token!r}), the model {n_vocab} "
                    "tokens; both must be of the same model"
                )
            vocabulary[int(number)] = str(token)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ArtifactError(f"{folder}: no vocabulary can be read: {error!r}") from error
    return vocabulary


def _require_shapes(whisper: HfWhisper) -> None:
    """Compare the largest tensors with what ``config.json`` says of them."""
    size, shapes = whisper.sizes, whisper.checkpoint.shapes
    wanted = {
        "encoder.conv1.weight": (size.n_audio_state, size.n_mels, 3),
        "encoder.embed_positions.weight": (size.n_audio_ctx, size.n_audio_state),
        "decoder.embed_tokens.weight": (size.n_vocab, size.n_text_state),
        "decoder.embed_positions.weight": (size.n_text_ctx, size.n_text_state),
    }
    for name, shape in wanted.items():
        found = shapes.get(whisper.prefix + name)
        if found != shape:
            raise ArtifactError(
                f"{whisper.path}: tensor {whisper.prefix + name!r} has shape {found}, config.json "
                f"says {shape}"
            )
