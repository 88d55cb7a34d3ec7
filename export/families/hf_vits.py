"""VITS voices that read characters (MMS-TTS), from Hugging Face checkpoints.

One graph in sherpa-onnx's layout, with its ``characters`` front end: no phonemes, no espeak-ng
(`offline-tts-vits-model.cc` and `offline-tts-character-frontend.cc`, release 2.0). Owns what a
source must look like, the metadata and the comparison with torch; the trace is
:mod:`edgevoice.export.torch_vits`'s, :mod:`edgevoice.export.families.voice_graphs` has the schemes.

No published checkpoint was at hand: small random weights were exported, whose sound was within 2e-5
of torch's (of its spread) from 1 to 300 tokens, and sherpa-onnx 2.0.1 spoke with them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgevoice.errors import ArtifactError, ExportError, refuse_unknown, unknown
from edgevoice.export import hf_checkpoint, torch_program
from edgevoice.export.families import voice_graphs
from edgevoice.export.family import Family, Job, SourceFacts, Written
from edgevoice.quant.recipe import Override, Recipe
from edgevoice.quant.scheme import Scheme

PROGRAM = "torch_vits.py"
MODEL = "model.onnx"
TOKENS = "tokens.txt"
OPTIONS: Mapping[str, str] = {
    "python": torch_program.OPTION,
    "products": voice_graphs.OPTIONS["products"],
}
# The largest difference to torch's sound, over its spread: float32 sums in another order.
TOLERANCE = 1e-3
_TOKENIZER = "tokenizer_config.json"


def recognises(source: Path) -> bool:
    """Whether ``source`` is a VITS checkpoint."""
    try:
        return hf_checkpoint.read_config(source).get("model_type") == "vits"
    except ArtifactError:
        return False


def inspect(source: Path) -> SourceFacts:
    """Read headers; see :class:`edgevoice.export.family.Family`.

    Raises:
        ArtifactError: Weights or the vocabulary are missing or damaged, or it reads no characters.
    """
    config = hf_checkpoint.read_config(source)
    if config.get("model_type") != "vits":
        raise ArtifactError(
            f"{source}: {unknown('architecture', str(config.get('model_type')), ('vits',))}"
        )
    settings = _tokenizer(source)
    return torch_program.facts(
        source,
        str(config.get("_name_or_path") or f"VITS {settings.get('language') or ''}".strip()),
        {
            "language": settings.get("language"),
            "sample_rate_hz": config.get("sampling_rate"),
            "speakers": config.get("num_speakers"),
        },
    )


def convert(source: Path, out: Path, job: Job) -> Written:
    """Write ``model.onnx`` in float32 and ``tokens.txt``.

    Raises:
        ArtifactError: It reads no characters, or weights are no numbers.
        ConfigError: An option is not known.
        ExportError: torch fails, or the graph computes something else.
        MissingDependencyError: torch cannot be installed.
    """
    from edgevoice.export import llm_tidy
    from edgevoice.export.onnx_graph import save
    from edgevoice.quant import tensors

    refuse_unknown("option", job.options, OPTIONS)
    _tokenizer(source)
    traced = job.work / "torch"
    torch_program.run(PROGRAM, source, traced, job)
    facts: dict[str, Any] = json.loads((traced / "facts.json").read_text(encoding="utf-8"))
    characters = _characters(facts, source)
    with job.meter("tidy the graph", None):
        model = llm_tidy.optimised(traced / MODEL, job.work, job.threads, "BASIC")
        tensors.require_finite(model)
        llm_tidy.name_weights(model)
        voice_graphs.annotate(model, metadata(facts))
        save(model, out / MODEL)
    lines = (f"{c} {number}".lstrip() for c, number in characters.items())
    (out / TOKENS).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    off = distance(out / MODEL, traced / "check.npz", job.threads)
    if not off <= TOLERANCE:
        raise ExportError(
            f"{source}: the graph's sound is {off:.2g} of its spread away from torch's, "
            f"{TOLERANCE:g} is allowed; please report the checkpoint"
        )
    engine = {
        "characters": "".join(characters),
        **{
            key: facts[key]
            for key in ("sample_rate_hz", "speakers", "noise_scale", "noise_scale_w")
        },
        # MMS says ISO 639-3; what a symbol is called is known for "en".
        "language": "en" if facts["language"] in ("", "eng") else facts["language"],
        "length_scale": facts["length_scale"],
    }
    note = f"sound within {off:.1g} of torch's (of its spread), without noise"
    return Written(engine, tensors.choices(model), (note,))


def quantise(reference: Path, scheme: Scheme, recipe: Recipe, out: Path, job: Job) -> Written:
    """Write ``model.onnx`` in ``scheme``."""
    (out / TOKENS).write_bytes((reference / TOKENS).read_bytes())
    choices = voice_graphs.write(
        reference / MODEL, out / MODEL, scheme, recipe, job, feeds=lambda: ()
    )
    return Written({}, choices)


def metadata(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return what sherpa-onnx's loader reads."""
    return {
        "model_type": "vits",
        "comment": "mms",
        "frontend": "characters",
        "language": facts["language"] or "en",
        "add_blank": str(int(facts["add_blank"])),
        "blank_id": "0",  # transformers' VitsTokenizer inserts token 0, whatever it is
        "use_eos_bos": "0",
        "n_speakers": str(facts["speakers"]),
        "sample_rate": str(facts["sample_rate_hz"]),
    }


