"""Converts a folder in CTranslate2's layout to the files of a Whisper artifact.

Owns the options, the file names and what the manifest says to the recogniser. The graphs are
:mod:`edgevoice.export.families.whisper`'s business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgevoice.errors import ArtifactError, ConfigError, MissingDependencyError, unknown

if TYPE_CHECKING:
    import onnx

SCHEMES = ("fp32", "int8")
# What int8 leaves in float, stored as float16. One scale for a whole activation serves these worst:
# with all products in int8, tiny.en's next-token distribution was 0.0031 from float's (mean
# Kullback-Leibler divergence over 490 tokens), with these in float and the logits' product balanced
# 0.0008, and the text of 11 of 222 synthetic questions differed instead of 30.
INT8_KEEPS = ("*/self_attention/*", "*/ffn/linear_1/*")
# Frames of 10 ms that sherpa-onnx appends and the encoder computes; the rest of the context is
# filled with encoded silence. With 200, tiny.en in int8 writes five LibriVox clips as float does
# with 30 s of padding, and 39 LJ Speech clips with a WER of 12.2% where float has 12.7%. Without
# the filled context 1000 frames were needed, and 300 made it repeat two short sentences of three.
TAIL_PADDINGS = 200
# sherpa-onnx cuts at 2950 frames.
LONGEST_MS = 29_500


@dataclass(frozen=True, slots=True)
class PreparedWhisper:
    """What became of the model; the fields of the same names of a manifest."""

    format: str
    scheme: str
    engine: Mapping[str, Any]
    checks: Mapping[str, Any] = field(default_factory=dict)


def prepare(fetched: Path, out: Path, options: Mapping[str, Any]) -> PreparedWhisper:
    """Write ``encoder[.int8].onnx``, ``decoder[.int8].onnx`` and ``tokens.txt`` into ``out``.

    Args:
        fetched: Holds ``model.bin`` and ``vocabulary.txt`` or ``vocabulary.json``.
        out: Folder that exists.
        options: ``scheme``: one of :data:`SCHEMES`, ``int8`` when absent.

    Raises:
        ArtifactError: The source is damaged or not a Whisper model.
        ConfigError: An option is not known.
        MissingDependencyError: onnx is not installed.
    """
    if strange := set(options) - {"scheme"}:
        raise ConfigError(unknown("option of a Whisper model", min(strange), ("scheme",)))
    scheme = str(options.get("scheme", "int8"))
    if scheme not in SCHEMES:
        raise ConfigError(unknown("scheme of a Whisper model", scheme, SCHEMES))
    try:
        from edgevoice.export import ctranslate2, onnx_graph
        from edgevoice.export.families import whisper, whisper_vocabulary
        from edgevoice.quant import int8
    except ImportError as error:
        raise MissingDependencyError(
            "converting Whisper needs onnx; `pip install 'edgevoice[convert]'`"
        ) from error

    checkpoint = ctranslate2.read(fetched / "model.bin")
    size = whisper.sizes(checkpoint)
    vocabulary = ctranslate2.read_vocabulary(fetched)
    if len(vocabulary) != size.n_vocab:
        raise ArtifactError(
            f"{fetched}: the vocabulary has {len(vocabulary)} tokens, model.bin {size.n_vocab}; "
            "both must be of the same model"
        )
    metadata = whisper_vocabulary.metadata(size, vocabulary)
    suffix = "" if scheme == "fp32" else f".{scheme}"

    def write(name: str, model: onnx.ModelProto) -> None:
        if scheme == "int8":
            int8.quantise(model, INT8_KEEPS)
            int8.halve_exact(model)
        onnx_graph.save(model, out / f"{name}{suffix}.onnx")

    silence = whisper.encoded_silence(checkpoint)
    write("encoder", whisper.encoder(checkpoint, metadata, silence))
    write("decoder", whisper.decoder(checkpoint))
    (out / "tokens.txt").write_text(whisper_vocabulary.tokens_text(vocabulary), encoding="ascii")
    codes = str(metadata["all_language_codes"]).split(",")
    return PreparedWhisper(
        format="onnx",
        scheme=scheme,
        engine={
            "sample_rate_hz": 16_000,
            "tail_paddings": TAIL_PADDINGS,
            "longest_ms": LONGEST_MS,
            # Empty: the language is detected.
            "language": "" if size.is_multilingual else "en",
            "languages": codes if size.is_multilingual else ["en"],
        },
        checks={"int8_keeps_float": list(INT8_KEEPS)} if scheme == "int8" else {},
    )
