import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from pulse import MICROPHONE, SPEAKER, PulseServer, Recorder, loud_ms, tone

from edgevoice.audio.ports import list_devices, open_ports
from edgevoice.audio.pulse_client import list_pulse_devices
from edgevoice.audio.pulse_port import PulseSink, PulseSource
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


def capture(source: Source, seconds: float) -> np.ndarray:
    frames = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if frame := source.read(0.1):
            frames.append(frame)
    assert [f.seq for f in frames] == list(range(frames[0].seq, frames[0].seq + len(frames)))
    return np.concatenate([f.samples for f in frames])


def error_within(seconds: float, act: Callable[[], object]) -> AudioError:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            act()
        except AudioError as error:
            return error
        time.sleep(0.01)
    raise AssertionError(f"no AudioError within {seconds} s")


def test_the_microphone_hears_the_room(server: PulseServer) -> None:
    source = PulseSource()
    source.start()
    speaking = server.say(tone(0.5))
    heard = capture(source, 1.5)
    speaking.wait()
    source.stop()
    source.stop()
    assert loud_ms(heard) == pytest.approx(500, abs=30)
    spectrum = np.abs(np.fft.rfft(heard.astype(float)))
    assert np.argmax(spectrum) * 16_000 / len(heard) == pytest.approx(440, abs=4)
    assert len(heard) / 16_000 == pytest.approx(1.5, abs=0.3)
    with pytest.raises(EOFError):
        while source.read(0):
            pass


def test_frames_are_stamped_with_the_time_they_were_heard(server: PulseServer) -> None:
    source = PulseSource("room")
    source.start()
    for _ in range(30):
        frame = source.read(1.0)
    assert frame is not None
    assert 0 <= time.monotonic_ns() - frame.captured_ns < 500_000_000
    source.stop()


def test_the_speaker_plays_and_reports_what_it_played(server: PulseServer) -> None:
    sink = PulseSink()
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
    assert loud_ms(recorder.stop()) == pytest.approx(500, abs=5)


def test_clear_silences_the_speaker_at_once(server: PulseServer) -> None:
    sink = PulseSink(SPEAKER)
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
    assert sink.played_samples() / 16 == pytest.approx(said_ms, abs=10)


def test_a_server_that_dies_is_one_error_and_no_hang(server: PulseServer) -> None:
    source, sink = PulseSource(), PulseSink()
    source.start()
    sink.start()
    sink.write(tone(5.0))
    server.kill()
    assert "parec has ended" in str(error_within(5, lambda: source.read(0.1)))
    with pytest.raises(EOFError):
        source.read(0.1)
    assert "pacat has ended" in str(error_within(5, lambda: sink.write(tone(0.01))))
    assert sink.pending_samples() == 0
    source.stop()
    sink.stop()


def test_a_server_that_hangs_is_one_error_and_no_hang(server: PulseServer) -> None:
    source, sink = PulseSource(), PulseSink()
    source.start()
    sink.start()
    server.freeze()
    assert "has stopped" in str(error_within(8, lambda: source.read(0.1)))
    assert "has stopped" in str(error_within(8, lambda: sink.write(tone(0.01))))
    began = time.monotonic()
    source.stop()
    sink.stop()
    assert time.monotonic() - began < 5


def test_devices_are_listed_and_found_by_part_of_their_name(server: PulseServer) -> None:
    devices = {(d.direction, d.name): d.is_default for d in list_pulse_devices()}
    assert devices[("input", MICROPHONE)] and devices[("output", SPEAKER)]
    assert not devices[("output", "room")]
    for port in (PulseSource("nowhere"), PulseSink("nowhere")):
        with pytest.raises(AudioError, match=r"named 'nowhere'; known: .*room"):
            port.start()


def test_without_a_server_both_say_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PULSE_SERVER", f"unix:{tmp_path}/none")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    for port in (PulseSource(), PulseSink()):
        with pytest.raises(AudioError, match=r"has ended .*onnection") as raised:
            port.start()
        assert "\n" not in str(raised.value)
    with pytest.raises(AudioError, match="no PulseAudio server answers"):
        list_pulse_devices()
    monkeypatch.setitem(sys.modules, "pyaudio", None)  # it may see a real sound card
    with pytest.raises(AudioError, match=r"tried pyaudio: .*; pulse: no PulseAudio server"):
        open_ports(AudioSettings())
    devices, failures = list_devices()
    assert not devices
    assert set(failures) == {"pyaudio", "pulse"}


def test_a_missing_program_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(MissingDependencyError, match=r"parec .*pulseaudio-utils"):
        PulseSource().start()


@pytest.mark.parametrize("port", ["auto", "pulse", "pyaudio"])
def test_what_the_speaker_plays_is_no_microphone(server: PulseServer, port: str) -> None:
    server.pactl("set-default-source", "speaker.monitor")
    with pytest.raises(AudioError, match=r"no microphone: .* 'speaker\.monitor'"):
        open_ports(AudioSettings(port=port))
    open_ports(AudioSettings(port="pulse", input_device="speaker.monitor"))


def test_the_settings_choose_the_port(server: PulseServer) -> None:
    source, sink = open_ports(AudioSettings(port="pulse", input_device="ROOM"))
    assert isinstance(source, PulseSource) and isinstance(source, Source)
    assert isinstance(sink, PulseSink) and isinstance(sink, Sink)
    with pytest.raises(AudioError, match="no output device named 'nowhere'; known: 'speaker'"):
        open_ports(AudioSettings(port="pulse", output_device="nowhere"))
    devices, failures = list_devices()
    assert {device.port for device in devices} == {"pulse", "pyaudio"}
    assert not failures
