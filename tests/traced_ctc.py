"""Stands where optimum stands: writes what it would write of a recogniser that hears pitch.

    python traced_ctc.py torch_trace.py PROGRAM CHECKPOINT OUT

The checkpoint's config.json may ask for trouble with ``"tests": "..."``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from edgevoice.frames import SAMPLE_RATE_HZ, Float32

TOKENS = ("<pad>", "<s>", "</s>", "<unk>", "|", "A", "B", "C")
TONES_HZ = {"A": 400.0, "B": 1000.0, "|": 1600.0, "C": 2500.0}
WINDOW, STEP, WIDTH = 400, 320, 96


def tones(text: str, ms: float = 200.0) -> Float32:
    """The sound that the model reads back as `text` (a full stop is silence)."""
    t = np.arange(int(ms * SAMPLE_RATE_HZ / 1000)) / SAMPLE_RATE_HZ
    parts = [0.02 * np.sin(2 * np.pi * TONES_HZ[c] * t) if c in TONES_HZ else 0.0 * t for c in text]
    return np.concatenate(parts).astype(np.float32)


def traced(trouble: str) -> onnx.ModelProto:
    """Energy in the bands of the tones, a layer that does nothing, and one score a token."""
    angles = 2 * np.pi * np.arange(WINDOW) / SAMPLE_RATE_HZ
    waves = [f(hz * angles) for hz in TONES_HZ.values() for f in (np.cos, np.sin)]
    sums = np.zeros((len(waves), WIDTH), np.float32)
    scores = np.zeros((WIDTH, len(TOKENS)), np.float32)
    bias = np.full(len(TOKENS), -9.0, np.float32)
    for band, token in enumerate(TONES_HZ):
        sums[2 * band : 2 * band + 2, band] = 1.0
        scores[band, TOKENS.index(token)] = 1.0
        bias[TOKENS.index(token)] = 0.0
    # In silence it is sure of nothing, which is no text either.
    bias[TOKENS.index("<pad>")], bias[TOKENS.index("<unk>")] = 0.5, 0.6
    middle = np.eye(WIDTH, dtype=np.float32)
    if trouble == "nan":
        middle[3, 4] = np.nan
    constants = {
        "front.conv.weight": (np.stack(waves)[:, None] * 2 / WINDOW).astype(np.float32),
        "sums": sums,
        "onnx::MatMul_1": middle,
        "onnx::MatMul_2": scores,
        "lm_head.bias": bias,
        "one": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Unsqueeze", ["input_values", "one"], ["channel"]),
        helper.make_node("Conv", ["channel", "front.conv.weight"], ["bands"], strides=[STEP]),
        helper.make_node("Mul", ["bands", "bands"], ["power"]),
        helper.make_node("Transpose", ["power"], ["frames"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["frames", "sums"], ["h0"], name="/sums/MatMul"),
        helper.make_node("MatMul", ["h0", "onnx::MatMul_1"], ["h1"], name="/layers.0/fc/MatMul"),
        helper.make_node("MatMul", ["h1", "onnx::MatMul_2"], ["h2"], name="/lm_head/MatMul"),
        helper.make_node("Add", ["h2", "lm_head.bias"], ["logits"]),
    ]
    sound = helper.make_tensor_value_info("input_values", TensorProto.FLOAT, ["n", "samples"])
    said = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", "t", len(TOKENS)])
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tones", [sound], [said], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def main(checkpoint: Path, out: Path) -> int:
    trouble = json.loads((checkpoint / "config.json").read_text()).get("tests", "")
    out.mkdir(parents=True)
    model = traced(trouble)
    onnx.save(model, out / "model.onnx")
    sound = tones("A.B|C") + np.float32(0.01)
    loud = trouble == "loud"
    heard = sound if loud else (sound - sound.mean()) / np.sqrt(sound.var() + 1e-7)
    session = ort.InferenceSession(model.SerializeToString())
    logits = session.run(["logits"], {"input_values": heard[None]})[0][0]
    np.savez(out / "check.npz", sound=sound, logits=logits * (2 if trouble == "wrong" else 1))
    tokens = [*TOKENS[:-1], "a b"] if trouble == "white space" else list(TOKENS)
    facts = {
        "architecture": "wav2vec2",
        "tokens": tokens[:-1] if trouble == "few tokens" else tokens,
        "blank": None if trouble == "no blank" else 0,
        "special": [0, 1, 2, 3],
        "delimiter": "|",
        "lower_case": trouble == "small letters",
        "sample_rate_hz": 16_000,
        "normalised": not loud,
    }
    (out / "facts.json").write_text(json.dumps(facts))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[3]), Path(sys.argv[4])))
