"""Whisper on the CPU, straight on onnxruntime: what an utterance was heard as before is the draft.

sherpa-onnx decodes an utterance anew each time. A conversation decodes the same utterance again and
again as it grows, and the last time counts: between its end and the answer. Here that takes half of
the time (`docs/recognition.md` has the figures): most tokens are confirmed in one step, and less
silence is encoded behind the speech.

For artifacts whose manifest says ``quiet_frames``, which are those of our own exporter in one
language; all others are sherpa-onnx's, and so is everything that is not on the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgevoice.engines import encoder_judge
from edgevoice.engines.artifact_files import engine_value, onnx_file
from edgevoice.engines.encoder_judge import ENDINGS, NODS, EncoderJudge
from edgevoice.engines.log_mel import HOP_SAMPLES, log_mel
from edgevoice.engines.ort import open_session
from edgevoice.engines.providers import Ran
from edgevoice.engines.segmented_recogniser import Judges, OfflineRecogniserModel
from edgevoice.engines.utterance_decoder import Written
from edgevoice.engines.whisper_greedy import GreedyWhisper, most_tokens
from edgevoice.frames import SAMPLE_RATE_HZ, Float32, samples_to_ms
from edgevoice.manifest import Manifest
from edgevoice.settings import RecogniserSettings
from edgevoice.stages import Expected

_QUIET_FRAMES = "quiet_frames"
_FRAME_MS = samples_to_ms(HOP_SAMPLES)
_MOST_FRAMES = 3000
"""Of 10 ms: Whisper's 30 s."""


class DraftedWhisper:
    """Implements :class:`edgevoice.engines.utterance_decoder.UtteranceDecoder`.

    Args:
        encoder: Session of the encoder.
        decoder: Of the same artifact.
        quiet_frames: Of silence, 10 ms each, that are encoded behind the speech.
    """

    def __init__(self, encoder: Any, decoder: GreedyWhisper, quiet_frames: int) -> None:
        self._encoder = encoder
        self._input = encoder.get_inputs()[0].name
        self._decoder = decoder
        self._quiet_frames = quiet_frames

    def decode(
        self, samples: Float32, draft: Sequence[int] = (), expected: Expected = "turn"
    ) -> Written:
        """Write down ``samples``: float32, 16 kHz, at most ``longest_ms`` of the manifest."""
        most = most_tokens(len(samples) / SAMPLE_RATE_HZ)
        keys, values = self._encoded(samples)
        written = self._decoder.write(keys, values, most, draft, expected)
        return replace(written, states=_by_frame(values))

    def states(self, samples: Float32) -> Float32:
        """Return what the encoder makes of ``samples``: float32, [frames of 20 ms, width]."""
        return _by_frame(self._encoded(samples)[1])

    def log_probability(self, samples: Float32, tokens: Sequence[int]) -> float:
        """Return the mean log probability of ``tokens``, decoded of ``samples``, in nats a token.

        All is computed anew: what is decoded costs no more for it.
        """
        return self._decoder.log_probability(*self._encoded(samples), tokens)

    def _encoded(self, samples: Float32) -> tuple[Any, Any]:
        """Return the cross-attention's keys and values: ``[layers, heads, length, size]`` each."""
        frames = min(_MOST_FRAMES, len(samples) // HOP_SAMPLES + self._quiet_frames)
        keys, values = self._encoder.run(None, {self._input: log_mel(samples, frames)[None]})
        return keys, values


def _by_frame(values: Any) -> Float32:
    """Return the first layer's values: the encoder's outputs but for a linear map."""
    first = np.asarray(values)[0].transpose(1, 0, 2)
    states: Float32 = first.reshape(len(first), -1)
    return states


def is_for(manifest: Manifest) -> bool:
    """Return whether the artifact says what this engine must know."""
    return manifest.family == "whisper" and _QUIET_FRAMES in manifest.engine


def load(
    folder: Path, manifest: Manifest, settings: RecogniserSettings, provider: Ran
) -> OfflineRecogniserModel:
    """Load the Whisper in ``folder`` on the CPU and decode 1 s of silence to warm it up.

    Args:
        folder: The artifact.
        manifest: Its manifest.
        settings: Threads, the interval of partials and the longest utterance count.
        provider: The CPU, with the reasons against others.

    Raises:
        ArtifactError: A file is missing, truncated or not ONNX, or the manifest holds a wrong
            value.
    """
    encoder = open_session(Path(onnx_file(folder, manifest, "encoder")), settings.threads)
    facts = encoder.get_modelmeta().custom_metadata_map
    decoder = GreedyWhisper(folder, settings.threads, facts)
    quiet_frames = engine_value(manifest, _QUIET_FRAMES, 0)
    whisper = DraftedWhisper(encoder, decoder, quiet_frames)
    whisper.decode(np.zeros(SAMPLE_RATE_HZ, np.float32))
    most_ms = (_MOST_FRAMES - quiet_frames) * _FRAME_MS
    longest_ms = min(engine_value(manifest, "longest_ms", most_ms), most_ms)
    judges = Judges(
        _judge(ENDINGS, manifest, decoder.width) if settings.judges_endings else None,
        _judge(NODS, manifest, decoder.width) if settings.judges_nods else None,
    )
    return OfflineRecogniserModel(whisper, settings, longest_ms, provider, judges)


def _judge(root: Path, manifest: Manifest, width: int) -> EncoderJudge | None:
    judge = encoder_judge.for_artifact(root, manifest.name)
    # Of another width it is another model of that name.
    return judge if judge is not None and judge.width == width else None
