"""Finds a GGUF type for every tensor of a model, by measuring what each tensor's rounding does.

Two measurements meet. The rounding error of a tensor in every type is counted on its own weights,
weighed with the importance matrix. How much the model minds an error in a group of tensors is
measured once per group: its weights in the loaded float model are replaced by rounded ones, and
the KL divergence of the next-token choices on calibration text is the loss. Owns what is GGUF
about this; the choice under a budget is :mod:`edgevoice.quant.sensitivity`'s.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from edgevoice.engines import gguf_file
from edgevoice.engines.gguf_file import GgufTensor
from edgevoice.quant import child, ggml, importance, sensitivity
from edgevoice.quant.divergence import Tally
from edgevoice.quant.ggml import Float32
from edgevoice.quant.gguf_scores import GgufScorer
from edgevoice.quant.importance import Importance

TYPES = ("Q4_0", "IQ4_NL", "IQ4_XS", "Q4_K", "Q5_0", "Q5_K", "Q6_K", "Q8_0")
"""What the search may choose from. Q4_1 and Q5_1 are left out: a model that was Q4_1 before it
came here loses next to nothing in them, and its search would say nothing of other models."""

PROBE = "Q4_0"
"""The type in which groups are rounded to see what the model minds."""

TOKENS = 256
"""Of the calibration text, read once per group of tensors."""

_ROWS = 192  # of a tensor, evenly spread: enough to know its rounding error within a few percent
_WINDOW_TOKENS = 128


def search(
    path: Path,
    matrix: Path,
    sentences: Sequence[str],
    *,
    quantisable: Sequence[str],
    budget_bytes: int,
    threads: int,
    types: Sequence[str] = TYPES,
    tokens: int = TOKENS,
    layers_together: int = 5,
    advance: Callable[[int], object] = int,
) -> Mapping[str, str]:
    """Choose a type by tensor name, in a child process.

    Args:
        path: The float GGUF (F16).
        matrix: Its importance matrix, see :mod:`edgevoice.quant.importance`.
        sentences: Calibration text.
        quantisable: Names of the tensors to choose for.
        budget_bytes: What they may take together.
        threads: For llama.cpp.
        types: GGUF types to choose from; those whose blocks do not fit a tensor are passed over.
        tokens: Of the text, read once per group.
        layers_together: Neighbouring layers whose tensors of one kind make a group.
        advance: Called with the number of tokens just read.

    Raises:
        ExportError: The child's one line of what went wrong.
    """
    found = child.run(
        "edgevoice.quant.gguf_search:search_here",
        {
            "path": str(path),
            "matrix": str(matrix),
            "sentences": list(sentences),
            "quantisable": list(quantisable),
            "budget_bytes": budget_bytes,
            "threads": threads,
            "types": list(types),
            "tokens": tokens,
            "layers_together": layers_together,
        },
        f"searching types for {path.name}",
        advance=advance,
    )
    return {str(name): str(kind) for name, kind in found.items()}


def group_of(name: str, layers_together: int) -> str:
    """Return the group of a tensor.

    >>> group_of("blk.7.ffn_down.weight", 3), group_of("token_embd.weight", 3)
    ('ffn_down.weight 6-8', 'token_embd.weight')
    """
    found = re.fullmatch(r"blk\.(\d+)\.(.+)", name)
    if not found:
        return name
    first = int(found[1]) // layers_together * layers_together
    return f"{found[2]} {first}-{first + layers_together - 1}"


def search_here(
    *,
    path: str,
    matrix: str,
    sentences: list[str],
    quantisable: list[str],
    budget_bytes: int,
    threads: int,
    types: list[str],
    tokens: int,
    layers_together: int,
) -> dict[str, str]:
    """Be the child of :func:`search`."""
    known = importance.load(Path(matrix))
    table = {t.name: t for t in gguf_file.read_header(Path(path)).table if t.name in quantisable}
    weights = _Weights(Path(path), table, known)
    groups: dict[str, list[str]] = {}
    for name in table:
        groups.setdefault(group_of(name, layers_together), []).append(name)
    scorer = GgufScorer(Path(path), threads, writable=True)
    try:
        windows = _spread(scorer.tokenise("\n".join(sentences)), tokens)
        float_logits = [scorer.logits(window) for window in windows]

        def lose(group: str) -> float:
            for name in groups[group]:
                scorer.overwrite(name, weights.as_float16(weights.rounded(name, PROBE)))
            tally = Tally()
            for window, expected in zip(windows, float_logits, strict=True):
                tally.add(window, expected, scorer.logits(window))
            for name in groups[group]:
                scorer.overwrite(name, weights.as_float16(weights.of(name)))
            child.advance(sum(map(len, windows)))
            return tally.result().kl

        probed = {
            group: {name: weights.error(name, PROBE) for name in names}
            for group, names in groups.items()
        }
        minded = sensitivity.measure(probed, lose)
    finally:
        scorer.close()
    tensors = [
        sensitivity.Tensor(
            name,
            group,
            tuple(
                sensitivity.Option(
                    kind,
                    ggml.size(kind, table[name].elements),
                    minded[group] * weights.error(name, kind),
                )
                for kind in types
                if ggml.fits(kind, table[name].shape[0])
            ),
        )
        for group, names in groups.items()
        for name in names
    ]
    return dict(sensitivity.choose(tensors, budget_bytes))


def divergences(
    path: Path,
    candidates: Sequence[Path],
    sentences: Sequence[str],
    *,
    threads: int,
    tokens: int,
    advance: Callable[[int], object] = int,
) -> list[float]:
    """Return each candidate's mean KL divergence from the float model, from a child process.

    Raises:
        ExportError: The child's one line of what went wrong.
    """
    found = child.run(
        "edgevoice.quant.gguf_search:divergences_here",
        {
            "path": str(path),
            "candidates": [str(candidate) for candidate in candidates],
            "sentences": list(sentences),
            "threads": threads,
            "tokens": tokens,
        },
        f"comparing with {path.name}",
        advance=advance,
    )
    return [float(loss) for loss in found]


def divergences_here(
    path: str, candidates: list[str], sentences: list[str], threads: int, tokens: int
) -> list[float]:
    """Be the child of :func:`divergences`."""
    scorers = [GgufScorer(Path(p), threads) for p in (path, *candidates)]
    tallies = [Tally() for _ in candidates]
    for window in _spread(scorers[0].tokenise("\n".join(sentences)), tokens):
        expected = scorers[0].logits(window)
        for tally, scorer in zip(tallies, scorers[1:], strict=True):
            tally.add(window, expected, scorer.logits(window))
        child.advance(len(window))
    for scorer in scorers:
        scorer.close()
    return [tally.result().kl for tally in tallies]


class _Weights:
    """The float weights of a file, and how far their rounded forms are from them."""

    def __init__(self, path: Path, table: Mapping[str, GgufTensor], known: Importance) -> None:
        self._content = np.memmap(path, np.uint8, "r")
        self._table = table
        self._known = known

    def of(self, name: str, most_rows: int = 0) -> Float32:
        """Return all rows of a tensor, or about ``most_rows`` that are evenly spread."""
        tensor = self._table[name]
        columns, rows = tensor.shape[0], tensor.elements // tensor.shape[0]
        data = self._content[tensor.offset : tensor.offset + tensor.bytes].reshape(rows, -1)
        some = data[:: max(1, rows // most_rows)] if most_rows else data
        restored = ggml.restore(some.tobytes(), tensor.type_name, len(some) * columns)
        return restored.reshape(-1, columns)

    def rounded(self, name: str, kind: str) -> Float32:
        return self._round(self.of(name), kind, self._known.get(name))

    def error(self, name: str, kind: str) -> float:
        """Relative squared error of the products, as far as the importance matrix tells them."""
        some = self.of(name, _ROWS)
        known = self._known.get(name)
        off = self._round(some, kind, known) - some
        scale = np.ones(some.shape[1], np.float32) if known is None else known
        power = np.einsum("rc,rc,c->", some, some, scale, dtype=np.float64)
        return float(np.einsum("rc,rc,c->", off, off, scale, dtype=np.float64) / max(power, 1e-30))

    @staticmethod
    def as_float16(weights: Float32) -> bytes:
        return weights.astype(np.float16).tobytes()

    @staticmethod
    def _round(weights: Float32, kind: str, known: Float32 | None) -> Float32:
        data = ggml.round_rows(weights, kind, known)
        return ggml.restore(data, kind, weights.size).reshape(weights.shape)


def _spread(tokens: Sequence[int], count: int) -> list[list[int]]:
    """Take about ``count`` tokens in windows from all over the text."""
    wanted = max(1, count // _WINDOW_TOKENS)
    starts = np.linspace(0, max(0, len(tokens) - _WINDOW_TOKENS), wanted, dtype=int)
    return [list(tokens[s : s + _WINDOW_TOKENS]) for s in starts]
