import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevoice.audio.frame_queue import FrameQueue
from edgevoice.errors import AudioError
from edgevoice.frames import FRAME_SAMPLES


@given(st.lists(st.integers(min_value=0, max_value=700), max_size=30))
def test_blocks_of_any_length_come_out_whole_and_in_order(sizes: list[int]) -> None:
    queue = FrameQueue(60_000)
    total = sum(sizes)
    signal = np.arange(total, dtype=np.int16)
    start = 0
    for size in sizes:
        queue.push(signal[start : start + size], captured_ns=(start + size) * 62_500)
        start += size
    queue.close()
    frames = []
    with pytest.raises(EOFError):
        while frame := queue.read(0):
            frames.append(frame)
    joined = np.concatenate([f.samples for f in frames] or [np.zeros(0, np.int16)])
    assert np.array_equal(joined[:total], signal)
    assert not joined[total:].any()
    assert len(joined) - total < FRAME_SAMPLES
    assert [f.seq for f in frames] == list(range(len(frames)))
    for frame in frames[: total // FRAME_SAMPLES]:
        assert frame.captured_ns == (frame.seq + 1) * FRAME_SAMPLES * 62_500


def test_the_oldest_frame_goes_and_is_counted_and_leaves_a_gap() -> None:
    queue = FrameQueue(capacity_ms=30)
    for value in range(5):
        queue.push(np.full(FRAME_SAMPLES, value, np.int16), 0)
    first = queue.read(0)
    assert first is not None
    assert (first.seq, first.samples[0], queue.dropped_frames) == (2, 2, 2)


def test_reading_nothing_waits_and_returns_none() -> None:
    began = time.monotonic()
    assert FrameQueue().read(0.03) is None
    assert time.monotonic() - began >= 0.03


def test_the_port_may_reuse_its_buffer() -> None:
    queue = FrameQueue()
    buffer = np.full(FRAME_SAMPLES, 7, np.int16)
    queue.push(buffer, 0)
    buffer[:] = 9
    frame = queue.read(0)
    assert frame is not None and frame.samples[0] == 7


def test_a_failure_is_reported_once_after_what_was_left() -> None:
    queue = FrameQueue()
    queue.push(np.zeros(FRAME_SAMPLES, np.int16), 0)
    queue.fail(AudioError("the microphone is gone"))
    queue.close()
    assert queue.read(0) is not None
    with pytest.raises(AudioError, match="gone"):
        queue.read(0)
    with pytest.raises(EOFError):
        queue.read(0)


def test_closing_wakes_a_waiting_reader() -> None:
    queue = FrameQueue()
    ended = threading.Event()

    def read() -> None:
        with pytest.raises(EOFError):
            queue.read(30)
        ended.set()

    reader = threading.Thread(target=read)
    reader.start()
    queue.close()
    assert ended.wait(5)
    reader.join()
