"""Whisper: CTranslate2 tensors to the encoder and decoder that sherpa-onnx's loader runs.

Owns both graphs. Reading ``model.bin`` is :mod:`edgevoice.export.ctranslate2`'s business, what
sherpa-onnx is told beside the graphs :mod:`edgevoice.export.families.whisper_vocabulary`'s, int8
:mod:`edgevoice.quant.int8`'s.

sherpa-onnx (``offline-whisper-model.cc``, ``offline-whisper-greedy-search-decoder.cc``) binds
inputs and outputs by position and passes the encoder's two outputs and the decoder's two caches
through without looking at their shapes. Its only own shapes are the log-mel ``[1, n_mels, T]``,
the first caches (zeros, ``[layers, 1, n_text_ctx, state]``, offset 0) and ``logits``, of which it
reads the last row. So the graphs here keep keys and values as attention wants them,
``[layers, heads, length, head size]``, let the caches grow by the tokens of each step, and
compute logits for the last token only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from edgevoice.errors import ArtifactError
from edgevoice.export.ctranslate2 import Checkpoint
from edgevoice.export.families.whisper_silence import distant_silence, silence_bias
from edgevoice.export.onnx_graph import CONTRIB, Graph

LAYER_NORM_EPSILON = 1e-5  # torch.nn.LayerNorm's default, which Whisper was trained with
SILENT_LOG_MEL = -1.5  # (log10(1e-10) + 4) / 4: Whisper's log-mel of digital silence
_GELU = 3  # CTranslate2's enumeration of activations


@dataclass(frozen=True, slots=True)
class Sizes:
    """Dimensions of a Whisper model, read from its tensors."""

    n_mels: int
    n_audio_ctx: int
    n_audio_state: int
    n_audio_head: int
    n_audio_layer: int
    n_vocab: int
    n_text_ctx: int
    n_text_state: int
    n_text_head: int
    n_text_layer: int

    @property
    def is_multilingual(self) -> bool:
        """English-only models have 51864 tokens, all others more (openai/whisper, model.py)."""
        return self.n_vocab >= 51865


def sizes(checkpoint: Checkpoint) -> Sizes:
    """Read the sizes of ``checkpoint``.

    Raises:
        ArtifactError: It is not a Whisper model, or of a build that the graphs do not cover.
    """
    if checkpoint.specification != "WhisperSpec":
        raise ArtifactError(
            f"{checkpoint.path} holds a {checkpoint.specification or 'nameless model'}, the family "
            "'whisper' takes a WhisperSpec"
        )
    activation = checkpoint.integer("decoder/activation")
    if activation != _GELU:
        raise ArtifactError(
            f"{checkpoint.path}: activation {activation}, Whisper has {_GELU} (GELU)"
        )
    conv = checkpoint.shape("encoder/conv1/weight", 3)
    audio = checkpoint.shape("encoder/position_encodings/encodings", 2)
    vocabulary = checkpoint.shape("decoder/embeddings/weight", 2)
    text = checkpoint.shape("decoder/position_encodings/encodings", 2)
    found = Sizes(
        n_mels=conv[1],
        n_audio_ctx=audio[0],
        n_audio_state=audio[1],
        n_audio_head=checkpoint.integer("encoder/num_heads"),
        n_audio_layer=checkpoint.layers("encoder"),
        n_vocab=vocabulary[0],
        n_text_ctx=text[0],
        n_text_state=text[1],
        n_text_head=checkpoint.integer("decoder/num_heads"),
        n_text_layer=checkpoint.layers("decoder"),
    )
    for state, heads in (
        (found.n_audio_state, found.n_audio_head),
        (found.n_text_state, found.n_text_head),
    ):
        if heads < 1 or state % heads:
            raise ArtifactError(f"{checkpoint.path}: {state} channels do not make {heads} heads")
    return found


class _Network:
    """The layers that both graphs are made of."""

    def __init__(self, graph: Graph, checkpoint: Checkpoint) -> None:
        self.graph = graph
        self.checkpoint = checkpoint

    def linear(self, x: str, name: str) -> str:
        """``x`` times the transpose of weight [out, in], plus the bias."""
        weight = self.graph.weight(f"{name}/weight", self.checkpoint.floats(f"{name}/weight").T)
        bias = self.graph.weight(f"{name}/bias", self.checkpoint.floats(f"{name}/bias"))
        return self.graph.op("Add", self.graph.op("MatMul", x, weight), bias)

    def norm(self, x: str, name: str) -> str:
        gamma = self.graph.weight(f"{name}/gamma", self.checkpoint.floats(f"{name}/gamma"))
        beta = self.graph.weight(f"{name}/beta", self.checkpoint.floats(f"{name}/beta"))
        return self.graph.op(
            "LayerNormalization", x, gamma, beta, axis=-1, epsilon=LAYER_NORM_EPSILON
        )

    def feed_forward(self, x: str, name: str) -> str:
        hidden = self.linear(self.norm(x, f"{name}/layer_norm"), f"{name}/linear_0")
        hidden = self.graph.op("Gelu", hidden)
        return self.graph.op("Add", x, self.linear(hidden, f"{name}/linear_1"))

    def convolution(self, x: str, name: str, stride: int) -> str:
        weight = self.graph.weight(f"{name}/weight", self.checkpoint.floats(f"{name}/weight"))
        bias = self.graph.weight(f"{name}/bias", self.checkpoint.floats(f"{name}/bias"))
        return self.graph.op(
            "Gelu", self.graph.op("Conv", x, weight, bias, pads=[1, 1], strides=[stride])
        )


def encoder(
    checkpoint: Checkpoint, metadata: Mapping[str, str | int], silence: NDArray[np.float32]
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
        checkpoint: A Whisper model.
        metadata: What :func:`metadata` returned.
        silence: float32 [n_audio_ctx, n_audio_state], what :func:`encoded_silence` returned.
    """
    size = sizes(checkpoint)
    graph = Graph("whisper_encoder")
    net = _Network(graph, checkpoint)
    states = _audio_states(graph, net, size)
    states = graph.op("Concat", states, distant_silence(graph, states, silence), axis=1)
    head = size.n_text_state // size.n_text_head
    shape = graph.constant([-1, size.n_text_layer, size.n_text_head, head])
    shapes: list[int | str] = [size.n_text_layer, size.n_text_head, "T_keys", head]
    for row, name in enumerate(("n_layer_cross_k", "n_layer_cross_v")):
        half = slice(row * size.n_text_state, (row + 1) * size.n_text_state)
        sources = [f"decoder/layer_{i}/attention/linear_1" for i in range(size.n_text_layer)]
        # One product for all layers: [1, T, layers * state].
        matrix = np.concatenate([checkpoint.floats(f"{s}/weight")[half] for s in sources])
        vector = np.concatenate([checkpoint.floats(f"{s}/bias")[half] for s in sources])
        weight = graph.weight(f"decoder/{name}/weight", matrix.T)
        bias = graph.weight(f"decoder/{name}/bias", vector)
        keys = graph.op("Reshape", graph.op("Add", graph.op("MatMul", states, weight), bias), shape)
        graph.output(graph.op("Transpose", keys, perm=[1, 2, 0, 3]), name, np.float32, shapes)
    return graph.model(metadata)


