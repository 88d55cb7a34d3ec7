"""Wake words of openWakeWord: two common graphs (log-mel, embedding) and one small head per word.

The runtime has no stage that listens for them yet; an artifact says ``"engine": "onnxruntime"``,
and its check runs the three graphs as openWakeWord does.
"""

from __future__ import annotations

import onnx

from edgevoice.export.families.single_graph import Single, family, input_shapes
from edgevoice.quant.recipe import KEEP, Override

FILES = ("melspectrogram.onnx", "embedding_model.onnx", "wake_word.onnx")
EMBEDDING = 96


def refuses(model: onnx.ModelProto) -> str:
    """Return why ``model`` is no head over openWakeWord's embeddings, "" when it is one."""
    shapes = list(input_shapes(model).values())
    if len(shapes) == 1 and len(shapes[0]) == 3 and shapes[0][2] == EMBEDDING and shapes[0][1]:
        return ""
    return f"it takes {shapes}, [[1, windows, {EMBEDDING}]] is needed"


FAMILY = family(
    Single(
        name="wake-word",
        stage="wake-word",
        takes=f"a folder with {', '.join(FILES)}",
        default_scheme="fp16",
        checker="edgevoice.export.checks.wake_word:measure",
        refuses=refuses,
        files=FILES,
        int8_keeps=(
            Override("melspectrogram.onnx:*", KEEP, "a Fourier transform over the waveform"),
        ),
        engine=lambda model: {
            "engine": "onnxruntime",
            "embeddings": next(iter(input_shapes(model).values()))[1],
        },
    )
)
