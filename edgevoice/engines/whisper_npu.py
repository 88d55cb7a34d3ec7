"""Whisper with its encoder on an NPU and its decoder on the CPU.

The binary of :mod:`edgevoice.export.npu_families.whisper` makes the cross-attention's keys and
values of one fixed length of log-mel; the silence that stands for the rest of Whisper's 30 s is
appended here, then :mod:`edgevoice.engines.whisper_greedy` decodes. Growing partials, cutting and
the guards are :mod:`edgevoice.engines.segmented_recogniser`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgevoice.engines import providers
from edgevoice.engines.artifact_files import onnx_file
from edgevoice.engines.log_mel import HOP_SAMPLES, MEL_BANDS, log_mel
from edgevoice.engines.ort import open_session, session_options
from edgevoice.engines.providers import Ran, Wanted
from edgevoice.engines.utterance_decoder import Written
from edgevoice.engines.whisper_greedy import GreedyWhisper, most_tokens
from edgevoice.errors import ArtifactError
from edgevoice.frames import SAMPLE_RATE_HZ, Float32
from edgevoice.manifest import Manifest
from edgevoice.stages import Expected

NPU = "qnn"
"""The provider that this engine is for."""

TAIL_FRAMES = 200
"""Silence behind the speech, of 10 ms each: with less Whisper repeats itself."""


class NpuWhisper:
    """Implements :class:`edgevoice.engines.utterance_decoder.UtteranceDecoder`.

    Args:
        encoder: Session of the binary.
        frames: Log-mel frames that it takes.
        silence: Keys and values of what follows, ``[layers, heads, length, head size]`` each.
        decoder: On the CPU.
    """

    def __init__(self, encoder: Any, frames: int, silence: list[Any], decoder: GreedyWhisper):
        self._encoder = encoder
        self._input = encoder.get_inputs()[0].name
        self._frames = frames
        self._silence = silence
        self._decoder = decoder

    def decode(
        self, samples: Float32, draft: Sequence[int] = (), expected: Expected = "turn"
    ) -> Written:
        """Write down ``samples``: float32, 16 kHz; what is beyond the binary's frames is cut."""
        audio = samples[: (self._frames - 1) * HOP_SAMPLES]
        outputs = self._encoder.run(None, {self._input: log_mel(audio, self._frames)[None]})
        keys, values = (
            np.concatenate(pair, axis=2) for pair in zip(outputs, self._silence, strict=True)
        )
        most = most_tokens(len(audio) / SAMPLE_RATE_HZ)
        return self._decoder.write(keys, values, most, draft, expected)


def is_for(manifest: Manifest, wanted: Wanted) -> bool:
    """Return whether the settings want the NPU and the artifact is a Whisper with a binary."""
    return manifest.family == "whisper" and NPU in wanted.order and "npu" in manifest.engine


def longest_ms(manifest: Manifest) -> float:
    """Return the longest utterance that the binary hears, less the silence behind it."""
    return 10.0 * (_frames(manifest) - TAIL_FRAMES)


def load(
    folder: Path, manifest: Manifest, threads: int, wanted: Wanted
) -> tuple[NpuWhisper | None, Ran]:
    """Open the encoder of ``folder`` on the NPU; None where it cannot run, with the reason.

    Raises:
        ArtifactError: The files for the CPU cannot be loaded or do not fit the binary.
        EngineError: The NPU is required and cannot run it.
    """
    path = Path(onnx_file(folder, manifest, "encoder"))
    files = providers.files_of(folder, manifest, path)
    only = Wanted((NPU,), _required(wanted))
    encoder, ran = providers.open_first(files, partial(session_options, threads), only)
    if encoder is None:
        return None, ran
    whole = open_session(path, threads)
    frames = _frames(manifest)
    mel = np.zeros((1, MEL_BANDS, frames), np.float32)
    made = [output.shape for output in encoder.get_outputs()]
    # What the whole encoder writes behind the audio's own keys is the same for all audio.
    silence = [
        np.ascontiguousarray(rows[:, :, shape[2] :])
        for rows, shape in zip(
            whole.run(None, {whole.get_inputs()[0].name: mel}), made, strict=True
        )
    ]
    if not all(
        rows.shape[:2] == tuple(shape[:2]) for rows, shape in zip(silence, made, strict=True)
    ):
        raise ArtifactError(f"{files.context} is not of {path.name}: export it again")
    decoder = GreedyWhisper(folder, threads, whole.get_modelmeta().custom_metadata_map)
    return NpuWhisper(encoder, frames, silence, decoder), ran


def _required(wanted: Wanted) -> bool:
    return wanted.required and wanted.order[0] == NPU


def _frames(manifest: Manifest) -> int:
    try:
        return int(manifest.engine["npu"]["frames"])
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{manifest.name!r}: engine.npu.frames is not a number; export it again"
        ) from error
