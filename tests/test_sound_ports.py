"""What both sound ports owe a conversation, each tried on a real PulseAudio server."""

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np
import pytest
from pulse import SPEAKER, PulseServer, Recorder, error_within, loud_ms, tone

import edgevoice.audio.pyaudio_port as port_module
from edgevoice.audio.portaudio import StreamFormat, choose_format
from edgevoice.audio.pulse_port import PulseSink, PulseSource
from edgevoice.audio.pyaudio_port import PyAudioSink, PyAudioSource
from edgevoice.frames import Int16
from edgevoice.stages import Sink, Source

pytestmark = pytest.mark.pulse
SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Ports:
    source: Callable[[str], Source]
    sink: Callable[[str], Sink]
    default: str
    speaker: str
    played_within_ms: float
    source_gone: str
    sink_gone: str


BOTH = {
    "pulse": Ports(PulseSource, PulseSink, "", SPEAKER, 5, "parec has ended", "pacat has ended"),
    "pyaudio": Ports(PyAudioSource, PyAudioSink, "pulse", "pulse", 30, "is gone", "is gone"),
}
FORMATS = [("pulse", None), *(("pyaudio", f) for f in [(16_000, 1), (44_100, 2), (48_000, 1)])]


@pytest.fixture(params=BOTH)
def port(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def ports(port: str) -> Ports:
    return BOTH[port]


@pytest.fixture(params=FORMATS, ids=str)
def ports_in_every_format(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Ports:
    """Both ports; PortAudio's device pretends to take nothing but one rate and its channels."""
    name, native = request.param

    def only(portaudio: object, direction: str, wanted: str) -> StreamFormat:
        found = choose_format(portaudio, direction, wanted)  # type: ignore[arg-type]
        return StreamFormat(found.index, found.name, *native)

    if native:
        monkeypatch.setattr(port_module, "choose_format", only)
    return BOTH[name]


def pitch_hz(samples: Int16) -> float:
    spectrum = np.abs(np.fft.rfft(samples.astype(float)))
    return float(np.argmax(spectrum)) * 16_000 / len(samples)


def outlive_the_server(port: str, started: Connection) -> None:
    """Run in a child process: what both ports owe after the server's death."""
    ports = BOTH[port]
    source, sink = ports.source(ports.default), ports.sink(ports.default)
    source.start()
    sink.start()
    sink.write(tone(5.0))
    started.send("started")
    assert ports.source_gone in str(error_within(20, lambda: source.read(0.1)))
    with pytest.raises(EOFError):
        source.read(0.1)
    assert ports.sink_gone in str(error_within(5, lambda: sink.write(tone(0.01))))
    assert sink.pending_samples() == 0
    began = time.monotonic()
    source.stop()
    sink.stop()
    assert time.monotonic() - began < 10


def test_the_microphone_hears_the_room(
    pulse_server: PulseServer, ports_in_every_format: Ports
) -> None:
    source = ports_in_every_format.source(ports_in_every_format.default)
    source.start()
    speaking = pulse_server.say(tone(0.5))
    frames = []
    deadline = time.monotonic() + 1.5
    while time.monotonic() < deadline:
        if frame := source.read(0.1):
            frames.append(frame)
            assert time.monotonic_ns() >= frame.captured_ns
    speaking.wait()
    source.stop()
    source.stop()
    assert [f.seq for f in frames] == list(range(frames[0].seq, frames[0].seq + len(frames)))
    heard = np.concatenate([frame.samples for frame in frames])
    assert loud_ms(heard) == pytest.approx(500, abs=30)
    assert pitch_hz(heard) == pytest.approx(440, abs=4)
    assert len(heard) / 16_000 == pytest.approx(1.5, abs=0.3)
    with pytest.raises(EOFError):
        while source.read(0):
            pass


def test_the_speaker_plays_and_reports_what_it_played(
    pulse_server: PulseServer, ports_in_every_format: Ports
) -> None:
    sink = ports_in_every_format.sink(ports_in_every_format.speaker)
    recorder = Recorder(pulse_server)
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
    within_ms = ports_in_every_format.played_within_ms
    assert loud_ms(recorded) == pytest.approx(500, abs=within_ms)
    assert pitch_hz(recorded) == pytest.approx(440, abs=4)


def test_clear_silences_the_speaker_at_once(pulse_server: PulseServer, ports: Ports) -> None:
    sink = ports.sink(ports.speaker)
    recorder = Recorder(pulse_server)
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
    if ports is BOTH["pulse"]:  # PortAudio does not say how much of its own buffer it dropped.
        assert sink.played_samples() / 16 == pytest.approx(said_ms, abs=10)


def test_a_server_that_dies_is_one_error_and_no_hang(pulse_server: PulseServer, port: str) -> None:
    # In a process of its own: PortAudio's thread may spin until its process ends.
    started, tell = SPAWN.Pipe(duplex=False)
    child = SPAWN.Process(target=outlive_the_server, args=(port, tell))
    child.start()
    tell.close()
    started.recv()
    pulse_server.kill()
    child.join(60)
    child.kill()
    assert child.exitcode == 0
