"""Traces a CTC checkpoint with optimum-onnx; runs in an interpreter that has torch.

    python optimum_ctc.py CHECKPOINT OUT [--allow-pickle]

A program of its own: it imports nothing of edgevoice and is imported by nothing. Writes optimum's
`model.onnx` (``input_values`` [n, samples] to ``logits`` [n, frames, tokens]), `facts.json` (the
tokens and what the feature extractor does), and `check.npz`: some sound, and torch's own logits
for what the checkpoint's own feature extractor makes of it.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

OPSET = 18
CHECK_SAMPLES = 24_000


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
    from torch.nn.utils import parametrize
    from transformers import AutoFeatureExtractor, AutoModelForCTC, AutoTokenizer

    chosen.out.mkdir(parents=True, exist_ok=True)
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    tokenizer = AutoTokenizer.from_pretrained(chosen.checkpoint, **local)
    extractor = AutoFeatureExtractor.from_pretrained(chosen.checkpoint, **local)
    model = AutoModelForCTC.from_pretrained(
        chosen.checkpoint,
        dtype=torch.float32,
        use_safetensors=None if chosen.allow_pickle else True,
        **local,
    ).eval()
    # A norm and a direction become one weight, which then has the module's name.
    for module in model.modules():
        if parametrize.is_parametrized(module):
            for name in list(module.parametrizations):
                parametrize.remove_parametrizations(module, name)
    facts = read_facts(model, tokenizer, extractor)
    (chosen.out / "facts.json").write_text(json.dumps(facts, indent=1, sort_keys=True))
    # As loud as speech, and not centred.
    sound = np.random.default_rng(0).normal(0.01, 0.05, CHECK_SAMPLES).astype(np.float32)
    inputs = extractor(sound, sampling_rate=extractor.sampling_rate, return_tensors="pt")
    with torch.no_grad():
        logits = model(inputs["input_values"]).logits
    np.savez(chosen.out / "check.npz", sound=sound, logits=logits[0].float().numpy())
    onnx_export_from_model(
        model,
        chosen.out,
        opset=OPSET,
        task="automatic-speech-recognition",
        do_validation=False,
        no_dynamic_axes=False,
    )
    return 0


def read_facts(model: Any, tokenizer: Any, extractor: Any) -> dict[str, Any]:
    """Return what the graph's rewriting has to know; the tokens in the order of their scores."""
    by_id = {number: token for token, number in tokenizer.get_vocab().items()}
    return {
        "architecture": model.config.model_type,
        "tokens": [by_id.get(i, "") for i in range(int(model.config.vocab_size))],
        "blank": tokenizer.pad_token_id,
        "special": sorted(tokenizer.all_special_ids),
        "delimiter": getattr(tokenizer, "word_delimiter_token", None) or "",
        "lower_case": bool(getattr(tokenizer, "do_lower_case", False)),
        "sample_rate_hz": int(extractor.sampling_rate),
        "normalised": bool(extractor.do_normalize),
    }


if __name__ == "__main__":
    raise SystemExit(main())
