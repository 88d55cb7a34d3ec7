"""Chooses the engine of a voice: by what its manifest says and by what was measured."""

from __future__ import annotations

import wave
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgevoice import host, manifest
from edgevoice.engines import providers, sherpa_provider
from edgevoice.engines.probe import ensure_loadable
from edgevoice.engines.providers import Ran, Wanted
from edgevoice.errors import ArtifactError, ConfigError, unknown
from edgevoice.frames import Float32, to_float32
from edgevoice.settings import SpeechSettings
from edgevoice.stages import Speech

ONNX_FAMILIES = ("piper", "kokoro")
RUNNERS = ("onnx", "sherpa")

_CPU = Ran()
_SETTINGS = SpeechSettings()


def load_speech(folder: Path, settings: SpeechSettings) -> Speech:
    """Load the voice in ``folder`` with the engine that ``settings`` asks for.

    The very first time, that engine loads it in a child process first. ``auto`` is the engine of
    the manifest's ``runner``, which the exporter measured; where it says nothing, onnxruntime
    itself for Piper and Kokoro (benchmarks/speech_engines.py shows it faster than sherpa-onnx, in
    int8 by far) and sherpa-onnx for every other family.

    Raises:
        ArtifactError: The voice is incomplete, truncated, or of an unknown family.
        ConfigError: The engine cannot run this family, or the voice has no such speaker.
        EngineError: A provider is required and cannot run it.
        MissingDependencyError: espeak-ng is needed and not installed.
    """
    # A setting that cannot be is no fault of the artifact's, so it is not found in the child.
    runner = runner_of(_described(folder), settings.engine)
    ensure_loadable(folder, f"{__name__}:load_{runner}")
    if runner == "onnx":
        return load_unguarded(folder, settings)
    wanted = Wanted(settings.providers, settings.provider_required)
    ran = sherpa_provider.choose(folder, f"{__name__}:load_sherpa", wanted)
    return load_unguarded(folder, settings, provider=ran)


def load_onnx(folder: Path) -> Speech:
    """Load on onnxruntime itself, with settings that every voice takes."""
    return load_unguarded(folder, SpeechSettings(engine="onnx"))


def load_sherpa(folder: Path, provider: str = "cpu") -> Speech:
    """Load in sherpa-onnx, on that provider of its own, with settings that every voice takes."""
    return load_unguarded(folder, SpeechSettings(engine="sherpa"), provider=Ran(provider))


def runner_of(described: manifest.Manifest, engine: str = "auto") -> str:
    """Return ``onnx`` or ``sherpa``: what runs this voice when the setting is ``engine``.

    Raises:
        ArtifactError: The manifest names another runner.
        ConfigError: The setting asks for onnxruntime and the family is none that it runs.
    """
    family = described.family
    if engine == "auto":
        engine = str(
            described.engine.get("runner", "onnx" if family in ONNX_FAMILIES else "sherpa")
        )
        if engine not in RUNNERS:
            raise ArtifactError(f"{described.name!r}: {unknown('runner', engine, RUNNERS)}")
    if engine == "onnx" and family not in ONNX_FAMILIES:
        raise ConfigError(
            f"[speech] engine = 'onnx' cannot run {described.name!r}: "
            f"{unknown('family', family, ONNX_FAMILIES)}; use engine = 'auto'"
        )
    return engine


def load_unguarded(
    folder: Path,
    settings: SpeechSettings = _SETTINGS,
    noise: float = 1.0,
    provider: Ran = _CPU,
) -> Speech:
    """Load as :func:`load_speech` in this process, which native code may end.

    ``noise`` is times the voice's own, for Piper and VITS; ``provider`` is sherpa-onnx's.
    """
    described = _described(folder)
    if runner_of(described, settings.engine) == "sherpa":
        return _load_sherpa(folder, described, settings, noise, provider)
    threads = host.threads(settings.threads)
    wanted = Wanted(settings.providers, settings.provider_required)
    if described.family == "piper":
        from edgevoice.engines import piper

        return piper.load(
            folder,
            threads=threads,
            speaker=settings.speaker,
            speed=settings.speed,
            noise=noise,
            engine=described.engine,
            wanted=wanted,
            first_ms=settings.first_chunk_ms,
            files=partial(providers.files_of, folder, described),
        )
    from edgevoice.engines import kokoro

    return kokoro.load(
        folder, threads=threads, speaker=settings.speaker, speed=settings.speed, wanted=wanted
    )


def _described(folder: Path) -> manifest.Manifest:
    described = manifest.read(folder)
    if described.stage != "speech":
        raise ArtifactError(
            f"{described.name!r} is a {described.stage} artifact; [speech] model needs a voice"
        )
    return described


def _load_sherpa(
    folder: Path,
    described: manifest.Manifest,
    settings: SpeechSettings,
    noise: float,
    provider: Ran,
) -> Speech:
    from edgevoice.engines import sherpa_speech

    known: dict[str, Any] = dict(described.engine)
    espeak_voice = str(known.get("espeak_voice", ""))
    if described.family == "piper" and not espeak_voice:
        from edgevoice.engines import piper

        espeak_voice = piper.read_config(piper.find_files(folder)[1]).espeak_voice
    reference = None
    if described.family in sherpa_speech.CLONING:
        reference = _reference(folder, described)
    return sherpa_speech.SherpaSpeech(
        sherpa_speech.configure(
            folder,
            described.family,
            host.threads(settings.threads),
            noise=(
                noise * float(known.get("noise_scale", 0.667)),
                noise * float(known.get("noise_scale_w", 0.8)),
            ),
            provider=provider.name,
        ),
        espeak_voice=espeak_voice,
        language=str(known.get("language", "en")),
        characters=str(known.get("characters", "")),
        speaker=settings.speaker,
        speed=settings.speed / float(known.get("length_scale", 1.0)),
        reference=reference,
        provider=provider,
    )


def _reference(folder: Path, described: manifest.Manifest) -> tuple[Float32, int, str]:
    name = described.engine.get("reference_audio")
    if not name or not (folder / str(name)).is_file():
        raise ArtifactError(
            f"{described.name!r} speaks like a recording and its manifest names none; "
            "set reference_audio (a WAV in its folder) and reference_text under engine"
        )
    try:
        with wave.open(str(folder / str(name)), "rb") as file:
            if (file.getnchannels(), file.getsampwidth()) != (1, 2):
                raise wave.Error("mono, 16 bits are needed")
            rate_hz = file.getframerate()
            samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
    except (wave.Error, EOFError) as error:
        raise ArtifactError(f"{folder / str(name)}: not a usable recording: {error}") from error
    words = str(described.engine.get("reference_text", ""))
    return to_float32(samples.astype(np.int16)), rate_hz, words
