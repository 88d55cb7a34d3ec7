"""The reference keeps its place beside the microphone, whatever blocks and clocks do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pulse import ROOM, SPEAKER, PulseServer
from speech import librivox

from edgevoice.audio import reference
from edgevoice.audio.echo import Aec3Canceller
from edgevoice.audio.playout import Playout
from edgevoice.audio.pyaudio_port import PyAudioSink, PyAudioSource
from edgevoice.audio.reference import NoReference, PlayedReference, SteppedReference, reference_of
from edgevoice.audio.wav_port import WavSink
from edgevoice.frames import FRAME_SAMPLES, SAMPLE_RATE_HZ, Frame, Int16, to_int16


class Clock:
    """Stands in for the reference's clock."""

    def __init__(self) -> None:
        self.now_ns = 1_000_000_000

    def monotonic_ns(self) -> int:
        return self.now_ns


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(reference, "time", clock)
    return clock


def speech(seconds: float) -> Int16:
    """Samples of which each frame is like no other."""
    count = round(seconds * SAMPLE_RATE_HZ)
    return np.random.default_rng(5).integers(-9000, 9000, count).astype(np.int16)


def run(
    clock: Clock,
    playout: Playout,
    seconds: float,
    *,
    ppm: float = 0.0,
    block: int = 320,
    late: int = 0,
    lost: range = range(0),
) -> list[Int16]:
    """Let a speaker pull and a microphone deliver; return the reference frame by frame.

    Args:
        clock: Moved by this.
        playout: Written to before.
        seconds: How long.
        ppm: How much faster the speaker's clock is.
        block: What the speaker pulls at once.
        late: Frames that wait before the session reads them.
        lost: Frames that the session never gets.
    """
    reader = PlayedReference(playout)
    waiting: list[Frame] = []
    read = []
    pulled = 0.0
    nothing = np.zeros(FRAME_SAMPLES, dtype=np.int16)
    playout.pull(block)
    for seq in range(round(seconds * 100)):
        clock.now_ns += 10_000_000
        pulled += FRAME_SAMPLES * (1 + ppm * 1e-6)
        while pulled >= block:
            playout.pull(block)
            pulled -= block
        if seq not in lost:
            waiting.append(Frame(seq, clock.now_ns, nothing))
        if len(waiting) > late:
            read.append(reader.read(waiting.pop(0)))
    return read


def places(frames: list[Int16], said: Int16) -> list[int]:
    """Where each sounding frame lies in what was said."""
    found = []
    for frame in frames:
        if frame.all():
            starts = np.flatnonzero(said[: -FRAME_SAMPLES + 1] == frame[0])
            found += [
                int(at) for at in starts if np.array_equal(said[at : at + FRAME_SAMPLES], frame)
            ]
    return found


@pytest.mark.parametrize("block", [160, 320, 441, 1024])
@pytest.mark.parametrize("late", [0, 30])
def test_frames_follow_one_another_without_a_gap(clock: Clock, block: int, late: int) -> None:
    playout = Playout()
    said = speech(5.0)
    said[said == 0] = 1
    # The speaker has played silence for two seconds when the agent begins.
    playout.write(np.concatenate((np.zeros(2 * SAMPLE_RATE_HZ, np.int16), said)))
    found = places(run(clock, playout, 8.0, block=block, late=late), said)
    assert len(found) > 480
    assert set(np.diff(found)) == {FRAME_SAMPLES}


@pytest.mark.parametrize("ppm", [-100.0, 100.0])
def test_drift_moves_the_reference_in_silence_alone(clock: Clock, ppm: float) -> None:
    playout = Playout(400.0)
    said = speech(20.0)
    said[said == 0] = 1
    pause = np.zeros(10 * SAMPLE_RATE_HZ, dtype=np.int16)
    for _ in range(6):
        playout.write(np.concatenate((pause, said)))
    frames = run(clock, playout, 185.0, ppm=ppm)
    steps = np.diff(places(frames, said))
    within = steps[steps > 0]  # below 0 the next answer begins
    assert (within == FRAME_SAMPLES).mean() > 0.999


def test_lost_frames_take_their_reference_with_them(clock: Clock) -> None:
    playout = Playout()
    said = speech(5.0)
    said[said == 0] = 1
    playout.write(np.concatenate((np.zeros(2 * SAMPLE_RATE_HZ, np.int16), said)))
    found = places(run(clock, playout, 8.0, lost=range(400, 410)), said)
    assert sorted(set(np.diff(found))) == [FRAME_SAMPLES, 11 * FRAME_SAMPLES]


def test_audio_that_was_recalled_is_no_reference(clock: Clock) -> None:
    playout = Playout()
    playout.write(speech(1.0))
    far_ns = 10**18
    playout.pull(1600, leaves_ns=far_ns)
    assert playout.recall() == 1600
    assert playout.given_out() == 0
    reader = PlayedReference(playout)
    frame = Frame(0, clock.now_ns, np.zeros(FRAME_SAMPLES, dtype=np.int16))
    assert not reader.read(frame).any()


def test_an_excerpt_is_what_was_pulled_and_silence_elsewhere() -> None:
    playout = Playout()
    playout.write(np.arange(1, 101, dtype=np.int16))
    playout.pull(100)
    assert np.array_equal(playout.excerpt(10, 5), np.arange(11, 16))
    assert np.array_equal(playout.excerpt(98, 4), [99, 100, 0, 0])
    assert np.array_equal(playout.excerpt(-2, 4), [0, 0, 1, 2])
    playout.pull(3 * SAMPLE_RATE_HZ)
    assert not playout.excerpt(0, 100).any()


def test_every_sink_gets_the_reference_that_fits() -> None:
    assert isinstance(reference_of(WavSink(None)), PlayedReference)
    assert isinstance(reference_of(object()), NoReference)  # type: ignore[arg-type]
    sink = WavSink(None, "fast")
    sink.write(np.full(FRAME_SAMPLES, 7, dtype=np.int16))
    sink.advance(FRAME_SAMPLES)
    frame = Frame(0, 0, np.zeros(FRAME_SAMPLES, dtype=np.int16))
    assert (SteppedReference(sink).read(frame) == 7).all()


@pytest.mark.pulse
def test_a_real_echo_path_is_cancelled_in_real_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sound server plays the speaker back into the microphone, 60 ms late."""
    server = PulseServer(tmp_path)
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
    server.pactl(
        "load-module", "module-loopback", f"source={SPEAKER}.monitor", f"sink={ROOM}",
        "latency_msec=60", "adjust_time=0",
    )  # fmt: skip
    source, sink = PyAudioSource(), PyAudioSink()
    canceller = Aec3Canceller()
    captured, cleaned = [], []
    try:
        sink.start()
        source.start()
        found = reference_of(sink)
        said = librivox(870)
        sink.write(np.concatenate([np.zeros(16_000, np.int16), to_int16(said), to_int16(said)]))
        while len(captured) < 900:
            frame = source.read(1.0)
            assert frame is not None
            captured.append(frame.samples)
            cleaned.append(canceller.process(frame.samples, found.read(frame)))
    finally:
        source.stop()
        sink.stop()
        server.kill()
    erle_db = [
        10 * np.log10((np.concatenate(a).astype(float) ** 2).mean() / power)
        for a, b in ((captured[i : i + 150], cleaned[i : i + 150]) for i in range(0, 900, 150))
        if (power := (np.concatenate(b).astype(float) ** 2).mean()) > 0.0
        and np.abs(np.concatenate(a)).max() > 1000
    ]
    # On a machine that loses audio some windows are bad; a reference out of place spoils all.
    assert max(erle_db) > 20.0
