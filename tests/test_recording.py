"""What passes between a session and its ports is kept, where it was on the time axis."""

import time

import numpy as np
import pytest

from edgevoice.audio.wav_port import WavSink, WavSource
from edgevoice.events import StateNotice
from edgevoice.frames import FRAME_SAMPLES, Frame, Int16
from edgevoice.recording import Recorder, Track
from edgevoice.session import LockStepSink


def ones(count: int, value: int = 1) -> Int16:
    return np.full(count, value, dtype=np.int16)


def test_a_gap_is_silence_and_jitter_is_not() -> None:
    track = Track(limit_ms=10_000, slack_ms=100)
    track.place(ones(160), 10)
    track.place(ones(160, 2), 70)  # 50 ms late: a block that was handed over late
    track.place(ones(160, 3), 1000)  # nothing came for a second
    samples = track.samples()
    assert samples.size == 16_000
    assert np.flatnonzero(samples == 2).tolist() == list(range(160, 320))
    assert np.flatnonzero(samples == 3)[0] == 16_000 - 160
    assert not track.truncated


def test_a_track_ends_at_its_limit() -> None:
    track = Track(limit_ms=20, slack_ms=0)
    track.place(ones(300), 300 / 16)
    assert not track.truncated
    track.place(ones(300), 600 / 16)
    assert track.truncated
    assert track.samples().size == 320
    track.place(ones(10), 1e9)  # a gap of days allocates nothing
    assert track.samples().size == 320


def test_lock_step_ports_are_kept_to_the_sample() -> None:
    recorder = Recorder()
    question = np.arange(1, 5 * FRAME_SAMPLES + 1, dtype=np.int16)
    kept = WavSink(None, "fast")
    source, sink = recorder.lock_step_ports(WavSource(question, "fast", tail_s=0.0), kept)
    assert isinstance(sink, LockStepSink)
    sink.start()
    source.start()
    for number in range(5):
        assert source.read(0.1) is not None
        sink.advance(FRAME_SAMPLES)
        if number == 1:
            sink.write(ones(200, 7))
            sink.write(ones(50, 8))
    with pytest.raises(EOFError):
        source.read(0.1)
    source.stop()
    sink.stop()
    record = recorder.record()
    assert record.lock_step
    np.testing.assert_array_equal(record.user, question)
    played = kept.recording()
    np.testing.assert_array_equal(record.agent, played[: record.agent.size])
    assert not played[record.agent.size :].any()
    assert np.flatnonzero(record.agent == 7)[0] == 2 * FRAME_SAMPLES
    assert record.duration_ms == 50.0


class Speaker:
    """A sink of which the test says how much it has played."""

    def __init__(self) -> None:
        self.written = 0
        self.played = 0
        self.stopped = False

    def start(self) -> None: ...

    def write(self, samples: Int16) -> None:
        self.written += samples.size

    def played_samples(self) -> int:
        return self.played

    def pending_samples(self) -> int:
        return self.written - self.played

    def set_gain(self, gain: float) -> None: ...

    def hold(self) -> int:
        return 0

    def release(self, again: Int16) -> None:
        self.written += again.size

    def clear(self) -> int:
        dropped = self.pending_samples()
        self.written = self.played
        return dropped

    def stop(self) -> None:
        self.stopped = True


class Microphone:
    """Gives frames with the capture times that the test says."""

    dropped_frames = 3

    def __init__(self) -> None:
        self.frames: list[Frame | None] = []

    def start(self) -> None: ...

    def read(self, timeout_s: float) -> Frame | None:
        return self.frames.pop(0)

    def stop(self) -> None: ...


def test_only_what_was_played_is_kept() -> None:
    recorder, speaker = Recorder(), Speaker()
    _, sink = recorder.real_time_ports(Microphone(), speaker)
    sink.start()
    sink.write(ones(1000, 5))
    sink.write(ones(1000, 6))
    speaker.played = 1200
    assert sink.played_samples() == 1200
    assert sink.pending_samples() == 800
    assert sink.clear() == 800
    sink.write(ones(100, 9))
    speaker.played = 1300
    sink.stop()
    agent = recorder.record().agent
    assert speaker.stopped
    assert (agent == 5).sum() == 1000
    assert (agent == 6).sum() == 200
    assert (agent == 9).sum() == 100
    assert agent[-1] == 9


def test_lost_frames_are_silence() -> None:
    recorder, microphone = Recorder(), Microphone()
    source, _ = recorder.real_time_ports(microphone, Speaker())
    source.start()
    now_ns = time.monotonic_ns()
    for seq in (0, 1, 50):
        captured_ns = now_ns + (seq + 1) * 10_000_000
        microphone.frames.append(Frame(seq, captured_ns, ones(FRAME_SAMPLES, seq + 1)))
    microphone.frames.append(None)
    while source.read(0.0) is not None:
        pass
    user = recorder.record().user
    assert source.dropped_frames == 3
    assert user.size == pytest.approx(51 * FRAME_SAMPLES, abs=20)
    assert (user[-FRAME_SAMPLES:] == 51).all()
    assert not user[3 * FRAME_SAMPLES : -FRAME_SAMPLES].any()


def test_notices_are_kept_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgevoice.recording._NOTICE_LIMIT", 2)
    recorder = Recorder()
    for at_ms in range(3):
        recorder.watch(StateNotice(float(at_ms), "listening"))
    record = recorder.record()
    assert [notice.at_ms for notice in record.notices] == [0.0, 1.0]
    assert record.truncated
    assert record.duration_ms == 0.0


def test_the_echo_reference_comes_through() -> None:
    recorder = Recorder()
    _, sink = recorder.lock_step_ports(WavSource(ones(160), "fast"), WavSink(None, "fast"))
    sink.start()
    sink.write(ones(160, 4))
    sink.advance(160)
    assert (sink.last_played(160) == 4).all()  # type: ignore[attr-defined]
    _, deaf = recorder.real_time_ports(Microphone(), Speaker())
    assert not deaf.last_played(160).any()  # type: ignore[attr-defined]


def test_what_leaves_the_speaker_unasked_is_kept_when_it_left() -> None:
    recorder, speaker, microphone = Recorder(), Speaker(), Microphone()
    source, sink = recorder.real_time_ports(microphone, speaker)
    sink.start()
    source.start()
    sink.write(ones(80, 5))  # the ramp to silence after a clear(): no session asks for it
    speaker.played = 80
    microphone.frames.append(Frame(0, time.monotonic_ns(), ones(FRAME_SAMPLES)))
    source.read(0.0)
    assert (recorder.record().agent == 5).sum() == 80
