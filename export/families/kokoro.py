"""Kokoro voices (StyleTTS 2, 82M): one graph and a style table for each voice.

Input is a folder with one float `.onnx` (inputs ``input_ids`` or ``tokens``, ``style``, ``speed``)
and `voices/NAME.bin` (float32, 510 rows of 256), as kokoro-onnx and kokoro-js publish them. The
artifact is what :mod:`edgevoice.engines.kokoro` reads; where the graph calls its symbols
``tokens`` it is sherpa-onnx's pack as well: `voices.bin` and `tokens.txt` beside it, metadata
inside (`scripts/kokoro/v1.0/add_meta_data.py` of sherpa-onnx).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgevoice.engines import kokoro as engine
from edgevoice.errors import ArtifactError
from edgevoice.export.families import voice_graphs
from edgevoice.export.family import Family, Job, SourceFacts, Written
from edgevoice.quant.recipe import Recipe
from edgevoice.quant.scheme import Scheme

GRAPH = "model.onnx"
_ROW_BYTES = engine.STYLE_SIZE * 4


def convert(source: Path, out: Path, job: Job) -> Written:
    """Write the float artifact."""
    del job
    from edgevoice.quant import tensors

    graph, voices = _files(source)
    model = voice_graphs.load_float(graph)
    inputs = {i.name for i in model.graph.input}
    if not {"style", "speed"} <= inputs or inputs.isdisjoint(("tokens", "input_ids")):
        raise ArtifactError(f"{graph}: not a Kokoro model: its inputs are {', '.join(inputs)}")
    (out / "voices").mkdir()
    for path in voices:
        shutil.copyfile(path, out / "voices" / path.name)
    if "tokens" in inputs:
        voice_graphs.annotate(model, _sherpa_pack(voices, out))
    (out / GRAPH).write_bytes(model.SerializeToString(deterministic=True))
    return Written(_engine_table(), tensors.choices(model))


def quantise(reference: Path, scheme: Scheme, recipe: Recipe, out: Path, job: Job) -> Written:
    """Write a candidate."""
    shutil.copytree(reference / "voices", out / "voices")
    for name in ("voices.bin", "tokens.txt"):
        if (reference / name).is_file():
            shutil.copyfile(reference / name, out / name)
    choices = voice_graphs.write(
        reference / GRAPH, out / GRAPH, scheme, recipe, job, feeds=lambda: _feeds(reference, job)
    )
    return Written(_engine_table(), choices)


def _engine_table() -> dict[str, Any]:
    return {"sample_rate_hz": engine.SAMPLE_RATE_HZ, "espeak_voice": "en-us"}


def _files(source: Path) -> tuple[Path, list[Path]]:
    """Return the graph and the voices, the default voice first."""
    graphs, voices = sorted(source.glob("*.onnx")), sorted((source / "voices").glob("*.bin"))
    if len(graphs) != 1 or not voices:
        raise ArtifactError(
            f"{source} has {len(graphs)} .onnx files and {len(voices)} in voices/*.bin; a Kokoro "
            "source has one model and its voices"
        )
    for path in voices:
        size = path.stat().st_size
        if not size or size % _ROW_BYTES:
            raise ArtifactError(f"{path}: {size} bytes are not rows of {engine.STYLE_SIZE} float32")
    voices.sort(key=lambda path: (path.stem != engine.DEFAULT_VOICE, path.stem))
    return graphs[0], voices


def _sherpa_pack(voices: Sequence[Path], out: Path) -> dict[str, str]:
    """Write what sherpa-onnx reads beside the graph and return what it reads inside."""
    styles = [np.fromfile(path, dtype="<f4").reshape(-1, engine.STYLE_SIZE) for path in voices]
    rows = min(map(len, styles))
    np.concatenate([style[:rows] for style in styles]).astype("<f4").tofile(out / "voices.bin")
    symbols = {"$": 0, **engine.SYMBOL_IDS}
    lines = (f"{symbol} {number}\n" for symbol, number in symbols.items())
    (out / "tokens.txt").write_text("".join(lines), encoding="utf-8")
    names = [path.stem for path in voices]
    return {
        "model_type": "kokoro",
        "language": "multi-lang",
        "has_espeak": "1",
        "sample_rate": str(engine.SAMPLE_RATE_HZ),
        "version": "1",
        "voice": "en-us",
        "style_dim": f"{rows},1,{engine.STYLE_SIZE}",
        "n_speakers": str(len(voices)),
        "speaker_names": ",".join(names),
    }


def _feeds(reference: Path, job: Job) -> Sequence[Mapping[str, Any]]:
    import onnxruntime

    from edgevoice.engines.phonemes import phonemise

    onnxruntime.set_seed(job.seed)
    graph, voices = _files(reference)
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    inputs = {i.name: i.type for i in session.get_inputs()}
    ids_name = "tokens" if "tokens" in inputs else "input_ids"
    speed = np.array([1.0], dtype=np.float32 if "float" in inputs["speed"] else np.int32)
    styles = np.fromfile(voices[0], dtype="<f4").reshape(-1, engine.STYLE_SIZE)
    feeds = []
    for text in voice_graphs.calibration_sentences(job):
        for sentence in phonemise(text, "en-us"):
            ids = engine.symbol_ids(sentence)
            feeds.append(
                {
                    ids_name: np.array([[0, *ids, 0]], dtype=np.int64),
                    "style": styles[min(len(ids), len(styles) - 1)][np.newaxis],
                    "speed": speed,
                }
            )
    return feeds


def _recognises(source: Path) -> bool:
    return (
        source.is_dir()
        and len(list(source.glob("*.onnx"))) == 1
        and any((source / "voices").glob("*.bin"))
    )


def _inspect(source: Path) -> SourceFacts:
    graph, voices = _files(source)
    size = graph.stat().st_size
    return SourceFacts(
        title=f"Kokoro, {len(voices)} voices",
        parameters=size // 4,
        source_bytes=size + sum(path.stat().st_size for path in voices),
        peak_memory_bytes=4 * size,
        detail={"voices": ", ".join(path.stem for path in voices)},
    )


FAMILY = Family(
    name="kokoro",
    artifact_family="kokoro",
    stage="speech",
    format="onnx",
    takes="a Kokoro model: one float .onnx, and voices/*.bin",
    schemes=voice_graphs.SCHEMES,
    default_scheme="int8-mixed",
    recognises=_recognises,
    inspect=_inspect,
    convert=convert,
    quantise=quantise,
    checker="edgevoice.export.checks.speech:measure",
    options=voice_graphs.OPTIONS,
    licence="Apache-2.0",
)
