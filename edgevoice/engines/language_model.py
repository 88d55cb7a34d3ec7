"""Chooses the engine that answers: a GGUF or an ONNX graph on this device, or a server that the
user configured.
"""

from __future__ import annotations

from pathlib import Path

from edgevoice import manifest
from edgevoice.engines import probe
from edgevoice.errors import ConfigError
from edgevoice.settings import LanguageModelSettings
from edgevoice.stages import LanguageModelModel, Message

LOADER = "edgevoice.engines.language_model:probe_load"


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
    probe.ensure_loadable(artifact, LOADER)
    return _load(artifact, settings)


def probe_load(artifact: Path) -> None:
    """Load ``artifact``, read and answer a word; for :mod:`edgevoice.engines.probe`."""
    model = _load(artifact, LanguageModelSettings(context_tokens=256, max_answer_tokens=2))
    conversation = model.open()
    list(conversation.generate([Message("user", "Hello.")]))
    conversation.close()
    model.close()


def _load(artifact: Path, settings: LanguageModelSettings) -> LanguageModelModel:
    if artifact.is_dir() and manifest.read(artifact).family == "onnx-llm":
        from edgevoice.engines import onnx_llm

        return onnx_llm.load(artifact, settings)
    from edgevoice.engines import gguf

    return gguf.load(artifact, settings)
