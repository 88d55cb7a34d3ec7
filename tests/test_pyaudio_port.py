import os
import sys

import pytest
from pulse import PulseServer

import edgevoice.audio.pyaudio_port as port_module
from edgevoice.audio.portaudio import (
    choose_format,
    initialise,
    list_portaudio_devices,
    quiet_stderr,
)
from edgevoice.audio.ports import open_ports
from edgevoice.audio.pyaudio_port import PyAudioSink, PyAudioSource
from edgevoice.errors import AudioError, MissingDependencyError
from edgevoice.settings import AudioSettings
from edgevoice.stages import Sink, Source

pytestmark = pytest.mark.pulse


def test_devices_are_listed_and_found_by_part_of_their_name(pulse_server: PulseServer) -> None:
    devices = list_portaudio_devices()
    assert {("input", "pulse"), ("output", "pulse")} <= {(d.direction, d.name) for d in devices}
    assert sum(device.is_default for device in devices) == 2
    for port in (PyAudioSource("nowhere"), PyAudioSink("nowhere")):
        with pytest.raises(AudioError, match=r"named 'nowhere'; known: .*'pulse'"):
            port.start()
        port.stop()
    portaudio = initialise()
    found = choose_format(portaudio, "input", "PULS")
    portaudio.terminate()
    assert (found.name, found.rate_hz, found.channels) == ("pulse", 16_000, 1)


def test_auto_takes_pyaudio_where_it_has_both_devices(pulse_server: PulseServer) -> None:
    source, sink = open_ports(AudioSettings())
    assert isinstance(source, PyAudioSource) and isinstance(source, Source)
    assert isinstance(sink, PyAudioSink) and isinstance(sink, Sink)


def test_no_device_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_module, "initialise", NoDevices)
    with pytest.raises(AudioError, match="PortAudio sees no input device"):
        PyAudioSource().start()


class NoDevices:
    get_device_info_by_index = None

    def get_device_count(self) -> int:
        return 0

    def terminate(self) -> None:
        pass


def test_without_pyaudio_the_command_that_mends_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pyaudio", None)
    with pytest.raises(MissingDependencyError, match=r"portaudio19-dev.*edgevoice\[audio\]"):
        PyAudioSource().start()


def test_what_a_library_prints_is_silenced_and_ours_is_not(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with quiet_stderr():
        os.write(2, b"ALSA lib: noise\n")
    os.write(2, b"a message\n")
    assert capfd.readouterr().err == "a message\n"
