"""The silence that fills Whisper's context up to 30 s, as few rows as give the same logits.

Owns which rows of the encoded silence the encoder appends and how much each counts in the
decoder's cross-attention. Both must be of one build: the decoder knows only how many keys came.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from edgevoice.export.onnx_graph import Graph

# Of the silence behind the audio: rows that stand for all others, and rows at its very end, of
# which tiny.en's encoder makes the last 26 unlike the rest (24 between the two sides, neighbours
# elsewhere are 1 apart) and the decoder attends to them. In float32, 100 and 40 choose the tokens
# that all 1500 choose (490 of 490); without the end 2 to 4 differ however many are sampled.
SAMPLED_SILENCE = 100
EDGE_SILENCE = 40
_NO_SCORE = -1e4  # added to a score, leaves no weight


def distant_silence(graph: Graph, states: str, silence: NDArray[np.float32]) -> str:
    """Pick from ``silence`` what follows ``states`` [1, T, n_audio_state].

    Returns:
        [1, SAMPLED_SILENCE + EDGE_SILENCE, n_audio_state]: rows that lie evenly between ``T`` and
        the edge, then the edge.
    """
    begin = graph.op("Shape", states, start=1, end=2)
    edge = len(silence) - EDGE_SILENCE
    odd = graph.constant(range(1, 2 * SAMPLED_SILENCE, 2))
    steps = graph.op("Mul", odd, _span(graph, begin, edge))
    steps = graph.op("Div", steps, graph.constant([2 * SAMPLED_SILENCE]))
    sampled = graph.op("Add", begin, steps)
    sampled = graph.op("Min", sampled, graph.constant([edge - 1]))
    last = graph.constant(range(edge, len(silence)))
    table = graph.weight("encoder/silence", silence)
    rows = graph.op("Gather", table, graph.op("Concat", sampled, last, axis=0), axis=0)
    return graph.op("Unsqueeze", rows, graph.constant([0]))


def silence_bias(graph: Graph, keys: str, n_audio_ctx: int, n_tokens: str) -> str:
    """Return what cross-attention adds to its scores: float32 [1, 1, n_tokens, T_keys].

    A sampled position stands for ``m`` alike ones, and ``m`` equal terms of a softmax are one
    term with ``log(m)`` added to its score. Positions that the audio reaches beyond count nothing.
    """
    total = graph.op("Shape", keys, start=2, end=3)
    heard = graph.op("Sub", total, graph.constant([SAMPLED_SILENCE + EDGE_SILENCE]))
    span = _span(graph, heard, n_audio_ctx - EDGE_SILENCE)
    span = graph.op("Max", graph.op("Cast", span, to=onnx.TensorProto.FLOAT), graph.constant(1e-9))
    each = graph.op("Div", span, graph.constant(float(SAMPLED_SILENCE)))
    nothing = graph.constant(0.0)
    edge = graph.constant(range(n_audio_ctx - EDGE_SILENCE, n_audio_ctx))
    follows = graph.op("GreaterOrEqual", edge, heard)
    parts = [
        graph.op("Expand", nothing, heard),
        graph.op("Expand", graph.op("Log", each), graph.constant([SAMPLED_SILENCE])),
        graph.op("Where", follows, nothing, graph.constant(_NO_SCORE)),
    ]
    one = graph.constant([1])
    shape = graph.op("Concat", one, one, n_tokens, total, axis=0)
    return graph.op("Expand", graph.op("Concat", *parts, axis=0), shape)


def _span(graph: Graph, begin: str, end: int) -> str:
    """Return ``end - begin``, int64 [1], or 0 where nothing is between them."""
    return graph.op("Max", graph.op("Sub", graph.constant([end]), begin), graph.constant([0]))
