"""Smart Turn v3: published as static int8 (QDQ), which passes through, or as float."""

from __future__ import annotations

import onnx

from edgevoice.engines.log_mel import HOP_SAMPLES, MEL_BANDS
from edgevoice.engines.smart_turn import HEARD_SAMPLES
from edgevoice.export.families.single_graph import Single, family, input_shapes

_WANTED = {"input_features": [MEL_BANDS, HEARD_SAMPLES // HOP_SAMPLES]}


def refuses(model: onnx.ModelProto) -> str:
    """Return why the runtime would not run ``model``, "" when it would."""
    shapes = {name: shape[1:] for name, shape in input_shapes(model).items()}
    return "" if shapes == _WANTED else f"it takes {shapes}, {_WANTED} is needed"


FAMILY = family(
    Single(
        name="smart-turn",
        stage="end-of-turn",
        takes="smart-turn-v3*.onnx",
        default_scheme="int8",
        checker="edgevoice.export.checks.end_of_turn:measure",
        refuses=refuses,
        licence="BSD-2-Clause",
    )
)
