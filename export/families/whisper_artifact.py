"""A Whisper artifact: its files, the recipes of its schemes, what the manifest tells the engine.

Owns what the exporter and ``models pull`` share. The graphs are
:mod:`edgevoice.export.families.whisper_encoder`'s and ``whisper_decoder``'s business.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgevoice.errors import ConfigError, MissingDependencyError, refuse_unknown, unknown
from edgevoice.quant.recipe import KEEP, Override, Recipe
from edgevoice.quant.scheme import Scheme, find

if TYPE_CHECKING:
    import onnx

    from edgevoice.export.families.whisper_weights import Weights

PARTS = ("encoder", "decoder")
TOKENS = "tokens.txt"
SCHEMES = ("fp32", "fp16", "int8", "int8-weights", "int4", "int4-asymmetric")
# One scale for a whole activation serves these worst: with all products in int8, tiny.en's
# next-token distribution was 0.0031 from float's (mean Kullback-Leibler divergence over 490
# tokens), with these in float and the logits' product balanced 0.0008, and the text of 11 of 222
# synthetic questions differed instead of 30.
INT8_KEEPS = ("*/self_attention/*", "*/ffn/linear_1/*")
# Mean Kullback-Leibler divergence of tiny.en's next token from float's, 234 tokens of synthesised
# and LibriVox speech: 0.060 with every product in 4 bits (0.039 with zero points), 0.029 (0.019)
# with the encoder and the cross-attention in 8, 0.022 with the decoder's queries, keys and values
# in 8 as well; all in 8 bits 0.0003. What is left is half the embedding's (0.012), 20 of 37 million
# weights. More in 8 bits would be more than 0.6 of int8's bytes. 39 LJ Speech clips: WER 10.0% in
# float and int8, 10.6% in int4 (11.5% without these), 10.4% in plain int4-asymmetric.
_IN_8_BITS = (
    Override("encoder/*", "int8-weights", "every later layer reads its errors"),
    Override("decoder/n_layer_cross_*", "int8-weights", "made once, read by every token"),
)
_DECODER_QKV = Override(
    "decoder/*/self_attention/linear_0/*", "int8-weights", "the caches carry its errors on"
)
RECIPES: Mapping[str, Recipe] = {
    "int8": Recipe(tuple(Override(p, KEEP, "its activations have outliers") for p in INT8_KEEPS)),
    "int4": Recipe((*_IN_8_BITS, _DECODER_QKV)),
    "int4-asymmetric": Recipe(_IN_8_BITS),
}
# Frames of 10 ms that sherpa-onnx appends and the encoder computes; the rest of the context is
# filled with encoded silence. With 200, tiny.en in int8 writes five LibriVox clips as float does
# with 30 s of padding, and 39 LJ Speech clips with a WER of 12.2% where float has 12.7%. Without
# the filled context 1000 frames were needed, and 300 made it repeat two short sentences of three.
TAIL_PADDINGS = 200
# The same where no frames are copied and padded by sherpa-onnx: 60 did as well as 200 with
# :mod:`edgevoice.engines.whisper_drafted`, and 10 nearly (244 clips of flite, LJ Speech, LibriVox
# and LibriSpeech test-other: 9.6, 12.0, 5.6 and 16.6 % of the words wrong with 30 to 100).
QUIET_FRAMES = 60
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
    """Write a Whisper artifact's files into ``out``.

    Args:
        fetched: A source that :func:`read` takes.
        out: Folder that exists.
        options: ``scheme``: one of :data:`SCHEMES`, ``int8`` when absent.

    Raises:
        ArtifactError: The source is damaged or not a Whisper model.
        ConfigError: An option is not known.
        MissingDependencyError: onnx is not installed.
    """
    refuse_unknown("option of a Whisper model", options, ("scheme",))
    name = str(options.get("scheme", "int8"))
    if name not in SCHEMES:
        raise ConfigError(unknown("scheme of a Whisper model", name, SCHEMES))
    try:
        from edgevoice.export import onnx_graph
    except ImportError as error:
        raise MissingDependencyError(
            "converting Whisper needs onnx; `pip install 'edgevoice[convert]'`"
        ) from error

    scheme, recipe = find(name), RECIPES.get(name, Recipe())
    weights = read(fetched)
    for part, model in float_graphs(weights):
        write_scheme(model, scheme, recipe)
        onnx_graph.save(model, out / file_name(part, name))
    write_tokens(weights, out)
    return PreparedWhisper(
        format="onnx",
        scheme=name,
        engine=engine_facts(weights),
        checks={"int8_keeps_float": list(INT8_KEEPS)} if name == "int8" else {},
    )


def write_scheme(model: onnx.ModelProto, scheme: Scheme, recipe: Recipe) -> None:
    """Rewrite ``model`` in place: products as ``recipe`` and ``scheme`` say, the rest as float16.

    ``fp32`` leaves everything as it is.

    Raises:
        ConfigError: The recipe names a treatment that there is not.
    """
    from edgevoice.quant import float16, treatments

    if scheme.method == "float":
        return
    chosen = treatments.choose(model, recipe, scheme.name)
    treatments.round_products(model, chosen, largest=scheme.largest)
    # The scales of int8 columns are read as they are: one serves a whole column.
    float16.store(model, keep=("*_scale",))


def read(source: Path, allow_pickle: bool = False) -> Weights:
    """Read the folder ``source``: CTranslate2's where it has a ``model.bin``, else a checkpoint.

    Raises:
        ArtifactError: It is damaged or not a Whisper model.
    """
    from edgevoice.export.families import whisper_checkpoint, whisper_ctranslate2

    if (source / whisper_ctranslate2.MODEL).is_file():
        return whisper_ctranslate2.read(source)
    return whisper_checkpoint.read(source, allow_pickle)


def file_name(part: str, scheme: str) -> str:
    """Return the name of one graph's file.

    >>> file_name("encoder", "fp32"), file_name("decoder", "int4")
    ('encoder.onnx', 'decoder.int4.onnx')
    """
    return f"{part}.onnx" if scheme == "fp32" else f"{part}.{scheme}.onnx"


def float_graphs(weights: Weights) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Build the float graphs one after the other, each with its name in :data:`PARTS`.

    Raises:
        ArtifactError: The vocabulary or a tensor is not a Whisper model's.
    """
    from edgevoice.export.families import whisper_decoder, whisper_encoder, whisper_vocabulary

    metadata = whisper_vocabulary.metadata(weights.sizes, weights.vocabulary)
    silence = whisper_encoder.encoded_silence(weights)
    yield "encoder", whisper_encoder.encoder(weights, metadata, silence)
    yield "decoder", whisper_decoder.decoder(weights)


def write_tokens(weights: Weights, out: Path) -> None:
    """Write ``tokens.txt`` into ``out``."""
    from edgevoice.export.families.whisper_vocabulary import tokens_text

    (out / TOKENS).write_text(tokens_text(weights.vocabulary), encoding="ascii")


def engine_facts(weights: Weights) -> dict[str, Any]:
    """Return what the recogniser must know and the files do not say."""
    from edgevoice.export.families.whisper_vocabulary import metadata

    multilingual = weights.sizes.is_multilingual
    codes = str(metadata(weights.sizes, weights.vocabulary)["all_language_codes"]).split(",")
    # The languages of several are sherpa-onnx's to tell apart.
    alone = {} if multilingual else {"quiet_frames": QUIET_FRAMES}
    return {
        **alone,
        "sample_rate_hz": 16_000,
        "tail_paddings": TAIL_PADDINGS,
        "longest_ms": LONGEST_MS,
        # Empty: the language is detected.
        "language": "" if multilingual else "en",
        "languages": codes if multilingual else ["en"],
    }
