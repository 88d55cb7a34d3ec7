"""Smart Turn v3 on onnxruntime: does the turn end here, judged from sound.

The model is an 8 s Whisper-tiny encoder with a classifier (pipecat-ai/smart-turn, BSD-2-Clause).
Owns the judgement; when to ask and what to do with the answer is the turn-taking's business.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from edgevoice import manifest as manifests
from edgevoice.engines import providers
from edgevoice.engines.artifact_files import onnx_file
from edgevoice.engines.log_mel import HOP_SAMPLES, MEL_BANDS, log_mel_of_tail
from edgevoice.engines.providers import Ran, Wanted
from edgevoice.engines.samples import finite
from edgevoice.errors import ArtifactError
from edgevoice.frames import SAMPLE_RATE_HZ, Float32
from edgevoice.settings import EndOfTurnSettings

HEARD_SAMPLES = 8 * SAMPLE_RATE_HZ
"""The model hears the last 8 s; a shorter turn is padded with zeros in front."""
_CPU = Ran()


class SmartTurn:
    """Loaded Smart Turn (:class:`edgevoice.stages.EndOfTurn`), shared by all conversations."""

    def __init__(self, session: Any, provider: Ran = _CPU) -> None:
        self._session = session
        self.provider = provider

    def probability(self, samples: Float32) -> float:
        """Return the probability in [0, 1] that the turn ends with ``samples``.

        Args:
            samples: float32, shape ``[n]``, 16 kHz; empty is judged as 8 s of silence.
        """
        features = log_mel_of_tail(finite(samples), HEARD_SAMPLES)
        # The output is called logits and has the sigmoid in it already.
        (output,) = self._session.run(None, {"input_features": features[None]})
        return float(output[0, 0])


def load_smart_turn(folder: Path, settings: EndOfTurnSettings) -> SmartTurn:
    """Load the artifact in ``folder`` and judge silence once, so that the first turn is not slow.

    Raises:
        ArtifactError: It is no Smart Turn artifact, or its file is missing, truncated, not ONNX
            or has other inputs.
        EngineError: A provider is required and cannot run it.
    """
    manifest = manifests.read(folder)
    if manifest.family != "smart-turn":
        raise ArtifactError(
            f"{folder} holds a {manifest.family!r} artifact; end_of_turn.model needs a "
            "'smart-turn' one"
        )
    path = Path(onnx_file(folder, manifest))
    wanted = Wanted(settings.providers, settings.provider_required)
    files = providers.files_of(folder, manifest, path)
    options = partial(_options, settings.threads)
    session, provider = providers.open_session(files, options, wanted)
    shapes = {i.name: list(i.shape[1:]) for i in session.get_inputs()}
    needed = {"input_features": [MEL_BANDS, HEARD_SAMPLES // HOP_SAMPLES]}
    if shapes != needed:
        raise ArtifactError(f"{path} is not Smart Turn v3: it takes {shapes}, {needed} is needed")
    model = SmartTurn(session, provider)
    model.probability(np.zeros(0, np.float32))
    return model


def _options(threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning would burn a core between judgements.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options
