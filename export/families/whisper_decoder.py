"""One step of Whisper's decoder as sherpa-onnx runs it.

Owns the decoder's graph. sherpa-onnx (``offline-whisper-model.cc``,
``offline-whisper-greedy-search-decoder.cc``) binds inputs and outputs by position and passes the
encoder's outputs and both caches through without looking at their shapes. Its only own shapes are
the first caches (zeros, ``[layers, 1, n_text_ctx, state]``, offset 0) and ``logits``, of which it
reads the last row. So the caches grow by the tokens of each step. Logits are computed for all of
them, since :mod:`edgevoice.engines.whisper_greedy` confirms several at once; sherpa-onnx gives more
than one in its first step alone.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from edgevoice.export.families.whisper_layers import LAYER_NORM_EPSILON, Layers
from edgevoice.export.families.whisper_silence import silence_bias
from edgevoice.export.families.whisper_weights import Weights
from edgevoice.export.onnx_graph import Graph
from edgevoice.quant.onnx_nodes import CONTRIB


def decoder(weights: Weights) -> onnx.ModelProto:
    """Build one step of the decoder.

    Inputs: ``tokens`` int64 [1, n]; two self-attention caches, float32 of rank 4, of which the
    first ``offset`` positions count; the encoder's two outputs; ``offset`` int64 [1]. Outputs:
    ``logits`` float32 [1, n, n_vocab], and both caches with ``offset + n``
    positions, [n_text_layer, n_text_head, offset + n, head size].
    """
    size = weights.sizes
    layers, heads = size.n_text_layer, size.n_text_head
    head = size.n_text_state // heads
    graph = Graph("whisper_decoder")
    net = Layers(graph, weights)
    tokens = graph.input("tokens", np.int64, [1, "n_tokens"])
    names = ("self_k_cache", "self_v_cache")
    first = [graph.input(f"in_n_layer_{n}", np.float32, ["d0", "d1", "d2", "d3"]) for n in names]
    cross = [
        graph.input(f"n_layer_cross_{n}", np.float32, [layers, heads, "T", head]) for n in "kv"
    ]
    offset = graph.input("offset", np.int64, [1])

    zero, two = graph.constant([0]), graph.constant([2])
    cache_shape = graph.constant([layers, heads, -1, head])
    past: list[list[str]] = []
    for cache in first:
        used = graph.op("Slice", graph.op("Reshape", cache, cache_shape), zero, offset, two)
        past.append(graph.split_op("Split", [used], layers, axis=0, num_outputs=layers))
    cross_k, cross_v = (
        graph.split_op("Split", [c], layers, axis=0, num_outputs=layers) for c in cross
    )

    # [state, n_vocab], shared by the embedding and the logits.
    matrix, gamma, beta = (
        weights.floats(f"decoder/{name}")
        for name in ("embeddings/weight", "layer_norm/gamma", "layer_norm/beta")
    )
    balance = balance_channels(matrix, gamma, beta)
    table = graph.weight("decoder/embeddings", matrix.T * balance[:, np.newaxis])
    ids = graph.op("Squeeze", tokens, zero)
    x = graph.op("Transpose", graph.op("Gather", table, ids, axis=1), perm=[1, 0])
    x = graph.op("Div", x, graph.weight("decoder/embeddings/balance", balance))
    positions = graph.weight(
        "decoder/positions", weights.floats("decoder/position_encodings/encodings")
    )
    n_tokens = graph.op("Shape", tokens, start=1, end=2)
    bias = silence_bias(graph, cross[0], size.n_audio_ctx, n_tokens)
    end = graph.op("Add", offset, n_tokens)
    x = graph.op("Add", x, graph.op("Slice", positions, offset, end, zero))
    x = graph.op("Unsqueeze", x, zero)
    present: tuple[list[str], list[str]] = ([], [])
    for i in range(layers):
        layer = f"decoder/layer_{i}"
        attention = f"{layer}/self_attention"
        qkv = net.linear(net.norm(x, f"{attention}/layer_norm"), f"{attention}/linear_0")
        q, k, v = graph.split_op("Split", [qkv], 3, axis=-1, num_outputs=3)
        mixed, new_k, new_v = graph.split_op(
            f"{CONTRIB}:MultiHeadAttention",
            [q, k, v, "", "", "", past[0][i], past[1][i]],
            3,
            num_heads=heads,
            unidirectional=1,
        )
        present[0].append(new_k)
        present[1].append(new_v)
        x = graph.op("Add", x, net.linear(mixed, f"{attention}/linear_1"))
        attention = f"{layer}/attention"
        q = net.linear(net.norm(x, f"{attention}/layer_norm"), f"{attention}/linear_0")
        mixed = graph.op(
            f"{CONTRIB}:MultiHeadAttention",
            q,
            cross_k[i],
            cross_v[i],
            "",
            "",
            bias,
            num_heads=heads,
        )
        x = graph.op("Add", x, net.linear(mixed, f"{attention}/linear_2"))
        x = net.feed_forward(x, f"{layer}/ffn")
    x = graph.op(
        "LayerNormalization",
        x,
        graph.weight("decoder/layer_norm/gamma", gamma / balance),
        graph.weight("decoder/layer_norm/beta", beta / balance),
        axis=-1,
        epsilon=LAYER_NORM_EPSILON,
    )
    logits = graph.op("MatMul", x, table)
    graph.output(logits, "logits", np.float32, [1, "n_tokens", size.n_vocab])
    for name, parts in zip(names, present, strict=True):
        cache = graph.op("Concat", *parts, axis=0)
        graph.output(cache, f"out_n_layer_{name}", np.float32, [layers, heads, "total", head])
    return graph.model({})


def balance_channels(
    table: NDArray[np.float32], gamma: NDArray[np.float32], beta: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return what evens out the channels of the logits' product, float32 [state].

    Multiplying the columns of ``table`` [n_vocab, state] and dividing ``gamma`` and ``beta`` of
    the norm before it leaves the product as it is, bit for bit, since these are powers of two.
    But rounding sees neither the one channel of tiny.en's table that is 30 times the others nor
    the norm's spread. The formula is SmoothQuant's (arXiv:2211.10438, equation 4) with alpha 0.7
    and the norm's parameters instead of recorded activations: three deviations from its mean.
    """
    activations = 3.0 * np.abs(gamma) + np.abs(beta)
    weights = np.sqrt(np.mean(np.square(table, dtype=np.float64), axis=0))
    exponents = 0.7 * np.log2(np.maximum(activations, 1e-6))
    exponents -= 0.3 * np.log2(np.maximum(weights, 1e-6))
    balance: NDArray[np.float32] = np.exp2(np.rint(exponents - exponents.mean()))
    return balance.astype(np.float32)
