"""Stands where optimum stands: writes what it would write of the hand-built model.

    python traced_checkpoint.py torch_trace.py PROGRAM CHECKPOINT OUT

The checkpoint's config.json may ask for trouble with ``"tests": "..."``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import tiny_llm


def main(checkpoint: Path, out: Path) -> int:
    trouble = json.loads((checkpoint / "config.json").read_text()).get("tests", "")
    if trouble == "crash":
        print("Traceback ...\nValueError: rope_scaling is not understood", file=sys.stderr)
        return 1
    out.mkdir(parents=True)
    words = tiny_llm.tokenizer()
    words.save(str(out / "tokenizer.json"))
    weights = tiny_llm.random_weights(words.get_vocab_size(), 96)
    weights["head"] = np.ascontiguousarray(weights["embed"].T)
    if trouble == "nan":
        weights["1.o"][3, 4] = np.nan
    model = tiny_llm.traced(weights)
    if trouble == "strange":
        next(n for n in model.graph.node if n.op_type == "Neg").op_type = "Abs"
    onnx.save(model, out / "model.onnx")
    tokens = np.random.default_rng(0).integers(0, words.get_vocab_size(), 30)
    feed = {
        "input_ids": tokens[None],
        "position_ids": np.arange(30)[None],
        "mask": np.triu(np.full((30, 30), -np.inf, np.float32), 1),
    }
    empty = np.zeros((1, tiny_llm.KEYS, 0, tiny_llm.WIDTH), np.float32)
    feed |= {i.name: empty for i in model.graph.input if i.name.startswith("past")}
    session = ort.InferenceSession(model.SerializeToString())
    logits = session.run(["logits"], feed)[0][0]
    np.savez(out / "check.npz", tokens=tokens, logits=logits * (2 if trouble == "wrong" else 1))
    facts = {
        "architecture": "llama",
        "layers": tiny_llm.LAYERS,
        "query_heads": tiny_llm.QUERIES,
        "key_heads": tiny_llm.KEYS,
        "windows": [-1] * tiny_llm.LAYERS,
        "softcap": 0.0,
        "positions": 512,
        "vocabulary": words.get_vocab_size(),
        "chat_template": "" if trouble == "no template" else tiny_llm.TEMPLATE,
        "bos_token": tiny_llm.START,
        "eos_token": tiny_llm.END,
        "end_tokens": [words.token_to_id(tiny_llm.END)],
    }
    (out / "facts.json").write_text(json.dumps(facts))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[3]), Path(sys.argv[4])))
