"""What a conversation needs and whether it is there: packages, models, engines, sound, room.

Owns the checks and the command that mends each. Opens no connection but to this machine's own
sound server.
"""

from __future__ import annotations

import importlib
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from edgevoice import host, runfile
from edgevoice.devices.detect import detect, suggest
from edgevoice.devices.profile import load_profiles
from edgevoice.devices.root import Root
from edgevoice.errors import ArtifactError, EdgevoiceError, MissingDependencyError
from edgevoice.settings import Settings
from edgevoice.store import Store

Status = Literal["ok", "missing", "broken", "note"]

_NEEDED_MB = 600
"""Memory that the default bundle's conversation may take."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        area: ``python``, ``package``, ``model``, ``engine``, ``sound``, ``daemon``, ``machine``.
        name: What was looked at.
        status: ``note`` is a fact with no right or wrong.
        detail: What was found, one line.
        mend: The command that mends it, "" where nothing has to be mended.
        needed: No conversation by microphone without it.
    """

    area: str
    name: str
    status: Status
    detail: str
    mend: str = ""
    needed: bool = True


@dataclass(frozen=True, slots=True)
class _Package:
    distribution: str
    module: str
    mend: str = "pip install --force-reinstall edgevoice"
    needed: bool = True


_PACKAGES = (
    _Package("numpy", "numpy"),
    _Package("sherpa-onnx", "sherpa_onnx"),
    _Package("onnxruntime", "onnxruntime"),
    _Package("llama-cpp-python", "llama_cpp"),
    _Package("soxr", "soxr"),
    _Package("websockets", "websockets"),
    _Package(
        "PyAudio",
        "pyaudio",
        "apt install portaudio19-dev && pip install 'edgevoice[audio]'",
        needed=False,
    ),
    _Package("onnx", "onnx", "pip install 'edgevoice[convert]'", needed=False),
)


def talking_works(checks: list[Check]) -> bool:
    """Return whether nothing that a conversation needs is missing or broken."""
    return not any(c.needed and c.status in ("missing", "broken") for c in checks)


def examine(settings: Settings, store: Store, *, quick: bool = False) -> Iterator[Check]:
    """Yield each check as it is done. ``quick`` leaves out loading the engines."""
    yield _python()
    yield from map(_package, _PACKAGES)
    yield _phonemiser()
    stages = _stages(settings, store)
    for stage in stages:
        check = _model(stage, store)
        yield check
        if check.status == "ok" and not quick:
            yield _engine(stage)
    if settings.language_model.endpoint:
        yield Check(
            "model",
            "language-model",
            "note",
            f"answers come from {settings.language_model.endpoint} (not asked)",
        )
    yield from _sound(settings)
    yield _daemon()
    yield from _machine(store)
    yield _passes(settings)
    yield _load(settings)


def _python() -> Check:
    return Check("python", "Python", "ok", f"{platform.python_version()} in {sys.prefix}")


def _package(package: _Package) -> Check:
    version = host.version(package.distribution)
    try:
        importlib.import_module(package.module)
    except Exception as error:
        # Broken native libraries raise what they like: OSError, RuntimeError, AttributeError.
        status: Status = "broken" if version else "missing"
        detail = f"{version} cannot be imported: {error}" if version else "not installed"
        return Check("package", package.distribution, status, detail, package.mend, package.needed)
    return Check("package", package.distribution, "ok", version, needed=package.needed)


def _phonemiser() -> Check:
    from edgevoice.engines import phonemes

    try:
        return Check("package", "espeak-ng", "ok", phonemes.check())
    except EdgevoiceError as error:
        mend = "apt install espeak-ng (or pip install 'edgevoice[espeak]')"
        return Check("package", "espeak-ng", "missing", str(error), mend)


@dataclass(frozen=True, slots=True)
class _Stage:
    name: str
    model: str
    load: Callable[[Path], object]
    folder: Path | None


def _stages(settings: Settings, store: Store) -> list[_Stage]:
    from edgevoice.engines.language_model import load_language_model
    from edgevoice.engines.recogniser import load_end_of_turn, load_recogniser, of_first_pass
    from edgevoice.engines.silero_vad import load_vad
    from edgevoice.engines.speech import load_speech

    loaders: dict[str, Callable[[Path], object]] = {
        "vad": partial(load_vad, settings=settings.vad),
        "first-pass": partial(load_recogniser, settings=of_first_pass(settings.recogniser)),
        "recogniser": partial(load_recogniser, settings=settings.recogniser),
        "end-of-turn": partial(load_end_of_turn, settings=settings.end_of_turn),
        "language-model": partial(load_language_model, settings=settings.language_model),
        "speech": partial(load_speech, settings=settings.speech),
    }
    ordinary = [
        _Stage(stage, model, loaders[stage], _folder(store, model))
        for stage, model in settings.artifacts().items()
    ]
    under_load = [
        _Stage(f"{stage}*", model, loaders[stage], _folder(store, model))
        for stage, model in settings.cheaper().items()
        if model not in settings.artifacts().values()
    ]
    return [*ordinary, *under_load]


def _folder(store: Store, model: str) -> Path | None:
    try:
        return store.path(model)
    except ArtifactError:
        return None


def _model(stage: _Stage, store: Store) -> Check:
    pull = f"edgevoice models pull {stage.model}"
    if stage.folder is None:
        detail = f"{stage.model} is not in {store.root}"
        return Check("model", stage.name, "missing", detail, pull)
    try:
        described = store.manifest(stage.model)
    except ArtifactError as error:
        return Check("model", stage.name, "broken", str(error), f"{pull} --force")
    for file in described.files:
        path = stage.folder / file.path
        size = path.stat().st_size if path.is_file() else 0
        if size != file.size:
            detail = f"{path} has {size} bytes, {file.size} expected"
            return Check("model", stage.name, "broken", detail, f"{pull} --force")
    megabytes = sum(file.size for file in described.files) / 1e6
    return Check(
        "model", stage.name, "ok", f"{described.name}, {described.scheme}, {megabytes:.0f} MB"
    )


