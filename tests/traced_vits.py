"""Stands where torch stands: writes what it would write of a voice of one sound a character.

    python traced_vits.py torch_trace.py PROGRAM CHECKPOINT OUT

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

VOCABULARY = {"k": 0, "a": 1, "b": 2, "é": 3, " ": 4, "'": 5, "<unk>": 6}
WIDTH, STEP = 64, 64
SAMPLES_PER_TOKEN = 4 * STEP


def traced(trouble: str) -> onnx.ModelProto:
    """An embedding that is repeated, a layer, and one that makes it sound."""
    random = np.random.default_rng(0)

    def weight(*shape: int) -> np.ndarray:
        return random.normal(0, 0.1, shape).astype(np.float32)

    layer = weight(WIDTH, WIDTH, 3)
    if trouble == "nan":
        layer[3, 4, 1] = np.nan
    constants = {
        "model.text_encoder.embed_tokens.weight": 10 * weight(len(VOCABULARY), WIDTH),
        "model.duration_predictor.weight": weight(WIDTH, WIDTH),
        "model.decoder.conv_pre.weight": layer,
        "model.decoder.conv_pre.bias": weight(WIDTH),
        "model.decoder.upsampler.weight": weight(WIDTH, 1, STEP),
        "four": np.array([4.0], np.float32),
        "half": np.array([0.5], np.float32),
        "ones": np.array([1, 1], np.int64),
        "middle": np.array([1], np.int64),
    }
    names = list(constants)
    nodes = [
        helper.make_node("Gather", [names[0], "x"], ["embedded"]),
        helper.make_node("MatMul", ["embedded", names[1]], ["h0"], name="/duration/MatMul"),
        helper.make_node("Transpose", ["h0"], ["h1"], perm=[0, 2, 1]),
        helper.make_node("Mul", ["length_scale", "four"], ["slow"]),
        helper.make_node("Ceil", ["slow"], ["whole"]),
        helper.make_node("Cast", ["whole"], ["times"], to=TensorProto.INT64),
        helper.make_node("Concat", ["ones", "times"], ["repeats"], axis=0),
        helper.make_node("Tile", ["h1", "repeats"], ["h2"]),
        helper.make_node("Conv", ["h2", names[2], names[3]], ["h3"], pads=[1, 1]),
        helper.make_node("Tanh", ["h3"], ["h4"]),
        helper.make_node("ConvTranspose", ["h4", names[4]], ["h5"], strides=[STEP]),
        helper.make_node("RandomNormalLike", ["h5"], ["random"]),
        helper.make_node("Mul", ["random", "noise_scale"], ["noise"]),
        helper.make_node("Add", ["h5", "noise"], ["noisy"]),
        helper.make_node("Mul", ["noisy", "half"], ["quiet"]),
        helper.make_node("Squeeze", ["quiet", "middle"], ["y"]),
    ]
    scales = ("noise_scale", "length_scale", "noise_scale_w")
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.INT64, [1, "tokens"]),
        helper.make_tensor_value_info("x_length", TensorProto.INT64, [1]),
        *(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in scales),
    ]
    said = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, "samples"])
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "voice", inputs, [said], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def main(checkpoint: Path, out: Path) -> int:
    trouble = json.loads((checkpoint / "config.json").read_text()).get("tests", "")
    out.mkdir(parents=True)
    model = traced(trouble)
    onnx.save(model, out / "model.onnx")
    tokens = np.array([0, 1, 0, 2, 0, 3, 0])
    silent = np.zeros(1, np.float32)
    feed = {
        "x": tokens[None],
        "x_length": np.array([len(tokens)]),
        "noise_scale": silent,
        "length_scale": np.array([1.25], np.float32),
        "noise_scale_w": silent,
    }
    sound = ort.InferenceSession(model.SerializeToString()).run(["y"], feed)[0][0]
    if trouble == "wrong":
        sound = sound * 2
    if trouble == "long":
        sound = sound[:-1]
    np.savez(out / "check.npz", tokens=tokens, sound=sound, length_scale=1.25)
    vocabulary = {"<unk>": 6, "<pad>": 0} if trouble == "no letters" else VOCABULARY
    facts = {
        "tokens": vocabulary,
        "scores": len(VOCABULARY),
        "unknown": "<unk>",
        "add_blank": True,
        "lower_case": trouble != "capitals",
        "phonemes": False,
        "roman": False,
        "language": "eng",
        "speakers": 1,
        "sample_rate_hz": 16_000,
        "noise_scale": 0.5,
        "noise_scale_w": 0.8,
        "length_scale": 2.0 if trouble == "slow" else 1.0,
    }
    (out / "facts.json").write_text(json.dumps(facts))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[3]), Path(sys.argv[4])))
