import threading
import time
from pathlib import Path

import numpy as np
import pytest

from edgevoice.audio.wav import read_wav, write_wav
from edgevoice.audio.wav_port import WavSink, WavSource
from edgevoice.errors import AudioError
from edgevoice.frames import FRAME_SAMPLES
from edgevoice.stages import Sink, Source


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(-9000, 9000, count).astype(np.int16)


def read_all(source: WavSource) -> np.ndarray:
    frames = []
    with pytest.raises(EOFError):
        while frame := source.read(1.0):
            frames.append(frame.samples)
    return np.concatenate(frames)


def test_they_are_ports() -> None:
    assert isinstance(WavSource(noise(1)), Source)
    sink: Sink = WavSink(None)
    assert sink.pending_samples() == 0


def test_fast_never_sleeps_and_ends_after_its_tail() -> None:
    source = WavSource(noise(16_050), pace="fast", tail_s=60.0)
    source.start()
    began = time.monotonic()
    heard = read_all(source)
    assert time.monotonic() - began < 5
    assert np.array_equal(heard[:16_050], noise(16_050))
    assert not heard[16_050:].any()
    assert abs(len(heard) - 61 * 16_000) < 2 * FRAME_SAMPLES


def test_real_time_follows_the_clock_even_for_a_late_reader() -> None:
    source = WavSource(noise(4_800), tail_s=0)
    source.start()
    began_ns = time.monotonic_ns()
    assert source.read(0.001) is None
    time.sleep(0.1)
    stamps = []
    with pytest.raises(EOFError):
        while frame := source.read(1.0):
            stamps.append(frame.captured_ns)
            assert time.monotonic_ns() >= frame.captured_ns
    assert 0.25 < (time.monotonic_ns() - began_ns) / 1e9 < 2
    assert np.diff(stamps).tolist() == [10_000_000] * 29
    assert source.dropped_frames == 0


def test_endless_silence_until_stop_wakes_the_reader() -> None:
    source = WavSource(noise(160))
    source.start()
    timer = threading.Timer(0.05, source.stop)
    timer.start()
    heard = read_all(source)
    timer.join()
    assert not heard[160:].any()


def test_more_can_be_said_later() -> None:
    source = WavSource(noise(160), pace="fast")
    source.start()
    for _ in range(5):
        source.read(0)
    assert source.remaining_samples() == 0
    source.append(noise(200))
    assert source.remaining_samples() == 200
    frame = source.read(0)
    assert frame is not None
    assert np.array_equal(frame.samples, noise(160))
    assert (frame.seq, source.delivered_samples) == (5, 6 * FRAME_SAMPLES)


def test_files_of_other_rates_and_bad_files(tmp_path: Path) -> None:
    write_wav(tmp_path / "x.wav", np.zeros(44_100, np.int16), 44_100)
    assert WavSource.open(tmp_path / "x.wav").remaining_samples() == 16_000
    with pytest.raises(AudioError, match="no such file"):
        WavSource.open(tmp_path / "none.wav")


def test_lock_step_recording_has_the_questions_time_axis(tmp_path: Path) -> None:
    source = WavSource(noise(16_000), pace="fast", tail_s=0)
    sink = WavSink(tmp_path / "answer.wav", pace="fast")
    source.start()
    sink.start()
    with pytest.raises(EOFError):
        while frame := source.read(0):
            if frame.seq == 50:
                sink.write(np.full(320, 500, np.int16))
            sink.advance(FRAME_SAMPLES)
    sink.stop()
    sink.stop()
    samples, rate_hz = read_wav(tmp_path / "answer.wav")
    assert (len(samples), rate_hz) == (16_000, 16_000)
    assert np.flatnonzero(samples).tolist() == list(range(8_000, 8_320))
    assert sink.played_samples() == 320


def test_real_time_recording_plays_by_the_clock() -> None:
    sink = WavSink(None)
    sink.start()
    sink.write(np.full(16_000, 500, np.int16))
    time.sleep(0.2)
    assert 0.1 < sink.played_samples() / 16_000 < 0.6
    dropped = sink.clear()
    time.sleep(0.05)
    sink.stop()
    assert dropped + sink.played_samples() == 16_000
    assert np.count_nonzero(sink.recording() == 500) == pytest.approx(sink.played_samples(), abs=80)
    with pytest.raises(ValueError, match="fast"):
        sink.advance(160)


def test_a_folder_that_is_not_there_is_said_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="no folder"):
        WavSink(tmp_path / "none" / "x.wav").start()
