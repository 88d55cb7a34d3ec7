"""Speaker embeddings as sherpa-onnx loads them: WeSpeaker, 3D-Speaker and NeMo, by their metadata.

The runtime has no stage that uses them yet; an artifact says ``"engine": "sherpa-onnx"`` and is
checked with sherpa-onnx's ``SpeakerEmbeddingExtractor``.
"""

from __future__ import annotations

import onnx

from edgevoice.export.families.pack_layout import metadata_of
from edgevoice.export.families.single_graph import Single, family

# speaker-embedding-extractor-{model,nemo-model}.cc of sherpa-onnx.
_GENERAL = ("output_dim", "sample_rate", "normalize_samples", "language")
_FRAMEWORKS = {
    "wespeaker": _GENERAL,
    "3d-speaker": _GENERAL,
    "nemo": (
        *("output_dim", "feat_dim", "sample_rate", "window_size_ms", "window_stride_ms"),
        "language",
    ),
}


def refuses(model: onnx.ModelProto) -> str:
    """Return why sherpa-onnx would not load ``model``, "" when it would."""
    metadata = metadata_of(model)
    framework = metadata.get("framework", "")
    if framework not in _FRAMEWORKS:
        known = ", ".join(_FRAMEWORKS)
        return f"framework {framework!r} in its metadata; sherpa-onnx knows {known}"
    missing = [key for key in _FRAMEWORKS[framework] if not metadata.get(key)]
    return f"its metadata lacks {', '.join(missing)}" if missing else ""


FAMILY = family(
    Single(
        name="speaker-embedding",
        stage="speaker",
        takes="a WeSpeaker, 3D-Speaker or NeMo .onnx with sherpa-onnx's metadata",
        default_scheme="int8",
        checker="edgevoice.export.checks.speaker:measure",
        refuses=refuses,
        engine=lambda model: {
            "engine": "sherpa-onnx",
            "dimensions": int(metadata_of(model)["output_dim"]),
        },
    )
)
