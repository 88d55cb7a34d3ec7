"""Which microphone and speaker a conversation uses, chosen from the settings.

Leaves how each port works to its own module.
"""

from __future__ import annotations

from collections.abc import Callable

from edgevoice.audio.portaudio import AudioDevice, list_portaudio_devices
from edgevoice.audio.pulse_client import list_pulse_devices
from edgevoice.audio.pulse_port import PulseSink, PulseSource
from edgevoice.audio.pyaudio_port import PyAudioSink, PyAudioSource
from edgevoice.errors import AudioError, EdgevoiceError, MissingDependencyError
from edgevoice.settings import AudioSettings
from edgevoice.stages import Sink, Source

_LISTERS: dict[str, Callable[[], list[AudioDevice]]] = {
    "pyaudio": list_portaudio_devices,
    "pulse": list_pulse_devices,
}


def open_ports(settings: AudioSettings) -> tuple[Source, Sink]:
    """Return a microphone and a speaker, not started yet.

    With ``port = "auto"`` the first of PyAudio and PulseAudio that has both devices.

    Raises:
        MissingDependencyError: The named port's library or program is not installed.
        AudioError: No port has such devices; the message says what was tried.
    """
    if settings.port != "auto":
        _check(settings.port, settings)
        return _make(settings.port, settings)
    tried = []
    for port in _LISTERS:
        try:
            _check(port, settings)
        except (AudioError, MissingDependencyError) as error:
            tried.append(f"{port}: {error}")
        else:
            return _make(port, settings)
    raise AudioError(f"no microphone and speaker; tried {'; '.join(tried)}")


def list_devices() -> tuple[list[AudioDevice], dict[str, EdgevoiceError]]:
    """Return the devices of every port that works, and why each other port does not."""
    devices: list[AudioDevice] = []
    failures: dict[str, EdgevoiceError] = {}
    for port, lister in _LISTERS.items():
        try:
            devices += lister()
        except EdgevoiceError as error:
            failures[port] = error
    return devices, failures


def _check(port: str, settings: AudioSettings) -> None:
    devices = _LISTERS[port]()
    for direction, wanted in (
        ("input", settings.input_device),
        ("output", settings.output_device),
    ):
        names = [device.name for device in devices if device.direction == direction]
        if not any(wanted.lower() in name.lower() for name in names):
            known = ", ".join(map(repr, names)) or "none"
            what = f"{direction} device" + (f" named {wanted!r}" if wanted else "")
            raise AudioError(f"no {what}; known: {known}")
    if not settings.input_device:
        _refuse_own_speaker()


def _refuse_own_speaker() -> None:
    """Refuse to listen to the sound server's own speaker, which it offers as a source.

    On a machine without a microphone that is all there is, and the agent would hear itself.
    A source that the settings name is taken as it is.
    """
    try:
        defaults = {d.direction: d.name for d in list_pulse_devices() if d.is_default}
    except EdgevoiceError:
        return  # No sound server: PortAudio's devices are the hardware's own.
    microphone, speaker = defaults.get("input"), defaults.get("output")
    if microphone == f"{speaker}.monitor":
        raise AudioError(
            f"no microphone: the sound server's default source is {microphone!r}, what its own "
            "speaker plays; plug one in, or name a source in audio.input_device"
        )


def _make(port: str, settings: AudioSettings) -> tuple[Source, Sink]:
    if port == "pyaudio":
        return (
            PyAudioSource(settings.input_device, settings.queue_ms),
            PyAudioSink(settings.output_device),
        )
    return (
        PulseSource(settings.input_device, settings.queue_ms),
        PulseSink(settings.output_device),
    )
