import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from pulse import PulseServer, Recorder, loud_ms, tone

import edgevoice.audio.pyaudio_port as port_module
from edgevoice.audio.portaudio import (
    StreamFormat,
    choose_format,
    initialise,
    list_portaudio_devices,
    quiet_stderr,
)
from edgevoice.audio.ports import open_ports
from edgevoice.audio.pyaudio_port import PyAudioSink, PyAudioSource
from edgevoice.config import AudioSettings
from edgevoice.errors import AudioError, MissingDependencyError
from edgevoice.stages import Sink, Source

pytestmark = pytest.mark.pulse


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PulseServer]:
    server = PulseServer(tmp_path)
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
    yield server
    server.kill()


@pytest.fixture(params=[(16_000, 1), (44_100, 2), (48_000, 1)], ids=str)
def native(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Pretend that the device takes nothing but this rate and these channels."""
    rate_hz, channels = request.param

    def only(portaudio: object, direction: str, wanted: str) -> StreamFormat:
        found = choose_format(portaudio, direction, wanted)  # type: ignore[arg-type]
        return StreamFormat(found.index, found.name, rate_hz, channels)

    monkeypatch.setattr(port_module, "choose_format", only)
    return rate_hz, channels


def error_within(seconds: float, act: Callable[[], object]) -> AudioError:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            act()
        except AudioError as error:
            return error
        time.sleep(0.01)
    raise AssertionError(f"no AudioError within {seconds} s")


def test_the_microphone_hears_the_room(server: PulseServer, native: tuple[int, int]) -> None:
    source = PyAudioSource("pulse")
    source.start()
    speaking = server.say(tone(0.5))
    frames = []
    deadline = time.monotonic() + 1.3
    while time.monotonic() < deadline:
        if frame := source.read(0.1):
            frames.append(frame)
            assert time.monotonic_ns() >= frame.captured_ns
    speaking.wait()
    source.stop()
    source.stop()
    heard = np.concatenate([frame.samples for frame in frames])
    assert loud_ms(heard) == pytest.approx(500, abs=30)
    spectrum = np.abs(np.fft.rfft(heard.astype(float)))
    assert np.argmax(spectrum) * 16_000 / len(heard) == pytest.approx(440, abs=4)
    with pytest.raises(EOFError):
        while source.read(0):
            pass


def test_the_speaker_plays_and_reports_what_it_played(
    server: PulseServer, native: tuple[int, int]
) -> None:
    sink = PyAudioSink("pulse")
    recorder = Recorder(server)
    sink.start()
    sink.write(tone(0.5))
    assert sink.pending_samples() > 7_000
    deadline = time.monotonic() + 5
    while sink.pending_samples() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sink.played_samples() == 8_000
    time.sleep(0.3)
    sink.stop()
    sink.stop()
    recorded = recorder.stop()
    assert loud_ms(recorded) == pytest.approx(500, abs=30)
    spectrum = np.abs(np.fft.rfft(recorded.astype(float)))
    assert np.argmax(spectrum) * 16_000 / len(recorded) == pytest.approx(440, abs=4)


def test_clear_silences_the_speaker_at_once(server: PulseServer) -> None:
    sink = PyAudioSink("pulse")
    recorder = Recorder(server)
    sink.start()
    sink.write(tone(5.0))
    while sink.played_samples() < 8_000:
        time.sleep(0.002)
    at_clear = sink.played_samples()
    dropped = sink.clear()
    time.sleep(0.6)
    sink.stop()
    said_ms = loud_ms(recorder.stop())
    assert sink.pending_samples() == 0
    assert sink.played_samples() + dropped == 80_000
    assert said_ms - at_clear / 16 < 500


def test_a_server_that_dies_is_one_error_and_no_hang(server: PulseServer) -> None:
    source, sink = PyAudioSource("pulse"), PyAudioSink("pulse")
    source.start()
    sink.start()
    sink.write(tone(5.0))
    server.kill()
    assert "is gone" in str(error_within(5, lambda: source.read(0.1)))
    with pytest.raises(EOFError):
        source.read(0.1)
    assert "is gone" in str(error_within(5, lambda: sink.write(tone(0.01))))
    assert sink.pending_samples() == 0
    began = time.monotonic()
    source.stop()
    sink.stop()
    assert time.monotonic() - began < 5


def test_devices_are_listed_and_found_by_part_of_their_name(server: PulseServer) -> None:
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


def test_auto_takes_pyaudio_where_it_has_both_devices(server: PulseServer) -> None:
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