def _engine(stage: _Stage) -> Check:
    from edgevoice.engines import providers

    assert stage.folder is not None
    try:
        engine = stage.load(stage.folder)
    except Exception as error:
        # Whatever a native library raises belongs in the list and must not end it.
        mend = f"edgevoice models pull {stage.model} --force"
        return Check("engine", stage.name, "broken", str(error), mend)
    close = getattr(engine, "close", None)
    if close is not None:
        close()
    detail = f"{type(engine).__name__} loads {stage.model}"
    if ran := providers.of(engine):
        detail = "; ".join((f"{detail} on {ran}", *ran.passed_over))
    return Check("engine", stage.name, "ok", detail)


def _sound(settings: Settings) -> Iterator[Check]:
    from edgevoice.audio.ports import list_devices, open_ports

    devices, failures = list_devices()
    for port, failure in failures.items():
        mend = "apt install portaudio19-dev && pip install 'edgevoice[audio]'"
        if port == "pulse":
            mend = (
                "apt install pulseaudio pulseaudio-utils libasound2-plugins && pulseaudio --start"
            )
        yield Check("sound", port, "missing", str(failure), mend, needed=False)
    for port in dict.fromkeys(device.port for device in devices):
        for direction in ("input", "output"):
            names = [
                f"{device.name}{' (default)' if device.is_default else ''}"
                for device in devices
                if device.port == port and device.direction == direction
            ]
            yield Check(
                "sound", f"{port} {direction}", "note", ", ".join(names) or "none", needed=False
            )
    try:
        source, sink = open_ports(settings.audio)
    except EdgevoiceError as error:
        mend = "plug in a microphone and a speaker, or use edgevoice talk --wav question.wav"
        yield Check("sound", "microphone", "missing", str(error), mend)
    else:
        detail = f"{type(source).__name__} and {type(sink).__name__} would be used"
        yield Check("sound", "microphone", "ok", detail)
    yield _canceller(settings)


def _canceller(settings: Settings) -> Check:
    from edgevoice.audio.cleaning import clean_microphone, uses_system_canceller
    from edgevoice.audio.echo import load_processor

    name, wanted = "echo canceller", settings.audio.canceller
    if wanted == "none":
        detail = 'audio.canceller = "none": a headset is needed'
        return Check("sound", name, "note", detail, needed=False)
    if wanted != "aec3" and uses_system_canceller(settings.audio):
        return Check("sound", name, "ok", "the sound server's own would be used", needed=False)
    try:
        if wanted == "system":
            clean_microphone(settings.audio)
        load_processor(echo=True, noise_suppression=False, gain_control=False)
    except MissingDependencyError as error:
        mend = "pip install pywebrtc-audio==0.2.0"
        return Check("sound", name, "missing", str(error), mend, needed=wanted == "aec3")
    except EdgevoiceError as error:
        return Check("sound", name, "missing", str(error), "pactl load-module module-echo-cancel")
    detail = f"AEC3 would be used (pywebrtc-audio {host.version('pywebrtc-audio')})"
    return Check("sound", name, "ok", detail, needed=False)


def _daemon() -> Check:
    addresses = [f"{d.host}:{d.port} (process {d.pid})" for d in runfile.running()]
    return Check(
        "daemon",
        "daemon",
        "note",
        f"runs on {', '.join(addresses)}" if addresses else "not running",
    )


def _passes(settings: Settings) -> Check:
    listen = settings.recogniser.heard_with()
    if "first-pass" in listen:
        detail = (
            f"{listen['first-pass']} hears along, {listen['recogniser']} writes what is answered"
        )
    else:
        detail = f"{listen['recogniser']} listens alone (recogniser.passes, recogniser.first_pass)"
    return Check("machine", "recognition", "note", detail)


def _load(settings: Settings) -> Check:
    from edgevoice.load_governor import read_condition
    from edgevoice.load_policy import rules

    load = rules(settings)
    if not load.steps:
        return Check("machine", "load", "note", "nothing is left out under load (load.enabled)")
    reading = read_condition(Root())
    tells = "tells neither throttling nor temperature"
    if reading is not None:
        celsius = reading.temperature_c
        tells = "throttles now" if reading.throttled else "does not throttle"
        tells += "" if celsius is None else f", {celsius:.0f} °C"
    steps = f"{', '.join(load.steps)} may be left out"
    budget = f"first sound within {load.response_budget_ms:g} ms"
    return Check("machine", "load", "note", f"{steps}; {budget}; the device {tells}")


def _machine(store: Store) -> Iterator[Check]:
    total_mb, available_mb = host.memory_mb()
    memory = f"{available_mb} of {total_mb} MiB free"
    if 0 < available_mb < _NEEDED_MB:
        short = f"{memory}; the default bundle takes up to {_NEEDED_MB}"
        yield Check("machine", "memory", "note", short)
    else:
        yield Check("machine", "memory", "note", memory)
    where = next(folder for folder in (store.root, *store.root.parents) if folder.exists())
    free_mb = shutil.disk_usage(where).free // (1 << 20)
    yield Check("machine", "disk", "note", f"{free_mb} MiB free at {where}")
    yield Check("machine", "processor", "note", f"{host.cpu_name()}, {host.cores()} cores")
    suggestion = suggest(detect(), load_profiles()[0])
    name = suggestion.profile.name if suggestion.profile is not None else "no profile suits"
    yield Check("machine", "device", "note", f"{name}: {'; '.join(suggestion.reasons)}")
