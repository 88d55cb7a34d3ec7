"""Piper voices: one artifact that onnxruntime and sherpa-onnx both load, float or int8.

The whole graph is sherpa-onnx's; beside it lie its two halves, which our own engine plays from
while it decodes. A graph that cannot be halved is played whole, and a warning says why.

Input is a voice as piper publishes it: `NAME.onnx` and `NAME.onnx.json`. What sherpa-onnx wants
besides is metadata inside the graph and a `tokens.txt`; its own script
(`scripts/piper/add_meta_data.py` of sherpa-onnx) is the source of both formats.
"""

from __future__ import annotations

import itertools
import json
import logging
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgevoice.errors import ArtifactError, ConfigError, MissingDependencyError, unknown
from edgevoice.export.families import piper_cut

_log = logging.getLogger(__name__)

SCHEMES = ("fp32", "int8")
# "hello, how are you today?" A voice of another language leaves out what it lacks.
CHECK_PHONEMES = "həlˈoʊ, hˌaʊ ɑːɹ juː tədˈeɪ?"
MAX_DURATION_CHANGE = 0.10
MAX_SPECTRUM_DB = 3.0
# In a folder of their own: what reads a voice's folder expects one .onnx file there.
HALVES = "halves"
HALF_NAMES = ("front", "decoder")


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
        ArtifactError: The voice is incomplete or truncated, or int8 changes its sound by more
            than the bounds above.
        ConfigError: An option is not known.
        MissingDependencyError: onnx is not installed.
    """
    if strange := set(options) - {"scheme"}:
        raise ConfigError(unknown("option of a Piper voice", min(strange), ("scheme",)))
    scheme = str(options.get("scheme", "fp32"))
    if scheme not in SCHEMES:
        raise ConfigError(unknown("scheme of a Piper voice", scheme, SCHEMES))
    try:
        import onnx
    except ImportError as error:
        raise MissingDependencyError(
            "preparing a voice needs onnx; `pip install 'edgevoice[convert]'`"
        ) from error
    source, settings = _files(fetched)
    target = out / source.name
    try:
        model = onnx.load(str(source))
        onnx.checker.check_model(model)
    except Exception as error:
        raise ArtifactError(f"{source}: not a whole ONNX model: {_line(error)}") from error
    checks: dict[str, Any] = {}
    halves = _measure_halves(model, settings)
    if scheme == "int8":
        _quantise(source, target)
        model = onnx.load(str(target))
        checks = _compare(source, target, settings)
    _annotate(model, settings)
    onnx.save(model, str(target))
    engine: dict[str, Any] = {}
    if halves is not None:
        point, measured = halves
        engine = _save_halves(model, point, out)
        engine["decoder_overlap_frames"] = measured.overlap_frames
        engine["samples_per_frame"] = measured.samples_per_frame
        checks["halves_max_error"] = float(f"{measured.max_error:.1e}")
    shutil.copyfile(source.with_name(source.name + ".json"), out / (source.name + ".json"))
    _write_tokens(settings["phoneme_id_map"], out / "tokens.txt")
    return PreparedVoice(
        format="onnx",
        scheme=scheme,
        engine={
            "sample_rate_hz": settings["audio"]["sample_rate"],
            "espeak_voice": settings["espeak"]["voice"],
            "speakers": settings.get("num_speakers", 1),
            **engine,
        },
        checks=checks,
    )


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


def _files(fetched: Path) -> tuple[Path, dict[str, Any]]:
    models = sorted(path for path in fetched.rglob("*.onnx") if path.parent.name != HALVES)
    if len(models) != 1:
        raise ArtifactError(f"{fetched} has {len(models)} .onnx files; a Piper voice has one")
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


def _measure_halves(
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
            feed = _check_feed(settings, {i.name for i in model.graph.input})
            measured = piper_cut.measure(whole, front, decoder, feed)
    except Exception as error:  # onnx's and onnxruntime's too: the whole graph is still good
        _log.warning(
            "the voice stays whole and is silent until a sentence is done: %s", _line(error)
        )
        return None
    return point, measured


def _save_halves(model: Any, point: piper_cut.CutPoint, out: Path) -> dict[str, Any]:
    import onnx

    (out / HALVES).mkdir()
    names = {part: f"{HALVES}/{part}.onnx" for part in HALF_NAMES}
    for name, half in zip(names.values(), piper_cut.split(model, point), strict=True):
        onnx.save(half, str(out / name))
    return dict(names)


def _annotate(model: Any, settings: Mapping[str, Any]) -> None:
    wanted = sherpa_metadata(settings)
    kept = [(p.key, p.value) for p in model.metadata_props if p.key not in wanted]
    del model.metadata_props[:]
    for key, value in [*kept, *wanted.items()]:
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value


def _write_tokens(symbol_ids: Mapping[str, Any], path: Path) -> None:
    lines = [f"{symbol} {ids[0]}\n" for symbol, ids in symbol_ids.items() if symbol != "\n"]
    path.write_text("".join(lines), encoding="utf-8")


def _quantise(source: Path, target: Path) -> None:
    """Round all weights to unsigned bytes.

    The convolutions hold the weights. Unsigned, because onnxruntime's ConvInteger was 4 times
    slower with signed bytes here (real-time factor 0.61 and 0.47 against 0.22 and 0.12).
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)  # one warning for each shape that it does not infer
    try:
        quantize_dynamic(str(source), str(target), weight_type=QuantType.QUInt8)
    finally:
        logging.disable(disabled)


def _compare(source: Path, target: Path, settings: Mapping[str, Any]) -> dict[str, float]:
    """Say the same words without noise with both graphs and compare length and spectrum."""
    before, after = _say(source, settings), _say(target, settings)
    duration_ratio = len(after) / len(before)
    spectrum_db = float(np.abs(_bands_db(after) - _bands_db(before)).mean())
    size_ratio = target.stat().st_size / source.stat().st_size
    if abs(duration_ratio - 1) > MAX_DURATION_CHANGE or not spectrum_db <= MAX_SPECTRUM_DB:
        raise ArtifactError(
            f"int8 changes {source.name} too much: duration x{duration_ratio:.2f} (allowed "
            f"1 +- {MAX_DURATION_CHANGE}), spectrum {spectrum_db:.1f} dB (allowed "
            f"{MAX_SPECTRUM_DB}); use scheme fp32"
        )
    if size_ratio >= 1:
        raise ArtifactError(f"int8 makes {source.name} no smaller; use scheme fp32")
    return {
        "duration_ratio": round(duration_ratio, 4),
        "spectrum_db": round(spectrum_db, 3),
        "size_ratio": round(size_ratio, 4),
    }


def _say(path: Path, settings: Mapping[str, Any]) -> npt.NDArray[np.float32]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    feed = _check_feed(settings, {i.name for i in session.get_inputs()})
    samples: npt.NDArray[np.float32] = np.asarray(session.run(None, feed)[0]).reshape(-1)
    return samples


def _check_feed(settings: Mapping[str, Any], inputs: set[str]) -> dict[str, Any]:
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


def _bands_db(samples: npt.NDArray[np.float32], bands: int = 24) -> npt.NDArray[np.float64]:
    """Long-term power in ``bands`` logarithmic bands, dB."""
    power = np.abs(np.fft.rfft(samples.astype(np.float64))) ** 2 / len(samples)
    # A short sound has fewer bins than bands at the low end.
    edges = np.unique(np.geomspace(max(len(power) / 100, 1), len(power), bands + 1).astype(int))
    return np.array(
        [10 * np.log10(power[low:high].mean() + 1e-12) for low, high in itertools.pairwise(edges)]
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
