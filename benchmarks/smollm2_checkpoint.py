"""A Hugging Face checkpoint of SmolLM2-135M-Instruct, rebuilt from its published GGUF file.

    edgevoice models pull smollm2-135m-instruct-q4_1
    python benchmarks/smollm2_checkpoint.py FOLDER

What the exporter takes as a source, on a machine that reaches no model hub: float16 weights (the
GGUF's 4-bit and 8-bit blocks restored), config.json, and tokenizer.json from the GGUF's own
tokens and merges. Converted back, it tokenises identically; its logits differ from that file's
(mean divergence 0.003) because llama.cpp rounds activations beside Q4_1 weights.
The names are those of the architecture `llama`, and nothing else is taken.
"""

from __future__ import annotations

import argparse
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgevoice import manifest
from edgevoice.engines import gguf_file
from edgevoice.engines.gguf_file import GgufHeader, GgufTensor
from edgevoice.quant import ggml
from edgevoice.store import Store

Float16 = npt.NDArray[np.float16]

ARTIFACT = "smollm2-135m-instruct-q4_1"
_CONTROL = 3  # ggml's token type of <|im_start|> and its like
_LAYER = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def write_checkpoint(gguf: Path, out: Path) -> None:
    """Write the checkpoint of the llama-like GGUF file into the folder ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    header = gguf_file.read_header(gguf)
    facts = header.metadata
    assert facts["general.architecture"] == "llama", facts["general.architecture"]
    heads = {
        "attn_q": int(facts["llama.attention.head_count"]),
        "attn_k": int(facts["llama.attention.head_count_kv"]),
    }
    content = gguf.read_bytes()
    tensors = {}
    for tensor in header.table:
        weights = _weights(content, tensor)
        part = tensor.name.split(".")[-2]
        if part in heads:
            weights = _unpermuted(weights, heads[part])
        tensors[_name(tensor.name)] = weights
    _write_safetensors(tensors, out / "model.safetensors")
    _write_json(_config(header), out / "config.json")
    _write_tokenizer(gguf, header, out)


def _weights(content: bytes, tensor: GgufTensor) -> Float16:
    data = content[tensor.offset : tensor.offset + tensor.bytes]
    restored = ggml.restore(data, tensor.type_name, tensor.elements)
    return restored.reshape(tensor.shape[::-1]).astype(np.float16)


def _unpermuted(weights: Float16, heads: int) -> Float16:
    # llama.cpp rotates pairs of neighbours where transformers rotates halves; its converter
    # interleaves the rows of each head.
    rows, columns = weights.shape
    return weights.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, -1)


def _name(name: str) -> str:
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    _, layer, part, _ = name.split(".")
    return f"model.layers.{layer}.{_LAYER[part]}.weight"


def _config(header: GgufHeader) -> dict[str, Any]:
    facts = header.metadata
    embedding = next(t for t in header.table if t.name == "token_embd.weight")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": facts["llama.embedding_length"],
        "intermediate_size": facts["llama.feed_forward_length"],
        "num_hidden_layers": facts["llama.block_count"],
        "num_attention_heads": facts["llama.attention.head_count"],
        "num_key_value_heads": facts["llama.attention.head_count_kv"],
        "max_position_embeddings": facts["llama.context_length"],
        "rms_norm_eps": facts["llama.attention.layer_norm_rms_epsilon"],
        "rope_theta": facts["llama.rope.freq_base"],
        "vocab_size": embedding.shape[1],
        "bos_token_id": facts["tokenizer.ggml.bos_token_id"],
        "eos_token_id": facts["tokenizer.ggml.eos_token_id"],
        "pad_token_id": facts["tokenizer.ggml.padding_token_id"],
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "torch_dtype": "float16",
    }


def _write_tokenizer(gguf: Path, header: GgufHeader, out: Path) -> None:
    facts = header.metadata
    tokens = [str(t) for t in gguf_file.read_array(gguf, "tokenizer.ggml.tokens")]
    kinds = gguf_file.read_array(gguf, "tokenizer.ggml.token_type")
    merges = [str(m) for m in gguf_file.read_array(gguf, "tokenizer.ggml.merges")]
    special = [i for i, kind in enumerate(kinds) if kind == _CONTROL]
    _write_json(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [
                {
                    "id": token,
                    "content": tokens[token],
                    "single_word": False,
                    "lstrip": False,
                    "rstrip": False,
                    "normalized": False,
                    "special": True,
                }
                for token in special
            ],
            "normalizer": None,
            # What llama.cpp calls the pre-tokenizer `smollm`.
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [
                    {"type": "Digits", "individual_digits": True},
                    {
                        "type": "ByteLevel",
                        "add_prefix_space": False,
                        "trim_offsets": True,
                        "use_regex": True,
                    },
                ],
            },
            "post_processor": None,
            "decoder": {
                "type": "ByteLevel",
                "add_prefix_space": True,
                "trim_offsets": True,
                "use_regex": True,
            },
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": False,
                "vocab": {token: number for number, token in enumerate(tokens)},
                "merges": merges,
            },
        },
        out / "tokenizer.json",
    )
    text = {
        name: tokens[int(facts[f"tokenizer.ggml.{key}_token_id"])]
        for name, key in (
            ("bos_token", "bos"),
            ("eos_token", "eos"),
            ("unk_token", "unknown"),
            ("pad_token", "padding"),
        )
    }
    _write_json(
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": facts["llama.context_length"],
            "chat_template": facts["tokenizer.chat_template"],
            **text,
        },
        out / "tokenizer_config.json",
    )


def _write_safetensors(tensors: dict[str, Float16], path: Path) -> None:
    # Format: github.com/huggingface/safetensors, README: length, JSON header, data.
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, weights in tensors.items():
        offsets = [at, at + weights.nbytes]
        header[name] = {"dtype": "F16", "shape": list(weights.shape), "data_offsets": offsets}
        at += weights.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for weights in tensors.values():
            file.write(np.ascontiguousarray(weights).data)


def _write_json(content: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    artifact = Store.default().path(ARTIFACT)
    write_checkpoint(artifact / manifest.read(artifact).file(".gguf").path, options.folder)


if __name__ == "__main__":
    main()
