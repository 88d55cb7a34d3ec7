"""Whisper, from a CTranslate2 folder or a Hugging Face checkpoint, for sherpa-onnx.

Owns what the exporter knows of the family. Files, recipes and graphs are
:mod:`edgevoice.export.families.whisper_artifact`'s business, shared with ``models pull``.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from edgevoice.errors import ArtifactError
from edgevoice.export import hf_checkpoint
from edgevoice.export.families import whisper_artifact, whisper_checkpoint, whisper_ctranslate2
from edgevoice.export.families.whisper_weights import Sizes
from edgevoice.export.family import Family, Job, SourceFacts, Written
from edgevoice.quant.recipe import Recipe, TensorChoice
from edgevoice.quant.scheme import Scheme

# Arrays of the larger float graph, its protobuf, its bytes, and what onnxruntime makes of them.
_COPIES = 4
_BASE_BYTES = 200_000_000  # the interpreter with onnx and onnxruntime
# protobuf cannot write a message of more than 2 GiB.
MAX_BYTES = 2**31 - 1


def recognises(source: Path) -> bool:
    """Whether ``source`` is a CTranslate2 folder of a Whisper, or a checkpoint of one."""
    try:
        if (source / whisper_ctranslate2.MODEL).is_file():
            with (source / whisper_ctranslate2.MODEL).open("rb") as file:
                return b"WhisperSpec" in file.read(32)
        if not (source / hf_checkpoint.CONFIG).is_file():
            return False
        return hf_checkpoint.read_config(source).get("model_type") == "whisper"
    except (OSError, ArtifactError):
        return False


def inspect(source: Path) -> SourceFacts:
    """Read sizes from headers.

    Raises:
        ArtifactError: ``source`` is damaged, or no Whisper model.
    """
    if (source / whisper_ctranslate2.MODEL).is_file():
        sizes = whisper_ctranslate2.read(source).sizes
        files, layout = [source / whisper_ctranslate2.MODEL], "CTranslate2"
    else:
        sizes = whisper_checkpoint.sizes(source, hf_checkpoint.read_config(source))
        files, layout = list(hf_checkpoint.weight_files(source)), "Hugging Face checkpoint"
        if not files and (source / hf_checkpoint.PICKLED).is_file():
            files, layout = [source / hf_checkpoint.PICKLED], "pickled checkpoint"
        if not files:
            raise ArtifactError(
                f"{source} has no {hf_checkpoint.SINGLE}; fetch the checkpoint's weights too"
            )
    largest = 4 * max(sizes.encoder_parameters, sizes.decoder_parameters)
    if largest > MAX_BYTES:
        raise ArtifactError(
            f"{source}: a float graph of this model takes {largest / 1e9:.1f} GB, an ONNX file "
            f"holds {MAX_BYTES / 1e9:.1f}; tiny to medium can be exported"
        )
    return SourceFacts(
        title=f"Whisper ({layout})",
        parameters=sizes.encoder_parameters + sizes.decoder_parameters,
        source_bytes=sum(f.stat().st_size for f in files),
        peak_memory_bytes=largest * _COPIES + _BASE_BYTES,
        detail=_detail(sizes),
    )


def _detail(sizes: Sizes) -> dict[str, object]:
    return {
        "languages": "many" if sizes.is_multilingual else "English",
        "mel_bands": sizes.n_mels,
        "encoder": f"{sizes.n_audio_layer} layers of {sizes.n_audio_state}",
        "decoder": f"{sizes.n_text_layer} layers of {sizes.n_text_state}",
        "tokens": sizes.n_vocab,
    }


def convert(source: Path, out: Path, job: Job) -> Written:
    """Write the float encoder, decoder and ``tokens.txt`` into ``out``.

    Raises:
        ArtifactError: ``source`` is damaged or no Whisper model.
    """
    from edgevoice.export import onnx_graph
    from edgevoice.quant import tensors

    weights = whisper_artifact.read(source, job.allow_pickle)
    choices: list[TensorChoice] = []
    for part, model in whisper_artifact.float_graphs(weights):
        tensors.require_finite(model)
        path = out / whisper_artifact.file_name(part, "fp32")
        onnx_graph.save(model, path)
        choices += tensors.choices(model, path.name)
    whisper_artifact.write_tokens(weights, out)
    return Written(whisper_artifact.engine_facts(weights), tuple(choices))


def quantise(reference: Path, scheme: Scheme, recipe: Recipe, out: Path, job: Job) -> Written:
    """Write the files of ``scheme`` into ``out`` from those that :func:`convert` wrote."""
    import onnx

    from edgevoice.export import onnx_graph
    from edgevoice.quant import tensors

    choices: list[TensorChoice] = []
    for part in whisper_artifact.PARTS:
        model = onnx.load(str(reference / whisper_artifact.file_name(part, "fp32")))
        whisper_artifact.write_scheme(model, scheme, recipe)
        path = out / whisper_artifact.file_name(part, scheme.name)
        onnx_graph.save(model, path)
        choices += tensors.choices(model, path.name)
    shutil.copyfile(reference / whisper_artifact.TOKENS, out / whisper_artifact.TOKENS)
    return Written(tensors=tuple(choices), notes=_notes(recipe))


def _notes(recipe: Recipe) -> tuple[str, ...]:
    return tuple(
        f"{o.pattern}: {o.treatment}" + (f" ({o.reason})" if o.reason else "")
        for o in recipe.overrides
    )


FAMILY = Family(
    name="whisper",
    artifact_family="whisper",
    stage="recogniser",
    format="onnx",
    takes="a Hugging Face checkpoint of Whisper, or a CTranslate2 folder",
    schemes=whisper_artifact.SCHEMES,
    default_scheme="int8",
    recognises=recognises,
    inspect=inspect,
    convert=convert,
    quantise=quantise,
    checker="edgevoice.export.checks.recogniser:measure",
    recipes=whisper_artifact.RECIPES,
    licence="MIT",
)
