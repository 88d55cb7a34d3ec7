"""What is in a sherpa-onnx pack: its graphs by role, its metadata and its tokens.

sherpa-onnx ends the process when a key of the metadata is missing or a number is none, so both are
checked here, by what its loaders read (``sherpa-onnx/csrc/{online,offline}-*-model.cc``, release
2.0). Owns reading and checking; writing is :mod:`edgevoice.export.families.sherpa_pack`'s.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import onnx

from edgevoice.errors import ArtifactError
from edgevoice.quant.tensors import integer_operators

TOKENS = "tokens.txt"
BLANKS = ("<blk>", "<blank>", "<eps>")
"""sherpa-onnx's names for the blank of CTC; one of them has to be a token."""
KEPT = ("tokens.txt", "bpe.model", "bpe.vocab", "lexicon.npz", "LICENSE", "LICENCE")
"""Files beside the graphs that belong to a pack."""

ANY = ""
_GRAPHS = (".onnx", ".ort")
# Names that published packs give a quantised file beside the float one.
_QUANTISED_NAME = re.compile(r"[.\-_](int8|uint8|int4|q4|q8|fp16|quantized|quantised)\b")
_FLOATS = ("neg_mean", "inv_stddev")
_TEXTS = ("model_type", "comment", "normalize_type", "feature")
_FEATURES = 40  # fewer numbers than that are no vector of means


@dataclass(frozen=True, slots=True)
class Part:
    """One graph of a pack.

    Attributes:
        role: Its file's name in the artifact, without suffix.
        word: Begins a word of the file's name in the source; "" for a pack of one graph.
        metadata: Keys that its loader reads, by the value of the key ``model_type``; those under
            :data:`ANY` are read for every type.
    """

    role: str
    word: str = ""
    metadata: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Layout:
    """The graphs of one kind of pack.

    Attributes:
        parts: All of them.
        scores: Role of the graph whose first output ends in one score per token.
        blank: Whether the tokens need one of :data:`BLANKS`.
        base64: Whether tokens.txt holds base64, in which a token never has a space.
    """

    parts: tuple[Part, ...]
    scores: str
    blank: bool = True
    base64: bool = False


def files(folder: Path, layout: Layout) -> dict[str, Path]:
    """Return the file of every role; the float one where a pack has it in several schemes.

    Raises:
        ArtifactError: A role has no file or several.
    """
    graphs = sorted(p for p in folder.glob("*") if p.suffix in _GRAPHS)
    found = {}
    for part in layout.parts:
        begins = re.compile(rf"(?:^|[^a-z]){re.escape(part.word)}")
        fits = [p for p in graphs if begins.search(p.name)]
        plain = [p for p in fits if not _QUANTISED_NAME.search(p.stem)] or fits
        if len(plain) != 1:
            wanted = f"named *{part.word}*" if part.word else "of a graph"
            raise ArtifactError(
                f"{folder} has {len(plain)} files {wanted}, one is needed; it has: "
                f"{', '.join(p.name for p in graphs) or 'no .onnx file'}"
            )
        found[part.role] = plain[0]
    return found


def check_metadata(part: Part, metadata: Mapping[str, str], path: Path) -> None:
    """Make sure that sherpa-onnx finds in ``metadata`` what it reads from this part.

    Raises:
        ArtifactError: A key is missing or its value is not what the loader takes; all are named.
    """
    kind = metadata.get("model_type", "")
    types = sorted(set(part.metadata) - {ANY})
    if types and kind not in types:
        raise ArtifactError(
            f"{path}: model_type {kind!r} in its metadata; sherpa-onnx knows {', '.join(types)}"
        )
    wanted = (*part.metadata.get(ANY, ()), *(part.metadata[kind] if types else ()))
    missing = [key for key in wanted if not metadata.get(key)]
    if missing:
        raise ArtifactError(
            f"{path}: its metadata lacks {', '.join(missing)}, and sherpa-onnx ends the process "
            "without; add them with the script that exported the model"
        )
    wrong = [f"{key} = {metadata[key][:40]!r}" for key in wanted if not _reads(key, metadata[key])]
    if wrong:
        raise ArtifactError(f"{path}: metadata that is no number: {', '.join(wrong)}")


def read_tokens(path: Path, layout: Layout) -> tuple[str, ...]:
    """Return the tokens in the order of their numbers.

    A line is ``symbol number``; a line with a number alone is the space (symbol-table.cc).

    Raises:
        ArtifactError: The file is missing, a line is neither, or the numbers have a gap.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise ArtifactError(f"{path.parent} has no {path.name}") from error
    except UnicodeDecodeError as error:
        raise ArtifactError(f"{path} is not UTF-8 text: {error}") from error
    symbols: dict[int, str] = {}
    for place, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        if len(words) > 2 or not words[-1].isdigit():
            raise ArtifactError(f"{path}, line {place}: {line[:60]!r} is not 'symbol number'")
        symbols[int(words[-1])] = words[0] if len(words) == 2 else " "
    if sorted(symbols) != list(range(len(symbols))) or not symbols:
        raise ArtifactError(
            f"{path}: {len(symbols)} tokens with numbers up to {max(symbols, default=-1)}; they "
            "must count from 0 without a gap"
        )
    tokens = tuple(symbols[number] for number in range(len(symbols)))
    if layout.blank and not set(BLANKS) & set(tokens):
        raise ArtifactError(f"{path}: no token is the blank; sherpa-onnx needs {BLANKS[0]!r}")
    return tokens


def check_scores(model: onnx.ModelProto, tokens: int, path: Path) -> None:
    """Make sure that ``model`` gives one score per token.

    Raises:
        ArtifactError: Its output, or its metadata where the output's size is open, says otherwise.
    """
    shape = model.graph.output[0].type.tensor_type.shape.dim
    scores = shape[-1].dim_value if shape else 0
    stated = metadata_of(model).get("vocab_size", "")
    # NeMo's scripts count without the blank.
    allowed = {scores} if scores else {int(stated), int(stated) + 1} if stated.isdigit() else set()
    if allowed and tokens not in allowed:
        raise ArtifactError(
            f"{path} gives {max(allowed)} scores and {TOKENS} has {tokens} tokens; both must be of "
            "the same model"
        )


def metadata_of(model: onnx.ModelProto) -> dict[str, str]:
    """Return the metadata of a graph."""
    return {entry.key: entry.value for entry in model.metadata_props}


def quantised(models: Mapping[str, onnx.ModelProto]) -> tuple[str, ...]:
    """Return the roles whose weights are in integers already."""
    return tuple(role for role, model in models.items() if integer_operators(model))


def _reads(key: str, value: str) -> bool:
    if key in _TEXTS:
        return True
    parts = value.split(",")
    if key in _FLOATS:
        return len(parts) >= _FEATURES and all(_is_float(part) for part in parts)
    return all(re.fullmatch(r"\s*\d+\s*", part) for part in parts)


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
