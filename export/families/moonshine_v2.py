"""Moonshine in two graphs, as its makers publish it: int8 in onnxruntime's own format.

The makers' tokenizer is a file of byte strings, and sherpa-onnx wants them as base64, one a line
(its ``scripts/moonshine/v2``). The graphs pass through; there are no float weights to begin with.
"""

from __future__ import annotations

import base64
import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgevoice.errors import ArtifactError, refuse_unknown
from edgevoice.export.calibration import Calibration
from edgevoice.export.families import sherpa_pack
from edgevoice.export.families.pack_layout import TOKENS, Layout, Part
from edgevoice.export.families.sherpa_pack import Pack
from edgevoice.export.family import AS_IS, Job, SourceFacts, Written
from edgevoice.export.prepare import Prepared
from edgevoice.quant.recipe import Recipe
from edgevoice.quant.scheme import Scheme

TOKENIZER = "tokenizer.bin"
_PACK = Pack(
    name="moonshine-v2",
    takes="a folder with encoder*, decoder* (.ort or .onnx), and tokenizer.bin or tokens.txt",
    layout=Layout(
        (Part("encoder", "encoder"), Part("decoder", "decoder")), scores="decoder", blank=False
    ),
)
_PLAIN = sherpa_pack.family(_PACK)


def _with_tokens(source: Path, work: Path) -> Path:
    """Return a folder like ``source`` that has tokens.txt; ``source`` itself when it does."""
    if (source / TOKENS).is_file() or not (source / TOKENIZER).is_file():
        return source
    folder = Path(tempfile.mkdtemp(dir=work))
    for path in source.iterdir():
        if path.is_file():
            (folder / path.name).symlink_to(path.resolve())
    tokens = read_tokenizer(source / TOKENIZER)
    (folder / TOKENS).write_text(tokens_text(tokens), encoding="ascii")
    return folder


def read_tokenizer(path: Path) -> tuple[bytes, ...]:
    """Return the tokens of a ``tokenizer.bin`` in the order of their numbers.

    Each is its length and its bytes; a length of 128 and more takes two bytes, low 7 bits first
    (moonshine's ``bin-tokenizer.cpp``).

    Raises:
        ArtifactError: The file ends inside a token.
    """
    data = path.read_bytes()
    tokens: list[bytes] = []
    at = 0
    while at < len(data):
        size, at = data[at], at + 1
        if size >= 128:
            if at == len(data):
                raise ArtifactError(f"{path} ends inside token {len(tokens)}; fetch it again")
            size, at = data[at] * 128 + size - 128, at + 1
        if at + size > len(data):
            raise ArtifactError(f"{path} ends inside token {len(tokens)}; fetch it again")
        tokens.append(data[at : at + size])
        at += size
    return tuple(tokens)


def tokens_text(tokens: tuple[bytes, ...]) -> str:
    """Return tokens.txt: every token in base64 and its number."""
    return "".join(
        f"{base64.b64encode(token).decode('ascii')} {number}\n"
        for number, token in enumerate(tokens)
    )


def _recognises(source: Path) -> bool:
    # Two graphs called encoder and decoder are Whisper's, too.
    if not any((source / TOKENIZER).is_file() or p.suffix == ".ort" for p in source.glob("*")):
        return False
    try:
        with tempfile.TemporaryDirectory() as work:
            return _PLAIN.recognises(_with_tokens(source, Path(work)))
    except (ArtifactError, OSError):
        return False


def _inspect(source: Path) -> SourceFacts:
    with tempfile.TemporaryDirectory() as work:
        return _PLAIN.inspect(_with_tokens(source, Path(work)))


def _convert(source: Path, out: Path, job: Job) -> Written:
    return _labelled(_PLAIN.convert(_with_tokens(source, job.work), out, job))


def _quantise(reference: Path, scheme: Scheme, recipe: Recipe, out: Path, job: Job) -> Written:
    return _labelled(_PLAIN.quantise(reference, scheme, recipe, out, job))


def _labelled(written: Written) -> Written:
    # The makers publish nothing but int8 in onnxruntime's own format.
    return dataclasses.replace(written, scheme="int8") if written.scheme == AS_IS else written


def prepare(fetched: Path, out: Path, options: Mapping[str, Any]) -> Prepared:
    """Write the artifact of the makers' files in ``fetched`` into ``out``, for the catalogue.

    Raises:
        ArtifactError: A file is damaged or missing.
        ConfigError: An option; there are none.
        MissingDependencyError: onnx is not installed.
    """
    refuse_unknown("option of a Moonshine pack", options, ())
    with tempfile.TemporaryDirectory() as work:
        written = _convert(fetched, out, Job(Path(work), Calibration()))
    return Prepared("onnx", written.scheme or "fp32", written.engine)


FAMILY = dataclasses.replace(
    _PLAIN,
    recognises=_recognises,
    inspect=_inspect,
    convert=_convert,
    quantise=_quantise,
    licence="MIT",
)
