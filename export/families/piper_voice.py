"""The files of a Piper voice: what piper publishes, and what the runtime's engines want besides.

Owns reading and writing them. What sherpa-onnx wants is metadata inside the graph and a
`tokens.txt`; its own script (`scripts/piper/add_meta_data.py` of sherpa-onnx) is the source of both
formats. Our own engine wants the graph's two halves, which it plays from while it decodes; a graph
that cannot be halved is played whole, and a warning says why.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgevoice.errors import ArtifactError
from edgevoice.export.families import piper_cut

_log = logging.getLogger(__name__)

# "hello, how are you today?" A voice of another language leaves out what it lacks.
CHECK_PHONEMES = "həlˈoʊ, hˌaʊ ɑːɹ juː tədˈeɪ?"
# In a folder of their own: what reads a voice's folder expects one .onnx file there.
HALVES = "halves"
HALF_NAMES = ("front", "decoder")


def sherpa_metadata(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return what sherpa-onnx reads from a Piper graph's metadata."""
    voice = settings["espeak"]["voice"]
    language = settings.get("language", {}).get("name_english", voice)
    return {
        "model_type": "vits",
        "comment": "piper",
        "language": str(language),
        "voice": str(voice),
        "has_espeak": "1",
        "n_speakers": str(settings.get("num_speakers", 1)),
        "sample_rate": str(settings["audio"]["sample_rate"]),
    }


def graphs(folder: Path) -> list[Path]:
    """Return the whole graphs in ``folder``."""
    return sorted(path for path in folder.rglob("*.onnx") if path.parent.name != HALVES)


def read(source: Path) -> tuple[Path, dict[str, Any]]:
    """Return the graph and the settings of the voice that is or lies in ``source``.

    Raises:
        ArtifactError: There is not exactly one, or it is incomplete.
    """
    models = [source] if source.is_file() else graphs(source)
    if len(models) != 1:
        raise ArtifactError(f"{source} has {len(models)} .onnx files; a Piper voice has one")
    path = models[0].with_name(models[0].name + ".json")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        if not settings["phoneme_id_map"] or settings["audio"]["sample_rate"] <= 0:
            raise ValueError("no symbols or no sample rate")
        settings["espeak"]["voice"]
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing; a Piper voice is two files") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path}: not a Piper voice's settings: {error!r}") from error
    return models[0], settings


def measure_halves(
    model: Any, settings: Mapping[str, Any]
) -> tuple[piper_cut.CutPoint, piper_cut.Halves] | None:
    """Cut the float graph and measure; None, and a warning, when it has to stay whole."""
    import onnx

    try:
        point = piper_cut.find(model)
        with tempfile.TemporaryDirectory() as name:
            whole, front, decoder = (Path(name) / f"{n}.onnx" for n in ("whole", *HALF_NAMES))
            made = (model, *piper_cut.split(model, point))
            for part, path in zip(made, (whole, front, decoder), strict=True):
                onnx.save(part, str(path))
            feed = check_feed(settings, {i.name for i in model.graph.input})
            measured = piper_cut.measure(whole, front, decoder, feed)
    except Exception as error:  # onnx's and onnxruntime's too: the whole graph is still good
        _log.warning(
            "the voice stays whole and is silent until a sentence is done: %s", line(error)
        )
        return None
    return point, measured


def save_halves(model: Any, point: piper_cut.CutPoint, out: Path) -> dict[str, Any]:
    """Write the halves of ``model`` and return where, as the manifest says it."""
    import onnx

    (out / HALVES).mkdir()
    names = {part: f"{HALVES}/{part}.onnx" for part in HALF_NAMES}
    for name, half in zip(names.values(), piper_cut.split(model, point), strict=True):
        onnx.save(half, str(out / name))
    return dict(names)


def write_tokens(symbol_ids: Mapping[str, Any], path: Path) -> None:
    """Write sherpa-onnx's `tokens.txt`: a symbol and its first id a line."""
    lines = [f"{symbol} {ids[0]}\n" for symbol, ids in symbol_ids.items() if symbol != "\n"]
    path.write_text("".join(lines), encoding="utf-8")


def check_feed(settings: Mapping[str, Any], inputs: set[str]) -> dict[str, Any]:
    """Return what a graph with ``inputs`` takes to say the check's words without noise."""
    symbol_ids = settings["phoneme_id_map"]
    pad = symbol_ids["_"]
    ids = [*symbol_ids["^"], *pad]
    for symbol in CHECK_PHONEMES:
        if symbol in symbol_ids:
            ids += [*symbol_ids[symbol], *pad]
    ids += symbol_ids["$"]
    feed = {
        "input": np.array([ids], dtype=np.int64),
        "input_lengths": np.array([len(ids)], dtype=np.int64),
        "scales": np.array([0.0, 1.0, 0.0], dtype=np.float32),
    }
    if "sid" in inputs:
        feed["sid"] = np.array([0], dtype=np.int64)
    return feed


def line(error: Exception) -> str:
    """Return ``error`` as part of one line."""
    return " ".join(str(error).split())[:160]
