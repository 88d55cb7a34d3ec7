"""Traces a CTC checkpoint with optimum-onnx; run by :mod:`edgevoice.export.torch_trace` alone.

Writes optimum's `model.onnx` (``input_values`` [n, samples] to ``logits`` [n, frames, tokens]),
`facts.json` (the tokens and what the feature extractor does), and `check.npz`: some sound, and
torch's own logits for what the checkpoint's own feature extractor makes of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # at run time there is no edgevoice
    from edgevoice.export.torch_trace import Checkpoint

OPSET = 18
CHECK_SAMPLES = 24_000


def trace(checkpoint: Checkpoint) -> None:
    """Write the graph, the facts and the check of ``checkpoint``."""
    import numpy as np
    import torch
    from optimum.exporters.onnx import onnx_export_from_model
    from transformers import AutoFeatureExtractor, AutoModelForCTC, AutoTokenizer

    tokenizer, extractor = map(checkpoint.read, (AutoTokenizer, AutoFeatureExtractor))
    model = checkpoint.model(AutoModelForCTC)
    facts = read_facts(model, tokenizer, extractor)
    checkpoint.write_facts(facts)
    # As loud as speech, and not centred.
    sound = np.random.default_rng(0).normal(0.01, 0.05, CHECK_SAMPLES).astype(np.float32)
    inputs = extractor(sound, sampling_rate=extractor.sampling_rate, return_tensors="pt")
    with torch.no_grad():
        logits = model(inputs["input_values"]).logits
    np.savez(checkpoint.out / "check.npz", sound=sound, logits=logits[0].float().numpy())
    onnx_export_from_model(
        model,
        checkpoint.out,
        opset=OPSET,
        task="automatic-speech-recognition",
        do_validation=False,
        no_dynamic_axes=False,
    )


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
