"""Traces a checkpoint with optimum-onnx; runs in an interpreter that has torch, never in edgevoice.

    python optimum_export.py CHECKPOINT OUT [--allow-pickle]

A program of its own: it imports nothing of edgevoice and is imported by nothing. Writes optimum's
`model.onnx`, the `tokenizer.json`, `facts.json` (what the graph does not say), and `check.npz`:
some tokens and torch's own logits for them, which the rewritten graph is held against.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

OPSET = 18
CHECK_TOKENS = 48


def main() -> int:
    """Export one checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--allow-pickle", action="store_true")
    chosen = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"

    import numpy as np
    import torch
    from optimum.exporters.onnx import onnx_export_from_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    chosen.out.mkdir(parents=True, exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(chosen.checkpoint, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(
        chosen.checkpoint,
        dtype=torch.float32,
        local_files_only=True,
        use_safetensors=None if chosen.allow_pickle else True,
        trust_remote_code=False,
    ).eval()
    tokenizer.save_pretrained(chosen.out)
    facts = read_facts(model, tokenizer)
    (chosen.out / "facts.json").write_text(json.dumps(facts, indent=1, sort_keys=True))
    tokens = np.random.default_rng(0).integers(0, facts["vocabulary"], (1, CHECK_TOKENS))
    with torch.no_grad():
        logits = model(input_ids=torch.from_numpy(tokens), use_cache=False).logits
    np.savez(chosen.out / "check.npz", tokens=tokens[0], logits=logits[0].float().numpy())
    onnx_export_from_model(
        model,
        chosen.out,
        opset=OPSET,
        task="text-generation-with-past",
        do_validation=False,
        no_dynamic_axes=False,
    )
    return 0


def read_facts(model: Any, tokenizer: Any) -> dict[str, Any]:
    """Return what the engine and the graph's rewriting have to know."""
    config = model.config.get_text_config()
    layers = int(config.num_hidden_layers)
    window = int(getattr(config, "sliding_window", None) or 0)
    # Without a list, a window is every layer's (mistral).
    usual = "sliding_attention" if window else "full_attention"
    kinds = getattr(config, "layer_types", None) or [usual] * layers
    ends = model.generation_config.eos_token_id
    if ends is None:
        ends = tokenizer.eos_token_id
    found = [ends] if isinstance(ends, int) else list(ends or ())
    if tokenizer.eos_token_id is not None:
        found.append(tokenizer.eos_token_id)
    template = tokenizer.chat_template
    return {
        "architecture": model.config.model_type,
        "layers": layers,
        "query_heads": int(config.num_attention_heads),
        "key_heads": int(config.num_key_value_heads),
        "windows": [window if kind == "sliding_attention" else -1 for kind in kinds],
        "softcap": float(getattr(config, "attn_logit_softcapping", None) or 0.0),
        "positions": int(config.max_position_embeddings),
        "vocabulary": int(config.vocab_size),
        "chat_template": tokenizer.get_chat_template() if template else "",
        "bos_token": tokenizer.bos_token or "",
        "eos_token": tokenizer.eos_token or "",
        "end_tokens": sorted(set(found)),
    }


if __name__ == "__main__":
    raise SystemExit(main())
