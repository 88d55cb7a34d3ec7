"""Whisper's encoder as sherpa-onnx runs it, with the cross-attention's keys and values.

Owns the encoder's graph. sherpa-onnx (``offline-whisper-model.cc``) binds inputs and outputs by
position and passes both outputs on to the decoder without looking at their shapes; its only own
shape is the log-mel ``[1, n_mels, T]``. So keys and values are as attention wants them,
``[layers, heads, length, head size]``.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

from edgevoice.export.families.whisper_layers import Layers
from edgevoice.export.families.whisper_silence import distant_silence
from edgevoice.export.families.whisper_weights import Sizes, Weights
from edgevoice.export.onnx_graph import Graph
from edgevoice.quant.onnx_nodes import CONTRIB

SILENT_LOG_MEL = -1.5  # (log10(1e-10) + 4) / 4: Whisper's log-mel of digital silence


def encoder(
    weights: Weights, metadata: Mapping[str, str | int], silence: NDArray[np.float32]
) -> onnx.ModelProto:
    """Build the encoder with the cross-attention's keys and values of every decoder layer.

    Whisper was trained on 30 s of audio and falls into loops on less, but most of the 30 s is
    silence that always comes out alike. So only the audio and its tail padding are computed, and
    rows of ``silence`` stand for the rest of the context.

    Input ``mel``: float32 [1, n_mels, T], Whisper's normalised log-mel at 100 frames a second,
    T at most twice ``n_audio_ctx``. Frames that are zero throughout, sherpa-onnx's tail padding,
    count as digital silence. Outputs ``n_layer_cross_k`` and ``n_layer_cross_v``: float32
    [n_text_layer, n_text_head, ceil(T / 2) + its silence, head size].

    Args:
        weights: A Whisper model.
        metadata: What :func:`metadata` returned.
        silence: float32 [n_audio_ctx, n_audio_state], what :func:`encoded_silence` returned.
    """
    size = weights.sizes
    graph = Graph("whisper_encoder")
    net = Layers(graph, weights)
    states = _audio_states(graph, net, size)
    states = graph.op("Concat", states, distant_silence(graph, states, silence), axis=1)
    head = size.n_text_state // size.n_text_head
    shape = graph.constant([-1, size.n_text_layer, size.n_text_head, head])
    shapes: list[int | str] = [size.n_text_layer, size.n_text_head, "T_keys", head]
    for row, name in enumerate(("n_layer_cross_k", "n_layer_cross_v")):
        half = slice(row * size.n_text_state, (row + 1) * size.n_text_state)
        sources = [f"decoder/layer_{i}/attention/linear_1" for i in range(size.n_text_layer)]
        # One product for all layers: [1, T, layers * state].
        matrix = np.concatenate([weights.floats(f"{s}/weight")[half] for s in sources])
        vector = np.concatenate([weights.floats(f"{s}/bias")[half] for s in sources])
        weight = graph.weight(f"decoder/{name}/weight", matrix.T)
        bias = graph.weight(f"decoder/{name}/bias", vector)
        keys = graph.op("Reshape", graph.op("Add", graph.op("MatMul", states, weight), bias), shape)
        graph.output(graph.op("Transpose", keys, perm=[1, 2, 0, 3]), name, np.float32, shapes)
    return graph.model(metadata)


def encoded_silence(weights: Weights) -> NDArray[np.float32]:
    """Encode 30 s of digital silence: float32 [n_audio_ctx, n_audio_state], float16 precision."""
    import onnxruntime

    size = weights.sizes
    graph = Graph("whisper_encoder")
    states = _audio_states(graph, Layers(graph, weights), size)
    graph.output(states, "states", np.float32, [1, "T_out", size.n_audio_state])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the same order of additions, so the same bytes
    session = onnxruntime.InferenceSession(
        graph.model({}).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    mel = np.zeros((1, size.n_mels, 2 * size.n_audio_ctx), np.float32)
    encoded: NDArray[np.float32] = session.run(["states"], {"mel": mel})[0][0]
    return encoded.astype(np.float16).astype(np.float32)


def _audio_states(graph: Graph, net: Layers, size: Sizes) -> str:
    """Add the audio encoder proper: ``mel`` to [1, ceil(T / 2), n_audio_state]."""
    mel = graph.input("mel", np.float32, [1, size.n_mels, "T"])
    x = net.convolution(_silence_padding(graph, mel), "encoder/conv1", 1)
    x = net.convolution(x, "encoder/conv2", 2)
    x = graph.op("Transpose", x, perm=[0, 2, 1])
    positions = graph.weight(
        "encoder/positions", net.weights.floats("encoder/position_encodings/encodings")
    )
    length = graph.op("Shape", x, start=1, end=2)
    zero = graph.constant([0])
    x = graph.op("Add", x, graph.op("Slice", positions, zero, length, zero))
    for i in range(size.n_audio_layer):
        layer = f"encoder/layer_{i}"
        attention = f"{layer}/self_attention"
        qkv = net.linear(net.norm(x, f"{attention}/layer_norm"), f"{attention}/linear_0")
        q, k, v = graph.split_op("Split", [qkv], 3, axis=-1, num_outputs=3)
        mixed = graph.op(f"{CONTRIB}:MultiHeadAttention", q, k, v, num_heads=size.n_audio_head)
        x = graph.op("Add", x, net.linear(mixed, f"{attention}/linear_1"))
        x = net.feed_forward(x, f"{layer}/ffn")
    return net.norm(x, "encoder/layer_norm")


def _silence_padding(graph: Graph, mel: str) -> str:
    """Turn frames of zeros into what Whisper's front end makes of appended silence.

    sherpa-onnx pads with zeros after normalisation, which is not silence but a hiss near the
    middle of the range. Whisper normalises to ``(max(x, max(x) - 8) + 4) / 4`` of
    ``log10(max(mel, 1e-10))``, so silence is the larger of -1.5 and the maximum less 2.
    """
    peak = graph.op("ReduceMax", graph.op("Abs", mel), graph.constant([1]), keepdims=1)
    empty = graph.op("Equal", peak, graph.constant(0.0))
    quiet = graph.constant(SILENT_LOG_MEL)
    loudest = graph.op("ReduceMax", graph.op("Where", empty, quiet, mel), keepdims=0)
    floor = graph.op("Max", graph.op("Sub", loudest, graph.constant(2.0)), quiet)
    return graph.op("Where", empty, floor, mel)
