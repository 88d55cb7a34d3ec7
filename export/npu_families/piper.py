"""Piper: the HiFi-GAN decoder for a stretch of latent frames of one length.

A stretch is :data:`FRAMES` with the overlap that the sound of its ends depends on on both sides;
the front half, whose lengths follow the sentence, stays on the CPU.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgevoice.engines import piper
from edgevoice.errors import ExportError
from edgevoice.export.calibration import Calibration, default_sentences
from edgevoice.export.families import piper_cut, piper_voice
from edgevoice.export.gates import Bound
from edgevoice.export.npu_graph import NpuGraph
from edgevoice.export.onnx_graph import load
from edgevoice.export.signal_noise import compare
from edgevoice.manifest import Manifest
from edgevoice.quant import static_graph
from edgevoice.quant.tensors import integer_operators

FRAMES = 64
"""0.74 s at 22.05 kHz and 256 samples a frame; 0.51 s without an overlap of 10 on both sides."""
_STRETCHES = 24
_HELD_OUT = 8
# Of speech, whose quiet parts a stretch may consist of; the whole voice has 27 dB in a16w8.
_LEAST_DB = 20.0


def graph_of(folder: Path, manifest: Manifest, calibration: Calibration) -> NpuGraph:
    """Return the decoder, ``[1, channels, FRAMES]`` to samples, from a float artifact.

    Raises:
        ExportError: The voice is quantised already, or has several speakers.
    """
    path, settings = piper.find_files(folder)
    model = load(path)
    if integer_operators(model):
        raise ExportError(
            f"{manifest.name} is {manifest.scheme}: an NPU's integers are made of float weights; "
            "name the float voice (edgevoice export --scheme fp32)"
        )
    halves = piper_voice.measure_halves(model, json.loads(settings.read_text("utf-8")))
    if halves is None:
        raise ExportError(f"{manifest.name} cannot be cut before its decoder; the log says why")
    point, measured = halves
    if point.others:
        raise ExportError(f"{manifest.name} has several speakers; a voice of one is needed")
    front, decoder = piper_cut.split(model, point)
    names = [f"{piper_voice.HALVES}/{part}.onnx" for part in piper_voice.HALF_NAMES]
    config = piper.read_config(settings)
    name = decoder.graph.input[0].name
    held_out = _latents(front, config, default_sentences("speech"), _HELD_OUT)
    channels = held_out[0].shape[1]
    return NpuGraph(
        static_graph.fix(decoder, {name: [1, channels, FRAMES]}),
        Path(names[1]).stem,
        [{name: x} for x in _latents(front, config, calibration.sentences(), _STRETCHES)],
        [{name: x} for x in held_out],
        (Bound("snr_db", "at least", _LEAST_DB, "of the samples, over float's"),),
        compare,
        ("a16w8", "a8w8", "fp16"),
        {"frames": FRAMES},
        dict(zip(names, (front, decoder), strict=True)),
        {
            **dict(zip(piper_voice.HALF_NAMES, names, strict=True)),
            "decoder_overlap_frames": measured.overlap_frames,
            "samples_per_frame": measured.samples_per_frame,
        },
    )


def _latents(front: onnx.ModelProto, config: Any, sentences: Iterable[str], most: int) -> list[Any]:
    """Return stretches of the latents of ``sentences``, float32 [1, channels, FRAMES] each."""
    import onnxruntime as ort

    from edgevoice.engines.phonemes import phonemise

    ort.set_seed(0)  # the front draws noise, and the same source has to give the same bytes
    session = ort.InferenceSession(front.SerializeToString(), providers=["CPUExecutionProvider"])
    symbols = piper.SymbolTable(config.symbol_ids)
    found: list[Any] = []
    for sentence in sentences:
        for phonemes in phonemise(sentence, config.espeak_voice):
            ids = np.array([symbols.ids(phonemes)], np.int64)
            feed = {
                "input": ids,
                "input_lengths": np.array([ids.shape[1]], np.int64),
                "scales": np.array([0.667, 1.0, 0.8], np.float32),
            }
            latent = session.run(None, feed)[0]
            for start in range(0, latent.shape[2] - FRAMES, FRAMES):
                stretch = latent[:, :, start : start + FRAMES]
                found.append(np.ascontiguousarray(stretch, np.float32))
                if len(found) == most:
                    return found
    if not found:
        raise ExportError("the sentences are too short to make a stretch of sound of them")
    return found
