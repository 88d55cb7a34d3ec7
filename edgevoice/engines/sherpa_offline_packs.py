"""Builds sherpa-onnx's OfflineRecognizer from an artifact of any segmented family.

Every pack has one ``*tokens.txt`` and the ONNX files that :data:`OFFLINE_FAMILIES` names. What
the manifest's ``engine`` may say: ``language``, ``tail_paddings`` (Whisper: feature frames of
silence behind the audio) and ``longest_ms`` (audio that one decode takes).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import sherpa_onnx

from edgevoice.engines.artifact_files import engine_value, onnx_file, plain_file
from edgevoice.engines.providers import Ran
from edgevoice.engines.segmented_recogniser import OfflineRecogniserModel
from edgevoice.engines.utterance_decoder import Written
from edgevoice.frames import SAMPLE_RATE_HZ, Float32
from edgevoice.manifest import Manifest
from edgevoice.settings import RecogniserSettings
from edgevoice.stages import Expected

_CPU = Ran()


@dataclass(frozen=True, slots=True)
class OfflineFamily:
    """How one family's recognizer is made.

    Attributes:
        constructor: Class method of ``sherpa_onnx.OfflineRecognizer``.
        parts: Its arguments that are ONNX files, each with a word of the file's name.
        options: Its arguments that the manifest may set, each with what holds otherwise.
        fixed: Its arguments that make it this family.
    """

    constructor: str
    parts: dict[str, str]
    options: dict[str, Any] = field(default_factory=dict)
    fixed: dict[str, Any] = field(default_factory=dict)


_SEQ2SEQ = {"encoder": "encoder", "decoder": "decoder"}
_TRANSDUCER = {"encoder": "encoder", "decoder": "decoder", "joiner": "joiner"}

OFFLINE_FAMILIES: dict[str, OfflineFamily] = {
    "whisper": OfflineFamily("from_whisper", _SEQ2SEQ, {"language": "en", "tail_paddings": -1}),
    "moonshine": OfflineFamily(
        "from_moonshine",
        {
            "preprocessor": "preprocess",
            "encoder": "encode",
            "uncached_decoder": "uncached_decode",
            "cached_decoder": "cached_decode",
        },
    ),
    "moonshine-v2": OfflineFamily("from_moonshine_v2", _SEQ2SEQ),
    "sense-voice": OfflineFamily(
        "from_sense_voice", {"model": ""}, {"language": ""}, {"use_itn": True}
    ),
    "nemo-canary": OfflineFamily(
        "from_nemo_canary", _SEQ2SEQ, {"src_lang": "en", "tgt_lang": "en"}
    ),
    "nemo-transducer": OfflineFamily(
        "from_transducer", _TRANSDUCER, fixed={"model_type": "nemo_transducer"}
    ),
    "offline-transducer": OfflineFamily("from_transducer", _TRANSDUCER),
    "offline-nemo-ctc": OfflineFamily("from_nemo_ctc", {"model": ""}),
    "offline-zipformer-ctc": OfflineFamily("from_zipformer_ctc", {"model": ""}),
    "offline-paraformer": OfflineFamily("from_paraformer", {"paraformer": ""}),
    "dolphin-ctc": OfflineFamily("from_dolphin_ctc", {"model": ""}),
    "omnilingual-asr-ctc": OfflineFamily("from_omnilingual_asr_ctc", {"model": ""}),
}
"""Segmented families and what builds each."""


class SherpaDecoder:
    """sherpa-onnx's OfflineRecognizer, which takes no drafts."""

    def __init__(self, recognizer: Any) -> None:
        self._recognizer = recognizer

    def decode(
        self, samples: Float32, draft: Sequence[int] = (), expected: Expected = "turn"
    ) -> Written:
        """As :meth:`edgevoice.engines.utterance_decoder.UtteranceDecoder.decode`."""
        del draft, expected
        stream = self._recognizer.create_stream()
        stream.accept_waveform(SAMPLE_RATE_HZ, samples)
        self._recognizer.decode_stream(stream)
        return Written(str(stream.result.text).strip())


def load_offline(
    folder: Path, manifest: Manifest, settings: RecogniserSettings, provider: Ran = _CPU
) -> OfflineRecogniserModel:
    """Load the segmented recogniser in ``folder`` and decode 1 s of silence to warm it up.

    Raises:
        ArtifactError: A file is missing, truncated or not ONNX, or the manifest holds a wrong
            value.
    """
    recognizer = build(
        OFFLINE_FAMILIES[manifest.family], folder, manifest, settings.threads, provider.name
    )
    decoder = SherpaDecoder(recognizer)
    decoder.decode(np.zeros(SAMPLE_RATE_HZ, np.float32))
    longest_ms = engine_value(manifest, "longest_ms", settings.max_utterance_s * 1000.0)
    return OfflineRecogniserModel(decoder, settings, longest_ms, provider)


def build(
    family: OfflineFamily, folder: Path, manifest: Manifest, threads: int, provider: str = "cpu"
) -> Any:
    """Make sherpa-onnx's recognizer of ``family`` from the files in ``folder``.

    Raises:
        ArtifactError: As :func:`load_offline`.
    """
    make = getattr(sherpa_onnx.OfflineRecognizer, family.constructor)
    parts = {name: onnx_file(folder, manifest, word) for name, word in family.parts.items()}
    options = {name: engine_value(manifest, name, value) for name, value in family.options.items()}
    return make(
        **parts,
        **options,
        **family.fixed,
        tokens=plain_file(folder, manifest, "tokens.txt"),
        num_threads=threads,
        provider=provider,
    )