def distance(path: Path, check: Path, threads: int) -> float:
    """Return how far the graph's sound is from torch's, in units of its spread.

    Raises:
        ExportError: It does not run, or speaks for another time.
    """
    import onnxruntime as ort

    with np.load(check) as stored:
        tokens, sound = np.asarray(stored["tokens"]), np.asarray(stored["sound"])
        slowness = np.array([stored["length_scale"]], np.float32)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    silent = np.zeros(1, np.float32)
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        speakers = int(session.get_modelmeta().custom_metadata_map["n_speakers"])
        given = [tokens[None], np.array([len(tokens)]), silent, slowness, silent]
        given.append(np.array([speakers - 1]))
        names = [i.name for i in session.get_inputs()]
        made = session.run(None, dict(zip(names, given, strict=False)))[0].reshape(-1)
    except Exception as error:  # onnxruntime's own classes derive from Exception alone
        reason = str(error).replace("\n", " ")[:200]
        raise ExportError(f"the graph does not run: {reason}") from error
    if made.shape != sound.shape:
        raise ExportError(f"the graph says {len(made)} samples, torch {len(sound)}")
    return float(np.abs(made - sound).max() / max(float(sound.std()), 1e-6))


def _characters(facts: Mapping[str, Any], source: Path) -> dict[str, int]:
    """Return the characters that the voice reads, with their numbers."""
    found = {
        token: number
        for token, number in sorted(facts["tokens"].items(), key=lambda item: (item[1], item[0]))
        if len(token) == 1 and number < facts["scores"]
    }
    if not any(c.isalpha() for c in found):
        raise ArtifactError(f"{source}: no token is a single letter; such a voice is not known")
    if not facts["lower_case"] or any(c.isascii() and c.isupper() for c in found):
        raise ArtifactError(
            f"{source} tells capitals from small letters, and sherpa-onnx makes all small"
        )
    return found


def _tokenizer(source: Path) -> Mapping[str, Any]:
    if not (source / "vocab.json").is_file():
        raise ArtifactError(f"{source} has no vocab.json; take all files of the checkpoint")
    path = source / _TOKENIZER
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read as JSON: {error}") from error
    # Missing keys are transformers' defaults.
    if settings.get("phonemize", True):
        raise ArtifactError(
            f"{source} reads phonemes (phonemize in {_TOKENIZER}); exported are voices that read "
            "characters, as MMS-TTS's do, and Piper voices for phonemes"
        )
    if settings.get("is_uroman", False):
        raise ArtifactError(
            f"{source} reads its language in Latin letters made by uroman, which the runtime has "
            "not; take a voice whose tokenizer has is_uroman false"
        )
    return dict(settings)


_AS_PIPER = "the same architecture as Piper's, where it was measured; not measured on MMS weights"
FAMILY = Family(
    name="hf-vits",
    artifact_family="vits",
    stage="speech",
    format="onnx",
    takes="Hugging Face checkpoint of VITS that reads characters (MMS-TTS)",
    schemes=("fp32", "fp16", "int8", "int8-mixed"),
    default_scheme="int8",
    recognises=recognises,
    inspect=inspect,
    convert=convert,
    quantise=quantise,
    checker="edgevoice.export.checks.speech:measure",
    recipes={
        "int8-mixed": Recipe(
            (
                Override("*duration_predictor*", "fp16", _AS_PIPER),
                Override("*attention*", "fp16", _AS_PIPER),
            )
        )
    },
    options=OPTIONS,
    needs={"onnx": "edgevoice[convert]"},
)
