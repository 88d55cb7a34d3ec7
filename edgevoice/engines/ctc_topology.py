"""From a lexicon to the graph that sherpa-onnx's CTC decoder searches, in OpenFst's format.

A token may last for any number of frames, and blanks may stand anywhere; the same letter twice
needs one between. So a node inside a word becomes a state for each letter that leads to it, which
may repeat that letter, and one behind a blank; a root is one state, where blanks and spaces change
nothing. Behind an epsilon (a word of pieces ends, a spelling falls back) the token that is held
could follow again without a blank: to hold it costs nothing, and what is written merges the two.
Input labels are the tokens' numbers plus one, 0 is epsilon.

All states are final. sherpa-onnx gives the words of the best path to a final state, so that with
finals at words' ends alone a word appears when the next one begins; a state inside a word is final
at a cost.

The file is that of OpenFst's ConstFst<StdArc>, version 2 (fst/const-fst.h).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgevoice.engines.ctc_tokens import NO_SPACE
from edgevoice.engines.lexicon import COSTS_PER_NAT, EPSILON, Lexicon

_BLANK = 0
_MAGIC = 2125659606
_VERSION = 2  # states and arcs follow each other without padding
_EXPANDED = 0x1
_STATE = np.dtype(
    [("final", "<f4"), ("first", "<u4"), ("arcs", "<u4"), ("in_eps", "<u4"), ("out_eps", "<u4")]
)
_ARC = np.dtype([("in", "<i4"), ("out", "<i4"), ("weight", "<f4"), ("target", "<i4")])
_Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Graph:
    """States and arcs, arcs sorted by the state they leave."""

    final: NDArray[np.float32]
    source: _Numbers
    label: _Numbers
    weight: NDArray[np.float32]
    target: _Numbers


def expand(lexicon: Lexicon) -> Graph:
    """Return the graph of ``lexicon`` for a CTC recogniser whose blank is token 0."""
    scales, space = lexicon.scales, lexicon.space
    source = np.repeat(np.arange(lexicon.nodes), np.diff(lexicon.first))
    label, target = lexicon.label.astype(np.int64), lexicon.target
    weight = lexicon.cost * np.float32(scales.language / COSTS_PER_NAT)
    ended = (label == space) & (source >= lexicon.roots)
    if space == NO_SPACE:  # its arcs inside words fall back to a shorter context
        ended &= target < lexicon.roots
    weight = weight + np.where(ended, np.float32(scales.word), np.float32(0))
    inner = lexicon.nodes - lexicon.roots
    # States: roots; inner nodes behind a blank; inner nodes behind a letter.
    into = (target >= lexicon.roots) & (label != EPSILON)
    tokens = int(label.max()) + 1
    pairs = np.unique(target[into] * tokens + label[into])
    node_of, letter_of = pairs // tokens, pairs % tokens
    behind_letter = lexicon.nodes + np.arange(len(pairs))
    # A state's number is its node's, at roots and behind blanks.
    ends = target.copy()
    ends[into] = lexicon.nodes + np.searchsorted(pairs, target[into] * tokens + label[into])
    copied, of = _arcs_of(lexicon.first, node_of)
    differs = label[copied] != letter_of[of]
    copied, of = copied[differs], of[differs]
    roots = np.arange(lexicon.roots)
    inside = np.arange(lexicon.roots, lexicon.nodes)
    blank = np.float32(scales.blank)
    parts = [
        (source, label + (label != EPSILON), weight, ends),
        (behind_letter[of], label[copied] + 1, weight[copied], ends[copied]),
        (behind_letter, letter_of + 1, np.zeros(len(pairs)), behind_letter),
        (behind_letter, np.full(len(pairs), _BLANK + 1), np.full(len(pairs), blank), node_of),
        (inside, np.full(inner, _BLANK + 1), np.full(inner, blank), inside),
        (roots, np.full(len(roots), _BLANK + 1), np.full(len(roots), blank), roots),
    ]
    if space != NO_SPACE:
        parts.append((roots, np.full(len(roots), space + 1), np.zeros(len(roots)), roots))
    joined = [np.concatenate(column) for column in zip(*parts, strict=True)]
    order = np.argsort(joined[0], kind="stable")
    final = np.full(lexicon.nodes, scales.unfinished, np.float32)
    final[: lexicon.roots] = 0.0
    np.minimum.at(final, source[ended], weight[ended])
    return Graph(
        final=np.concatenate([final, final[node_of]]),
        source=joined[0][order],
        label=joined[1][order],
        weight=joined[2][order].astype(np.float32),
        target=joined[3][order],
    )


def write(graph: Graph, path: Path) -> None:
    """Write ``graph``, whose state 0 is the start, as an OpenFst file."""
    arcs = np.zeros(len(graph.source), _ARC)
    arcs["in"], arcs["weight"], arcs["target"] = graph.label, graph.weight, graph.target
    count = np.bincount(graph.source, minlength=len(graph.final))
    states = np.zeros(len(graph.final), _STATE)
    states["final"], states["arcs"], states["out_eps"] = graph.final, count, count
    states["first"][1:] = np.cumsum(count)[:-1]
    states["in_eps"] = np.bincount(graph.source[graph.label == 0], minlength=len(graph.final))
    numbers = (_VERSION, 0, _EXPANDED, 0, len(states), len(arcs))
    header = struct.pack("<i", _MAGIC) + _text("const") + _text("standard")
    path.write_bytes(header + struct.pack("<iiQqqq", *numbers) + states.tobytes() + arcs.tobytes())


def size(graph: Graph) -> int:
    """Return the bytes of the file that :func:`write` writes, but for its header."""
    return len(graph.final) * _STATE.itemsize + len(graph.source) * _ARC.itemsize


def _text(value: str) -> bytes:
    return struct.pack("<i", len(value)) + value.encode()


def _arcs_of(first: _Numbers, nodes: _Numbers) -> tuple[_Numbers, _Numbers]:
    """Return the numbers of all arcs of ``nodes``, and which of ``nodes`` each is of."""
    count = first[nodes + 1] - first[nodes]
    of = np.repeat(np.arange(len(nodes)), count)
    before = np.cumsum(count) - count
    return first[nodes][of] + np.arange(len(of)) - before[of], of
