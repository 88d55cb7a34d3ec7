import shutil
import sys
import time
from pathlib import Path

import pytest
from pulse import MICROPHONE, SPEAKER, PulseServer, error_within, tone

from edgevoice.audio.ports import list_devices, open_ports
from edgevoice.audio.pulse_client import list_pulse_devices
from edgevoice.audio.pulse_port import PulseSink, PulseSource
from edgevoice.errors import AudioError, MissingDependencyError
from edgevoice.settings import AudioSettings
from edgevoice.stages import Sink, Source

pytestmark = pytest.mark.pulse


def test_frames_are_stamped_with_the_time_they_were_heard(pulse_server: PulseServer) -> None:
    source = PulseSource("room")
    source.start()
    for _ in range(30):
        frame = source.read(1.0)
    assert frame is not None
    assert 0 <= time.monotonic_ns() - frame.captured_ns < 500_000_000
    source.stop()


def test_a_server_that_hangs_is_one_error_and_no_hang(pulse_server: PulseServer) -> None:
    source, sink = PulseSource(), PulseSink()
    source.start()
    sink.start()
    pulse_server.freeze()
    assert "has stopped" in str(error_within(8, lambda: source.read(0.1)))
    assert "has stopped" in str(error_within(8, lambda: sink.write(tone(0.01))))
    began = time.monotonic()
    source.stop()
    sink.stop()
    assert time.monotonic() - began < 5


def test_devices_are_listed_and_found_by_part_of_their_name(pulse_server: PulseServer) -> None:
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
def test_what_the_speaker_plays_is_no_microphone(pulse_server: PulseServer, port: str) -> None:
    pulse_server.pactl("set-default-source", "speaker.monitor")
    with pytest.raises(AudioError, match=r"no microphone: .* 'speaker\.monitor'"):
        open_ports(AudioSettings(port=port))
    open_ports(AudioSettings(port="pulse", input_device="speaker.monitor"))


def test_the_settings_choose_the_port(pulse_server: PulseServer) -> None:
    source, sink = open_ports(AudioSettings(port="pulse", input_device="ROOM"))
    assert isinstance(source, PulseSource) and isinstance(source, Source)
    assert isinstance(sink, PulseSink) and isinstance(sink, Sink)
    with pytest.raises(AudioError, match="no output device named 'nowhere'; known: 'speaker'"):
        open_ports(AudioSettings(port="pulse", output_device="nowhere"))
    devices, failures = list_devices()
    assert {device.port for device in devices} == {"pulse", "pyaudio"}
    assert not failures
