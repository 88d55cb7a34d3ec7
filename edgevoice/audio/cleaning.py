"""Which echo canceller a conversation gets, chosen from the settings and from what is there.

Nothing is cancelled twice: where the sound server's own canceller (PulseAudio's or PipeWire's
module-echo-cancel) is what we record from and play to, ours stays out. A WebSocket caller's
speaker is at the caller's end, where the delay of a network would have to be tracked, and a
recorded question has no echo in it: both get a canceller only when the settings name one.
"""

from __future__ import annotations

import logging
import re

from edgevoice.audio.echo import Aec3Canceller, Cleaner
from edgevoice.audio.portaudio import AudioDevice
from edgevoice.audio.pulse_client import list_pulse_devices
from edgevoice.errors import AudioError, EdgevoiceError, MissingDependencyError
from edgevoice.settings import AudioSettings
from edgevoice.stages import EchoCanceller

_CANCELS = re.compile(r"echo.?cancel", re.IGNORECASE)
_SERVER_NAMES = ("default", "pulse", "pipewire")
"""PortAudio's names for the sound server, as against a device of the hardware's own."""

log = logging.getLogger("edgevoice.audio")


def clean_microphone(settings: AudioSettings) -> EchoCanceller | None:
    """Return the canceller of a microphone beside its speaker, or None where none is wanted.

    Raises:
        AudioError: ``canceller = "system"``, and the sound server has none that we use.
        MissingDependencyError: The settings name what needs `pywebrtc-audio`, and it is missing.
    """
    match settings.canceller:
        case "aec3":
            return _aec3(settings)
        case "system":
            if not uses_system_canceller(settings):
                raise AudioError(
                    'audio.canceller = "system": the microphone or the speaker is not an '
                    "echo-cancelling one; `pactl load-module module-echo-cancel` and make its "
                    'source and sink the default, or set "auto"'
                )
            return _cleaner(settings)
        case "none":
            return _cleaner(settings)
    if uses_system_canceller(settings):
        log.info("the sound server cancels the echo")
        return _cleaner(settings)
    try:
        return _aec3(settings)
    except MissingDependencyError as error:
        log.warning("the agent may hear itself: %s", error)
        return None


def clean_caller(settings: AudioSettings) -> EchoCanceller | None:
    """Return the canceller of a caller whose speaker is elsewhere: only what the settings name.

    Raises:
        MissingDependencyError: That needs `pywebrtc-audio`, and it is missing.
    """
    return _aec3(settings) if settings.canceller == "aec3" else _cleaner(settings)


def uses_system_canceller(settings: AudioSettings) -> bool:
    """Whether both devices that the settings choose belong to the server's echo canceller.

    Only both: what is played past it is not cancelled by it.
    """
    try:
        devices = list_pulse_devices()
    except EdgevoiceError:
        return False  # No sound server.
    return all(
        _cancels(_chosen(devices, direction, wanted))
        for direction, wanted in (
            ("input", settings.input_device),
            ("output", settings.output_device),
        )
    )


def _chosen(devices: list[AudioDevice], direction: str, wanted: str) -> AudioDevice | None:
    there = [device for device in devices if device.direction == direction]
    if wanted and not any(wanted.lower() == name for name in _SERVER_NAMES):
        return next((d for d in there if wanted.lower() in d.name.lower()), None)
    return next((device for device in there if device.is_default), None)


def _cancels(device: AudioDevice | None) -> bool:
    if device is None or device.name.endswith(".monitor"):
        return False
    return bool(_CANCELS.search(device.name) or _CANCELS.search(device.driver))


def _aec3(settings: AudioSettings) -> Aec3Canceller:
    return Aec3Canceller(
        noise_suppression=settings.noise_suppression, gain_control=settings.gain_control
    )


def _cleaner(settings: AudioSettings) -> Cleaner | None:
    if not (settings.noise_suppression or settings.gain_control):
        return None
    return Cleaner(noise_suppression=settings.noise_suppression, gain_control=settings.gain_control)
