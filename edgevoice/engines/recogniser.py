"""Chooses the engine of a recogniser or end-of-turn artifact by its family."""

from __future__ import annotations

from pathlib import Path

from edgevoice import manifest as manifests
from edgevoice.engines.probe import ensure_loadable
from edgevoice.errors import ArtifactError, unknown
from edgevoice.settings import EndOfTurnSettings, RecogniserSettings
from edgevoice.stages import EndOfTurn, RecogniserModel

_SETTINGS = RecogniserSettings()
_END_OF_TURN = EndOfTurnSettings()


def load_recogniser(folder: Path, settings: RecogniserSettings) -> RecogniserModel:
    """Load the recogniser artifact in ``folder``, warmed up; the very first time in a child first.

    Raises:
        ArtifactError: It is no recogniser, or its files cannot be used.
        ConfigError: A setting does not fit this family.
    """
    ensure_loadable(folder, f"{__name__}:load_unguarded")
    return load_unguarded(folder, settings)


def load_unguarded(folder: Path, settings: RecogniserSettings = _SETTINGS) -> RecogniserModel:
    """Load as :func:`load_recogniser` in this process, which native code may end."""
    from edgevoice.engines.sherpa_offline_packs import OFFLINE_FAMILIES, load_offline
    from edgevoice.engines.sherpa_online_packs import ONLINE_FAMILIES, load_online

    manifest = manifests.read(folder)
    if manifest.family in ONLINE_FAMILIES:
        return load_online(folder, manifest, settings)
    if manifest.family in OFFLINE_FAMILIES:
        return load_offline(folder, manifest, settings)
    known = (*ONLINE_FAMILIES, *OFFLINE_FAMILIES)
    raise ArtifactError(f"{folder}: {unknown('recogniser family', manifest.family, known)}")


def load_end_of_turn(folder: Path, settings: EndOfTurnSettings) -> EndOfTurn:
    """Load the end-of-turn artifact in ``folder``, warmed up; the first time in a child first.

    Raises:
        ArtifactError: It is no end-of-turn model, or its file cannot be used.
    """
    ensure_loadable(folder, f"{__name__}:load_end_of_turn_unguarded")
    return load_end_of_turn_unguarded(folder, settings)


def load_end_of_turn_unguarded(
    folder: Path, settings: EndOfTurnSettings = _END_OF_TURN
) -> EndOfTurn:
    """Load as :func:`load_end_of_turn` in this process, which native code may end."""
    from edgevoice.engines.smart_turn import load_smart_turn

    return load_smart_turn(folder, settings)