def encoded_silence(checkpoint: Checkpoint) -> NDArray[np.float32]:
    """Encode 30 s of digital silence: float32 [n_audio_ctx, n_audio_state], float16 precision."""
    import onnxruntime

    size = sizes(checkpoint)
    graph = Graph("whisper_encoder")
    states = _audio_states(graph, _Network(graph, checkpoint), size)
    graph.output(states, "states", np.float32, [1, "T_out", size.n_audio_state])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the same order of additions, so the same bytes
    session = onnxruntime.InferenceSession(
        graph.model({}).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    mel = np.zeros((1, size.n_mels, 2 * size.n_audio_ctx), np.float32)
    encoded: NDArray[np.float32] = session.run(["states"], {"mel": mel})[0][0]
    return encoded.astype(np.float16).astype(np.float32)


def _audio_states(graph: Graph, net: _Network, size: Sizes) -> str:
    """Add the audio encoder proper: ``mel`` to [1, ceil(T / 2), n_audio_state]."""
    mel = graph.input("mel", np.float32, [1, size.n_mels, "T"])
    x = net.convolution(_silence_padding(graph, mel), "encoder/conv1", 1)
    x = net.convolution(x, "encoder/conv2", 2)
    x = graph.op("Transpose", x, perm=[0, 2, 1])
    positions = graph.weight(
        "encoder/positions", net.checkpoint.floats("encoder/position_encodings/encodings")
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


def decoder(checkpoint: Checkpoint) -> onnx.ModelProto:
    """Build one step of the decoder.

    Inputs: ``tokens`` int64 [1, n]; two self-attention caches, float32 of rank 4, of which the
    first ``offset`` positions count; the encoder's two outputs; ``offset`` int64 [1]. Outputs:
    ``logits`` float32 [1, 1, n_vocab] of the last token, and both caches with ``offset + n``
    positions, [n_text_layer, n_text_head, offset + n, head size].
    """
    size = sizes(checkpoint)
    layers, heads = size.n_text_layer, size.n_text_head
    head = size.n_text_state // heads
    graph = Graph("whisper_decoder")
    net = _Network(graph, checkpoint)
    tokens = graph.input("tokens", np.int64, [1, "n_tokens"])
    names = ("self_k_cache", "self_v_cache")
    first = [graph.input(f"in_n_layer_{n}", np.float32, ["d0", "d1", "d2", "d3"]) for n in names]
    cross = [
        graph.input(f"n_layer_cross_{n}", np.float32, [layers, heads, "T", head]) for n in "kv"
    ]
    offset = graph.input("offset", np.int64, [1])

    zero, one, two = graph.constant([0]), graph.constant([1]), graph.constant([2])
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
        checkpoint.floats(f"decoder/{name}")
        for name in ("embeddings/weight", "layer_norm/gamma", "layer_norm/beta")
    )
    balance = balance_channels(matrix, gamma, beta)
    table = graph.weight("decoder/embeddings", matrix.T * balance[:, np.newaxis])
    ids = graph.op("Squeeze", tokens, zero)
    x = graph.op("Transpose", graph.op("Gather", table, ids, axis=1), perm=[1, 0])
    x = graph.op("Div", x, graph.weight("decoder/embeddings/balance", balance))
    positions = graph.weight(
        "decoder/positions", checkpoint.floats("decoder/position_encodings/encodings")
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
    last = graph.op("Slice", x, graph.constant([-1]), graph.constant([2**31]), one)
    last = graph.op(
        "LayerNormalization",
        last,
        graph.weight("decoder/layer_norm/gamma", gamma / balance),
        graph.weight("decoder/layer_norm/beta", beta / balance),
        axis=-1,
        epsilon=LAYER_NORM_EPSILON,
    )
    logits = graph.op("MatMul", last, table)
    graph.output(logits, "logits", np.float32, [1, 1, size.n_vocab])
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
