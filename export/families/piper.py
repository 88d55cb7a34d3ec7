"""Piper voices (VITS): one artifact that onnxruntime and sherpa-onnx both load.

The whole graph is sherpa-onnx's; beside it lie its two halves, which our own engine plays from
while it decodes (:mod:`edgevoice.export.families.piper_voice`). Input is a voice as piper publishes
it: `NAME.onnx` and `NAME.onnx.json`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgevoice.errors import ConfigError, MissingDependencyError, refuse_unknown, unknown
from edgevoice.export.families import piper_voice, voice_graphs
from edgevoice.export.family import Family, Job, SourceFacts, Written
from edgevoice.quant.recipe import Override, Recipe, TensorChoice
from edgevoice.quant.scheme import Scheme

# What `models pull` makes of a voice.
SCHEMES = ("fp32", "int8")
# Int8 as it should be is 1.4 to 1.7 from float; with one dead tensor in the text encoder it is 2.1
# to 2.6, in the flow 4.6, in the decoder 3.1 to 14.
MAX_LOG_MEL_DB = 2.0
# Log-mel distance of joe from float's, dB over six sentences, with one part alone in int8: text
# encoder 1.28, durations 1.03 (they move by a frame here and there), flow 0.47, decoder 0.17 to
# 0.43 a stage; all of it 1.56, and with this recipe 1.41 for 1.3 MB more.
MIXED = Recipe(
    (
        Override("dp.*", "fp16", "durations: the worst loss for its 0.5 of 15.7 million weights"),
        Override("enc_p.encoder.attn*", "fp16", "attention decides the durations as well"),
    )
)


@dataclass(frozen=True, slots=True)
class PreparedVoice:
    """What became of the voice; the fields of the same names of a manifest."""

    format: str
    scheme: str
    engine: Mapping[str, Any]
    checks: Mapping[str, Any] = field(default_factory=dict)


def prepare(fetched: Path, out: Path, options: Mapping[str, Any]) -> PreparedVoice:
    """Write the artifact of the voice in ``fetched`` into ``out`` (both folders exist).

    Args:
        fetched: Holds one `NAME.onnx` and its `NAME.onnx.json`.
        out: Gets both under the same names, `tokens.txt`, and the graph's halves in a folder.
        options: ``scheme``: one of :data:`SCHEMES`, ``fp32`` when absent.

    Raises:
        ArtifactError: The voice is incomplete or truncated, or int8 changes its sound too much.
        ConfigError: An option is not known.
        MissingDependencyError: onnx is not installed.
    """
    refuse_unknown("option of a Piper voice", options, ("scheme",))
    scheme = str(options.get("scheme", "fp32"))
    if scheme not in SCHEMES:
        raise ConfigError(unknown("scheme of a Piper voice", scheme, SCHEMES))
    try:
        from edgevoice.export.families.piper_compare import compare
        from edgevoice.quant import dynamic_int8
    except ImportError as error:
        raise MissingDependencyError(
            "preparing a voice needs onnx; `pip install 'edgevoice[convert]'`"
        ) from error
    checks: dict[str, Any] = {}

    def quantise(source: Path, target: Path) -> tuple[TensorChoice, ...]:
        if scheme == "fp32":
            shutil.copyfile(source, target)
            return ()
        made = dynamic_int8.write(source, target, Recipe())
        checks.update(compare(source, target, piper_voice.read(source)[1]))
        return made

    written, measured = _assemble(fetched, out, quantise)
    return PreparedVoice("onnx", scheme, written.engine, {**checks, **measured})


def convert(source: Path, out: Path, job: Job) -> Written:
    """Write the float artifact."""

    def copy(graph: Path, target: Path) -> tuple[TensorChoice, ...]:
        from edgevoice.quant import tensors

        model = voice_graphs.load_float(graph)
        shutil.copyfile(graph, target)
        return tensors.choices(model)

    del job
    return _assemble(source, out, copy)[0]


def quantise(reference: Path, scheme: Scheme, recipe: Recipe, out: Path, job: Job) -> Written:
    """Write a candidate; its halves are cut from the quantised graph."""
    settings = piper_voice.read(reference)[1]

    def write(graph: Path, target: Path) -> tuple[TensorChoice, ...]:
        return voice_graphs.write(
            graph, target, scheme, recipe, job, feeds=lambda: calibration_feeds(settings, job)
        )

    return _assemble(reference, out, write)[0]


def calibration_feeds(settings: Mapping[str, Any], job: Job) -> Sequence[Mapping[str, Any]]:
    """Return what the graph takes to say the calibration sentences, with the voice's own noise."""
    import onnxruntime

    from edgevoice.engines.phonemes import phonemise
    from edgevoice.engines.piper import SymbolTable

    # The graph draws its noise itself.
    onnxruntime.set_seed(job.seed)
    espeak_voice = settings["espeak"]["voice"]
    table = SymbolTable({k: tuple(v) for k, v in settings["phoneme_id_map"].items()})
    inference = settings.get("inference", {})
    scales = [float(inference.get(k, d)) for k, d in
              (("noise_scale", 0.667), ("length_scale", 1.0), ("noise_w", 0.8))]  # fmt: skip
    feeds = []
    for text in voice_graphs.calibration_sentences(job):
        for sentence in phonemise(text, espeak_voice):
            ids = np.array([table.ids(sentence)], dtype=np.int64)
            feed = {
                "input": ids,
                "input_lengths": np.array([ids.shape[1]], dtype=np.int64),
                "scales": np.array(scales, dtype=np.float32),
            }
            if settings.get("num_speakers", 1) > 1:
                feed["sid"] = np.array([0], dtype=np.int64)
            feeds.append(feed)
    return feeds


