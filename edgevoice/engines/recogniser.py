"""Chooses the engine of a recogniser or end-of-turn artifact by its family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from edgevoice import manifest as manifests
from edgevoice.engines import sherpa_provider, whisper_npu
from edgevoice.engines.probe import ensure_loadable
from edgevoice.engines.providers import Ran, Wanted
from edgevoice.engines.two_passes import TwoPassModel
from edgevoice.errors import ArtifactError, unknown
from edgevoice.manifest import Manifest
from edgevoice.settings import EndOfTurnSettings, RecogniserSettings
from edgevoice.stages import EndOfTurn, RecogniserModel

_CPU = Ran()
_SETTINGS = RecogniserSettings()
_END_OF_TURN = EndOfTurnSettings()


def load_recogniser(folder: Path, settings: RecogniserSettings) -> RecogniserModel:
    """Load the recogniser artifact in ``folder``, warmed up; the very first time in a child first.

    Raises:
        ArtifactError: It is no recogniser, or its files cannot be used.
        ConfigError: A setting does not fit this family.
        EngineError: A provider is required and cannot run it.
    """
    loader = f"{__name__}:load_unguarded"
    ensure_loadable(folder, loader)
    wanted = Wanted(settings.providers, settings.provider_required)
    manifest = manifests.read(folder)
    before: tuple[str, ...] = ()
    if whisper_npu.is_for(manifest, wanted):
        found, ran = whisper_npu.load(folder, manifest, settings.threads, wanted)
        if found is not None:
            return _on_npu(found, ran, manifest, settings)
        before = ran.passed_over
        wanted = replace(wanted, order=tuple(n for n in wanted.order if n != whisper_npu.NPU))
    ran = sherpa_provider.choose(folder, f"{__name__}:load_on", wanted, before)
    return load_unguarded(folder, settings, ran)


def load_passes(
    folders: Mapping[str, Path], settings: RecogniserSettings, *, patient: bool = False
) -> RecogniserModel:
    """Load what listens: the recogniser in ``folders["recogniser"]``, or two passes as one.

    Args:
        folders: By the stages of :meth:`edgevoice.settings.RecogniserSettings.heard_with`.
        settings: Hotwords are the first pass's, providers and threads the second's.
        patient: Wait for the second pass as long as it takes: nobody is waiting for an answer.

    Raises:
        ArtifactError, ConfigError, EngineError: As :func:`load_recogniser`.
    """
    if "first-pass" not in folders:
        return load_recogniser(folders["recogniser"], settings)
    first = load_recogniser(folders["first-pass"], of_first_pass(settings))
    second = load_recogniser(folders["recogniser"], of_second_pass(settings))
    return TwoPassModel(first, second, None if patient else settings.second_pass_wait_ms)


def of_first_pass(settings: RecogniserSettings) -> RecogniserSettings:
    """Return ``settings`` for the first of two passes: a core is far more than enough for it."""
    return replace(settings, threads=1, providers=("cpu",), provider_required=False)


def of_second_pass(settings: RecogniserSettings) -> RecogniserSettings:
    """Return ``settings`` for the second of two passes: it is asked before the end now and then."""
    return replace(settings, partial_interval_ms=settings.rewrite_interval_ms, hotwords="")


def load_unguarded(
    folder: Path, settings: RecogniserSettings = _SETTINGS, provider: Ran = _CPU
) -> RecogniserModel:
    """Load on ``provider``, in this process, which native code may end.

    Raises:
        ArtifactError: As :func:`load_recogniser`.
        ConfigError: Hotwords, which only online-transducer packs take.
    """
    from edgevoice.engines import whisper_drafted
    from edgevoice.engines.sherpa_offline_packs import OFFLINE_FAMILIES, load_offline
    from edgevoice.engines.sherpa_online_packs import (
        ONLINE_FAMILIES,
        load_online,
        refuse_hotwords,
    )

    manifest = manifests.read(folder)
    if manifest.family in ONLINE_FAMILIES:
        return load_online(folder, manifest, settings, provider)
    if manifest.family in OFFLINE_FAMILIES:
        refuse_hotwords(manifest, settings)
        if whisper_drafted.is_for(manifest) and provider.name == _CPU.name:
            return whisper_drafted.load(folder, manifest, settings, provider)
        return load_offline(folder, manifest, settings, provider)
    known = (*ONLINE_FAMILIES, *OFFLINE_FAMILIES)
    raise ArtifactError(f"{folder}: {unknown('recogniser family', manifest.family, known)}")


def load_on(folder: Path, provider: str) -> None:
    """Load in sherpa-onnx on the provider of that name, in this process."""
    load_unguarded(folder, provider=Ran(provider))


def _on_npu(
    found: whisper_npu.NpuWhisper, ran: Ran, manifest: Manifest, settings: RecogniserSettings
) -> RecogniserModel:
    from edgevoice.engines.segmented_recogniser import OfflineRecogniserModel

    return OfflineRecogniserModel(found, settings, whisper_npu.longest_ms(manifest), ran)


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
