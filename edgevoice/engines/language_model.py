"""Chooses the engine that answers: a GGUF or an ONNX graph on this device, or a server that the
user configured.
"""

from __future__ import annotations

from pathlib import Path

from edgevoice import manifest
from edgevoice.engines import probe
from edgevoice.errors import ConfigError
from edgevoice.settings import LanguageModelSettings
from edgevoice.stages import LanguageModelModel

GGUF_LOADER = "edgevoice.engines.gguf:probe_load"
ONNX_LOADER = "edgevoice.engines.onnx_llm:probe_load"


def load_language_model(
    artifact: Path | None, settings: LanguageModelSettings
) -> LanguageModelModel:
    """Load what ``settings`` name.

    Args:
        artifact: The artifact's folder (or a ``.gguf`` file); not needed with an endpoint.
        settings: ``endpoint`` set means a server, and then no local weights are touched.

    Raises:
        ArtifactError: The artifact cannot be loaded.
        ConfigError: The endpoint cannot be used as written, or there is neither.
    """
    if settings.endpoint:
        from edgevoice.engines.openai_client import OpenAiModel

        return OpenAiModel(settings)
    if artifact is None:
        raise ConfigError("no language model: name one in language_model.model, or an endpoint")
    if artifact.is_dir() and manifest.read(artifact).family == "onnx-llm":
        from edgevoice.engines import onnx_llm

        probe.ensure_loadable(artifact, ONNX_LOADER)
        return onnx_llm.load(artifact, settings)
    probe.ensure_loadable(artifact, GGUF_LOADER)
    from edgevoice.engines import gguf

    return gguf.load(artifact, settings)