def _assemble(
    source: Path, out: Path, write: Callable[[Path, Path], tuple[TensorChoice, ...]]
) -> tuple[Written, dict[str, Any]]:
    """Write every file of the artifact; ``write`` makes its graph of the source's."""
    import onnx

    from edgevoice.export.onnx_graph import load

    graph, settings = piper_voice.read(source)
    model = load(graph)
    halves = piper_voice.measure_halves(model, settings)
    target = out / graph.name
    choices = write(graph, target)
    model = onnx.load(str(target))
    voice_graphs.annotate(model, piper_voice.sherpa_metadata(settings))
    target.write_bytes(model.SerializeToString(deterministic=True))
    engine: dict[str, Any] = {
        "sample_rate_hz": settings["audio"]["sample_rate"],
        "espeak_voice": settings["espeak"]["voice"],
        "speakers": settings.get("num_speakers", 1),
    }
    measured: dict[str, Any] = {}
    if halves is not None:
        point, figures = halves
        engine |= piper_voice.save_halves(model, point, out)
        engine["decoder_overlap_frames"] = figures.overlap_frames
        engine["samples_per_frame"] = figures.samples_per_frame
        measured["halves_max_error"] = float(f"{figures.max_error:.1e}")
    shutil.copyfile(graph.with_name(graph.name + ".json"), out / (graph.name + ".json"))
    piper_voice.write_tokens(settings["phoneme_id_map"], out / "tokens.txt")
    return Written(engine, choices), measured


def _recognises(source: Path) -> bool:
    models = [source] if source.suffix == ".onnx" else piper_voice.graphs(source)
    return len(models) == 1 and models[0].with_name(models[0].name + ".json").is_file()


def _inspect(source: Path) -> SourceFacts:
    graph, settings = piper_voice.read(source)
    size = graph.stat().st_size
    return SourceFacts(
        title=f"Piper voice {graph.stem}",
        parameters=size // 4,
        source_bytes=size,
        peak_memory_bytes=6 * size,
        detail={
            "espeak_voice": settings["espeak"]["voice"],
            "sample_rate_hz": settings["audio"]["sample_rate"],
        },
    )


FAMILY = Family(
    name="piper",
    artifact_family="piper",
    stage="speech",
    format="onnx",
    takes="a Piper voice: NAME.onnx with NAME.onnx.json beside it",
    schemes=voice_graphs.SCHEMES,
    default_scheme="int8",
    recognises=_recognises,
    inspect=_inspect,
    convert=convert,
    quantise=quantise,
    checker="edgevoice.export.checks.speech:measure",
    recipes={"int8-mixed": MIXED},
    options=voice_graphs.OPTIONS,
    bounds={"log_mel_distance_db": MAX_LOG_MEL_DB},
)
