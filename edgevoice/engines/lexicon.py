"""Graphs of words over letters or pieces: what the `lexicon.npz` of a CTC pack holds.

Nodes 0 to ``roots`` - 1 stand between words, node 0 at an utterance's start, node 1 where nothing
is known of the words before; the others stand inside words. Arcs carry a token of the pack's
tokens.txt, or :data:`EPSILON` where a node falls back to a shorter history, a root begins an
unknown word, or a word of pieces ends. Owns the file; what becomes of it is
:mod:`edgevoice.engines.ctc_topology`'s business.
"""

from __future__ import annotations

import zipfile
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgevoice.errors import ArtifactError

COSTS_PER_NAT = 8
EPSILON = 0
"""Takes no sound. Number 0 is the blank, which no word is spelled with."""
START, ANYWHERE = 0, 1
"""Roots: at an utterance's start, and where nothing is known of the words before."""
FILE = "lexicon.npz"


@dataclass(frozen=True, slots=True)
class Scales:
    """What costs are weighed with; the scores of sound count once.

    Attributes:
        language: Factor of the lexicon's costs.
        word: Nats for each word.
        blank: Nats for each frame of blank: a recogniser that is unsure writes nothing.
        unfinished: Nats for ending inside a word.
    """

    language: float = 1.1
    word: float = 0.5
    blank: float = 2.0
    unfinished: float = 4.0


@dataclass(frozen=True, slots=True)
class Lexicon:
    """The graph.

    Attributes:
        roots: Nodes that stand between words; two at least.
        space: The token between words; :data:`~.ctc_tokens.NO_SPACE` where pieces begin words.
        first: int64 ``[nodes + 1]``: where a node's arcs begin.
        label: int32 ``[arcs]``.
        cost: int32 ``[arcs]``: negative logarithms, :data:`COSTS_PER_NAT` a nat.
        target: int64 ``[arcs]``.
        scales: What costs are weighed with.
    """

    roots: int
    space: int
    first: NDArray[np.int64]
    label: NDArray[np.int32]
    cost: NDArray[np.int32]
    target: NDArray[np.int64]
    scales: Scales = Scales()

    @property
    def nodes(self) -> int:
        """How many there are."""
        return len(self.first) - 1


def tokens(path: Path) -> list[str]:
    """Return the tokens of a pack's tokens.txt (``token number`` a line) by their numbers.

    Raises:
        OSError: It cannot be read.
    """
    rows = [
        line.rsplit(maxsplit=1) for line in path.read_text("utf-8").splitlines() if line.strip()
    ]
    return [name for name, _ in sorted(rows, key=lambda row: int(row[1]))]


def write(lexicon: Lexicon, path: Path) -> None:
    """Write ``lexicon``, compressed."""
    # Differences compress better: an arc often leads to the node that was made just before.
    source = np.repeat(np.arange(lexicon.nodes), np.diff(lexicon.first))
    np.savez_compressed(
        path,
        roots=np.int64(lexicon.roots),
        space=np.int64(lexicon.space),
        scales=np.array(astuple(lexicon.scales)),
        arcs=np.diff(lexicon.first).astype(np.int32),
        label=lexicon.label.astype(np.min_scalar_type(lexicon.label.max())),
        cost=lexicon.cost.astype(np.int16),
        target=(lexicon.target - source).astype(np.int32),
    )


def read(path: Path) -> Lexicon:
    """Read a file that :func:`write` wrote.

    Raises:
        ArtifactError: It is none, or is damaged.
    """
    try:
        with np.load(path) as stored:
            arcs = stored["arcs"].astype(np.int64)
            found = Lexicon(
                roots=int(stored["roots"]),
                space=int(stored["space"]),
                first=np.concatenate([[0], np.cumsum(arcs)]).astype(np.int64),
                label=stored["label"].astype(np.int32),
                cost=stored["cost"].astype(np.int32),
                target=stored["target"] + np.repeat(np.arange(len(arcs)), arcs),
                scales=Scales(*stored["scales"].tolist()),
            )
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"{path} is no lexicon: {error}; pull or export it again") from error
    if not (
        ANYWHERE < found.roots <= found.nodes
        and found.first[-1] == len(found.label) == len(found.cost) == len(found.target)
        and len(found.target)
        and found.target.min() >= 0
        and found.target.max() < found.nodes
    ):
        raise ArtifactError(f"{path} is a damaged lexicon; pull or export it again")
    return found
