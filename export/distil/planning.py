"""What a training would do and need, before it is done.

Owns the estimates, which are rough: times were measured with Whisper tiny.en on one core of an
x86-64 server with bfloat16 arithmetic, and grow with the encoder.
"""

from __future__ import annotations

from pathlib import Path

from edgevoice.export.distil import corpus, preparing, recordings
from edgevoice.export.distil.distilling import Request, stages_of
from edgevoice.export.distil.plan import FRAME_MS
from edgevoice.export.families.whisper_weights import Sizes

_TINY = 384
_BYTES_PER_PARAMETER = 16
"""In a checkpoint: the weights, their average, and the optimiser's two moments."""
_CORE_S_PER_HOUR = {"frozen": 3600 / 64, "whole": 3600 / 30}
"""Time of one core for an hour of speech heard."""


def lines(request: Request) -> list[str]:
    """Return what to tell the user.

    Raises:
        ConfigError: The request cannot be carried out.
        ArtifactError: The source is no Whisper that can stream.
    """
    sizes = preparing.read_whisper(request.whisper, request.allow_pickle).sizes
    stages = stages_of(request)
    parameters = encoder_parameters(sizes, request.new_layers)
    heard = request.batch_frames / 360_000.0  # hours a step
    core_s = sum(
        stage.steps * heard * _CORE_S_PER_HOUR[stage.name] * (sizes.n_audio_state / _TINY) ** 2
        for stage in stages
    )
    said = [
        f"encoder    {sizes.n_audio_layer} layers of {sizes.n_audio_state}, "
        f"{request.new_layers} new, {parameters / 1e6:.1f} million weights",
        f"decoding   {request.chunk_ms:g} ms at once, {request.left_ms:g} ms of context",
        f"writes     {f'{request.pieces} pieces of words' if request.pieces else 'characters'}",
    ]
    for stage in stages:
        said.append(f"{stage.name:<10} {stage.steps} steps, {stage.steps * heard:.0f} h heard")
    for folder in request.speech:
        said.append(f"speech     {_speech(folder)}")
    for name, weight in request.graph_texts:
        said.append(f"words      of {name}, weight {weight:g}")
    said.append(f"needs      {parameters * _BYTES_PER_PARAMETER / 1e6:.0f} MB for checkpoints")
    said.append(f"takes      about {core_s / 3600:.0f} hours of one core")
    said.append(f"frames     of {FRAME_MS:g} ms; seed {request.seed}")
    return said


def encoder_parameters(sizes: Sizes, new_layers: int) -> int:
    """Return how many weights are trained, all but the scores'."""
    width = sizes.n_audio_state
    front = 3 * width * (80 + width) + sizes.n_audio_ctx * width
    return front + (sizes.n_audio_layer + new_layers) * 12 * width**2


def _speech(folder: Path) -> str:
    if any(folder.glob("*.pcm")):
        return f"{folder}: {corpus.read([folder], ()).summary()}"
    return f"{folder}: {len(recordings.find(folder))} recordings, read when it begins"
