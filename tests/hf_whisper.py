"""Writes a CTranslate2 Whisper as the Hugging Face checkpoint that it was made from.

The inverse of what the exporter does with names: from `modeling_whisper.py`'s, by hand.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

_TYPES = {"float16": "F16", "float32": "F32", "uint16": "BF16", "int64": "I64"}
_ATTENTION = {"self_attention": "self_attn", "attention": "encoder_attn"}


def tensors(variables: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return transformers' tensors of CTranslate2's ``variables``."""
    found: dict[str, np.ndarray] = {}
    for name, values in variables.items():
        parts = name.split("/")
        stack, leaf = parts[0], {"gamma": "weight", "beta": "bias"}.get(parts[-1], parts[-1])
        if values.ndim == 0 or stack not in ("encoder", "decoder") or parts[1] == "projection":
            continue
        if not parts[1].startswith("layer_") or parts[1] == "layer_norm":
            whole = {
                "position_encodings": "embed_positions",
                "embeddings": "embed_tokens",
            }.get(parts[1], parts[1])
            found[f"model.{stack}.{whole}.{leaf.replace('encodings', 'weight')}"] = values
            continue
        before = f"model.{stack}.layers.{parts[1].removeprefix('layer_')}"
        block, part = parts[2], parts[3]
        if block == "ffn":
            inner = {"layer_norm": "final_layer_norm", "linear_0": "fc1", "linear_1": "fc2"}[part]
            found[f"{before}.{inner}.{leaf}"] = values
        elif part == "layer_norm":
            found[f"{before}.{_ATTENTION[block]}_layer_norm.{leaf}"] = values
        else:
            fused = {"self_attention/linear_0": "qkv", "self_attention/linear_1": "o"}
            fused |= {
                "attention/linear_0": "q",
                "attention/linear_1": "kv",
                "attention/linear_2": "o",
            }
            letters = fused[f"{block}/{part}"]
            for letter, piece in zip(letters, np.split(values, len(letters)), strict=True):
                if letter == "k" and leaf == "bias":
                    assert not piece.any()  # Whisper's keys have no bias
                    continue
                inner = "out_proj" if letter == "o" else f"{letter}_proj"
                found[f"{before}.{_ATTENTION[block]}.{inner}.{leaf}"] = piece
    return found


def save_safetensors(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write ``arrays``; uint16 counts as bfloat16."""
    header, at = {}, 0
    for name, array in arrays.items():
        header[name] = {
            "dtype": _TYPES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [at, at + array.nbytes],
        }
        at += array.nbytes
    text = json.dumps(header).encode()
    data = b"".join(np.ascontiguousarray(a).tobytes() for a in arrays.values())
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def config(arrays: Mapping[str, np.ndarray], heads: int) -> dict[str, object]:
    """Return the ``config.json`` of ``arrays``."""

    def layers(stack: str) -> int:
        before = f"model.{stack}.layers."
        return len({n.split(".")[3] for n in arrays if n.startswith(before)})

    state, mels, _ = arrays["model.encoder.conv1.weight"].shape
    return {
        "model_type": "whisper",
        "architectures": ["WhisperForConditionalGeneration"],
        "activation_function": "gelu",
        "d_model": state,
        "num_mel_bins": mels,
        "vocab_size": len(arrays["model.decoder.embed_tokens.weight"]),
        "max_source_positions": len(arrays["model.encoder.embed_positions.weight"]),
        "max_target_positions": len(arrays["model.decoder.embed_positions.weight"]),
        "encoder_layers": layers("encoder"),
        "decoder_layers": layers("decoder"),
        "encoder_attention_heads": heads,
        "decoder_attention_heads": heads,
    }


def tokenizer(vocabulary: list[str]) -> dict[str, object]:
    """Return a ``tokenizer.json`` with ``vocabulary``, special tokens as additions."""
    special = [t for t in vocabulary if t.startswith("<|")]
    return {
        "model": {"vocab": {t: i for i, t in enumerate(vocabulary) if t not in special}},
        "added_tokens": [{"id": vocabulary.index(t), "content": t} for t in special],
    }


def write(
    folder: Path, arrays: Mapping[str, np.ndarray], heads: int, vocabulary: list[str]
) -> Path:
    """Write a checkpoint of one safetensors file into ``folder``."""
    save_safetensors(folder / "model.safetensors", arrays)
    (folder / "config.json").write_text(json.dumps(config(arrays, heads)), encoding="utf-8")
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer(vocabulary)), encoding="utf-8")
    return folder
