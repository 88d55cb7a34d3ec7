"""A tiny streaming recogniser, made here: sherpa-onnx loads it as any wenet-ctc pack.

It hears pitch. Each output frame stands for two feature frames (subsampling 2) and says which of
a few tones is loudest in it, or blank when it is quiet. The layout is the one that sherpa-onnx's
`OnlineRecognizer.from_wenet_ctc` runs: chunk, offset, required cache size, two caches and a mask
in; log-probabilities and the two caches out.
"""

import hashlib
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgevoice import manifest
from edgevoice.frames import SAMPLE_RATE_HZ, Float32
from edgevoice.manifest import ArtifactFile, Manifest

CHUNK = 16
LEFT_CHUNKS = 2
SUBSAMPLING = 2
CHUNK_MS = CHUNK * SUBSAMPLING * 10
TOKENS = ("<blk>", "a", "b", "c", "▁")
TONES_HZ = {"a": 400.0, "b": 1000.0, "c": 2500.0}
_HEADS, _LAYERS, _WIDTH, _KERNEL, _RIGHT = 1, 1, 4, 2, 2


def tones(text: str, ms: float = 200.0) -> Float32:
    """The sound that the model reads back as `text` (a space is silence)."""
    count = int(ms * SAMPLE_RATE_HZ / 1000)
    t = np.arange(count) / SAMPLE_RATE_HZ
    parts = [
        0.5 * np.sin(2 * np.pi * TONES_HZ[c] * t) if c in TONES_HZ else np.zeros(count)
        for c in text
    ]
    return np.concatenate([np.zeros(0), *parts]).astype(np.float32)


def mel_band(hz: float) -> int:
    """The band of 80 between 20 and 7600 Hz, on kaldi's mel scale, that hears `hz` best."""

    def mel(f: float) -> float:
        return 1127.0 * float(np.log(1.0 + f / 700.0))

    return round((mel(hz) - mel(20.0)) / (mel(7600.0) - mel(20.0)) * 81.0) - 1


def write_pack(folder: Path, *, outlier: bool = False, **engine: object) -> Path:
    """Write model, tokens and manifest into `folder`; return it.

    With `outlier`, one product sees an activation so large that bytes leave nothing of the rest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(_model(outlier).SerializeToString())
    (folder / "tokens.txt").write_text(
        "".join(f"{token} {number}\n" for number, token in enumerate(TOKENS)), encoding="utf-8"
    )
    files = tuple(_entry(folder / name) for name in ("model.onnx", "tokens.txt"))
    about = {"chunk_size": CHUNK, "num_left_chunks": LEFT_CHUNKS, "subsampling": SUBSAMPLING}
    manifest.write(
        Manifest(
            name=folder.name,
            stage="recogniser",
            family="wenet-ctc",
            format="onnx",
            scheme="fp32",
            licence="Apache-2.0",
            source="made by the tests",
            files=files,
            engine=about | engine,
        ),
        folder,
    )
    return folder


def _entry(path: Path) -> ArtifactFile:
    content = path.read_bytes()
    return ArtifactFile(path.name, len(content), hashlib.sha256(content).hexdigest())


def _model(outlier: bool) -> onnx.ModelProto:
    """Mean of two frames, two layers that do nothing, one that picks the tones' bands."""
    # sherpa-onnx feeds (CHUNK - 1) 2 + right context + 1 frames; the first 2 CHUNK are used.
    weights = np.zeros((80, len(TOKENS)), np.float32)
    bias = np.full(len(TOKENS), -1000.0, np.float32)
    for number, token in enumerate(TOKENS):
        if token in TONES_HZ:
            band = mel_band(TONES_HZ[token])
            weights[band - 1 : band + 2, number] = 1.0
            bias[number] = 0.0
    # sherpa-onnx's features are log energies of samples scaled by 32768: a tone of amplitude 0.5
    # reaches 24 in its band, silence lies at -16. Three bands at 18 are the threshold.
    bias[0] = 54.0
    # No tone is heard in band 0.
    shift = np.zeros(80, np.float32)
    shift[0] = 20_000.0 if outlier else 0.0
    constants = {
        "weights": weights,
        "first": np.eye(80, dtype=np.float32),
        "second": np.eye(80, dtype=np.float32),
        "shift": shift,
        "bias": bias,
        "begin": np.array([0], np.int64),
        "end": np.array([CHUNK * SUBSAMPLING], np.int64),
        "axis": np.array([1], np.int64),
        "pairs": np.array([1, CHUNK, SUBSAMPLING, 80], np.int64),
    }
    nodes = [
        helper.make_node("Slice", ["chunk", "begin", "end", "axis"], ["used"]),
        helper.make_node("Reshape", ["used", "pairs"], ["paired"]),
        helper.make_node("ReduceMean", ["paired"], ["mean"], axes=[2], keepdims=0),
        helper.make_node("MatMul", ["mean", "first"], ["h0"], name="/layers.0/MatMul"),
        helper.make_node("Add", ["h0", "shift"], ["h1"]),
        helper.make_node("MatMul", ["h1", "second"], ["h2"], name="/layers.1/MatMul"),
        helper.make_node("Sub", ["h2", "shift"], ["h3"]),
        helper.make_node("MatMul", ["h3", "weights"], ["scores"], name="/output/MatMul"),
        helper.make_node("Add", ["scores", "bias"], ["logits"]),
        helper.make_node("LogSoftmax", ["logits"], ["log_probs"], axis=-1),
        helper.make_node("Identity", ["attn_cache"], ["next_attn_cache"]),
        helper.make_node("Identity", ["conv_cache"], ["next_conv_cache"]),
    ]
    cache = CHUNK * LEFT_CHUNKS
    attention = [_LAYERS, _HEADS, cache, _WIDTH // _HEADS * 2]
    convolution = [_LAYERS, 1, _WIDTH, _KERNEL - 1]
    frames = (CHUNK - 1) * SUBSAMPLING + _RIGHT + 1
    inputs = [
        ("chunk", TensorProto.FLOAT, [1, frames, 80]),
        ("offset", TensorProto.INT64, [1]),
        ("required_cache_size", TensorProto.INT64, [1]),
        ("attn_cache", TensorProto.FLOAT, attention),
        ("conv_cache", TensorProto.FLOAT, convolution),
        ("attn_mask", TensorProto.BOOL, [1, 1, cache + CHUNK]),
    ]
    outputs = [
        ("log_probs", TensorProto.FLOAT, [1, CHUNK, len(TOKENS)]),
        ("next_attn_cache", TensorProto.FLOAT, attention),
        ("next_conv_cache", TensorProto.FLOAT, convolution),
    ]
    graph = helper.make_graph(
        nodes,
        "tones",
        [helper.make_tensor_value_info(*i) for i in inputs],
        [helper.make_tensor_value_info(*o) for o in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    facts = {
        "head": _HEADS,
        "num_blocks": _LAYERS,
        "output_size": _WIDTH,
        "cnn_module_kernel": _KERNEL,
        "right_context": _RIGHT,
        "subsampling_factor": SUBSAMPLING,
        "vocab_size": len(TOKENS),
        "chunk_size": CHUNK,
        "left_chunks": LEFT_CHUNKS,
    }
    helper.set_model_props(model, {key: str(value) for key, value in facts.items()})
    return model
