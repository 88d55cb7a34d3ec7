"""Traces a language model with optimum-onnx; run by :mod:`edgevoice.export.torch_trace` alone.

Writes optimum's `model.onnx`, the `tokenizer.json`, `facts.json` (what the graph does not say), and
`check.npz`: some tokens and torch's own logits for them, which the rewritten graph is held against.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # at run time there is no edgevoice
    from edgevoice.export.torch_trace import Checkpoint

OPSET = 18
CHECK_TOKENS = 48


def trace(checkpoint: Checkpoint) -> None:
    """Write the graph, the facts and the check of ``checkpoint``."""
    import numpy as np
    import torch
    from optimum.exporters.onnx import onnx_export_from_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = checkpoint.read(AutoTokenizer)
    model = checkpoint.model(AutoModelForCausalLM)
    tokenizer.save_pretrained(checkpoint.out)
    facts = read_facts(model, tokenizer)
    checkpoint.write_facts(facts)
    tokens = np.random.default_rng(0).integers(0, facts["vocabulary"], (1, CHECK_TOKENS))
    with torch.no_grad():
        logits = model(input_ids=torch.from_numpy(tokens), use_cache=False).logits
    np.savez(checkpoint.out / "check.npz", tokens=tokens[0], logits=logits[0].float().numpy())
    onnx_export_from_model(
        model,
        checkpoint.out,
        opset=OPSET,
        task="text-generation-with-past",
        do_validation=False,
        no_dynamic_axes=False,
    )


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
