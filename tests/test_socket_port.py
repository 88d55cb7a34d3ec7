"""A client's socket as microphone and speaker: framing, rates, pace, and what was played."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from edgevoice.audio.socket_port import MOST_LEAD_MS, SocketSink, SocketSource
from edgevoice.frames import FRAME_SAMPLES, Int16
from edgevoice.stages import Sink, Source


def ramp(count: int) -> Int16:
    return np.arange(count, dtype=np.int16)


def drain(source: SocketSource) -> Int16:
    frames = []
    while (frame := source.read(0.0)) is not None:
        frames.append(frame.samples)
    return np.concatenate(frames) if frames else ramp(0)


class Wire:
    """What reached the client, in order; a clear is None."""

    def __init__(self) -> None:
        self.items: list[Int16 | None] = []
        self.lock = threading.Lock()

    def send(self, samples: Int16) -> None:
        with self.lock:
            self.items.append(samples)

    def clear(self) -> None:
        with self.lock:
            self.items.append(None)

    @property
    def clears(self) -> int:
        with self.lock:
            return sum(i is None for i in self.items)

    def around_clear(self) -> tuple[Int16, Int16]:
        """Return what came before the first clear, and what came behind it."""
        with self.lock:
            place = next(n for n, item in enumerate(self.items) if item is None)
            parts = self.items[:place], self.items[place:]
        before, behind = ([i for i in part if i is not None] for part in parts)
        return np.concatenate([ramp(0), *before]), np.concatenate([ramp(0), *behind])

    @property
    def sent(self) -> int:
        with self.lock:
            return sum(i.size for i in self.items if i is not None)


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def sink(wire: Wire) -> Iterator[SocketSink]:
    made = SocketSink(wire.send, wire.clear)
    made.start()
    yield made
    made.stop()


def wait_for(condition: object) -> None:
    assert callable(condition)
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.005)
    raise AssertionError("it never happened")


def test_ports_are_what_a_session_wants(sink: SocketSink) -> None:
    assert isinstance(sink, Sink)
    assert isinstance(SocketSource(), Source)


@pytest.mark.parametrize("block", [1, 7, 160, 161, 320, 5000])
def test_blocks_of_any_length_become_whole_frames(block: int) -> None:
    source = SocketSource()
    sent = ramp(5000)
    for i in range(0, len(sent), block):
        source.feed(sent[i : i + block])
    heard = drain(source)
    assert len(heard) == len(sent) // FRAME_SAMPLES * FRAME_SAMPLES
    assert np.array_equal(heard, sent[: len(heard)])


def test_another_rate_is_resampled() -> None:
    source = SocketSource()
    source.set_rate(48_000)
    time_s = np.arange(48_000) / 48_000
    tone = (8000 * np.sin(2 * np.pi * 440 * time_s)).astype(np.int16)
    for piece in source.pieces(tone):
        source.feed(piece)
    heard = drain(source)
    assert abs(len(heard) - 16_000) < 1600  # What the filter still holds.
    spectrum = np.abs(np.fft.rfft(heard[4000:12_000]))
    assert np.argmax(spectrum) == 440 * 8000 // 16_000


def test_a_reader_can_finish_what_came_before_the_client_left() -> None:
    source = SocketSource()
    source.feed(ramp(FRAME_SAMPLES))
    source.close()
    assert source.read(0.0) is not None
    with pytest.raises(EOFError):
        source.read(0.0)


@pytest.mark.parametrize("queue_ms", [10.0, 100.0, 1000.0])
def test_nothing_is_lost_while_the_room_is_heeded(queue_ms: float) -> None:
    source = SocketSource(queue_ms)
    assert source.has_room
    fed = 0
    for piece in source.pieces(np.zeros(16_000 * 3, dtype=np.int16)):
        if not source.has_room:
            drain(source)
        source.feed(piece)
        fed += piece.size
    assert (fed, source.dropped_frames) == (48_000, 0)


def test_without_a_reader_the_oldest_goes_and_is_counted() -> None:
    source = SocketSource(queue_ms=1000.0)
    source.feed(np.zeros(16_000 * 3, dtype=np.int16))
    assert source.dropped_frames == 200


def test_speech_goes_out_with_a_lead_and_then_at_its_own_pace(sink: SocketSink, wire: Wire) -> None:
    sink.write(ramp(16_000))
    begun = time.monotonic()
    wait_for(lambda: wire.sent >= 16_000)
    took_s = time.monotonic() - begun
    # It cannot have been faster; how much slower depends on the machine, so is not asserted.
    assert took_s >= 1.0 - MOST_LEAD_MS / 1000.0 - 0.05
    assert np.array_equal(np.concatenate([i for i in wire.items if i is not None]), ramp(16_000))


def test_at_a_hold_the_client_drops_what_it_has_not_played_and_gets_it_later(
    sink: SocketSink, wire: Wire
) -> None:
    sink.write(ramp(16_000))
    wait_for(lambda: wire.sent >= 3200)
    still = sink.hold()
    assert 0 <= still <= 80, "a fade of 5 ms"
    time.sleep(0.1)
    played = sink.played_samples()
    assert wire.clears == 1
    before, behind = wire.around_clear()
    assert behind.size == still
    assert before.size - MOST_LEAD_MS * 16 - 320 <= played - still <= before.size
    assert played + sink.pending_samples() == 16_000
    sink.release(np.full(800, 77, dtype=np.int16))
    wait_for(lambda: sink.pending_samples() == 0)
    _, behind = wire.around_clear()
    again, rest = behind[still : still + 800], behind[still + 800 :]
    assert np.array_equal(again[80:], np.full(720, 77)), "the voice comes up within 5 ms"
    assert np.array_equal(rest, ramp(16_000)[played:])


def test_a_quieter_voice_is_heard_at_once_and_nothing_is_said_twice_or_left_out(
    sink: SocketSink, wire: Wire
) -> None:
    sink.write(np.full(16_000, 1000, dtype=np.int16))
    wait_for(lambda: wire.sent >= 3200)
    sink.set_gain(0.5)
    played = sink.played_samples()
    sink.set_gain(0.5)
    assert wire.clears == 1
    wait_for(lambda: sink.pending_samples() == 0)
    before, behind = wire.around_clear()
    assert before.size - MOST_LEAD_MS * 16 - 320 <= played <= before.size
    assert behind.size == 16_000 - played
    assert set(behind[80:].tolist()) == {500}
    sink.write(np.full(320, 1000, dtype=np.int16))
    sink.set_gain(1.0)
    wait_for(lambda: sink.pending_samples() == 0)
    assert wire.clears == 1, "louder may be heard a little later"


def test_an_interruption_during_a_hold_sends_nothing_more(sink: SocketSink, wire: Wire) -> None:
    sink.write(np.full(16_000, 1000, dtype=np.int16))
    wait_for(lambda: wire.sent >= 3200)
    sink.hold()
    time.sleep(0.1)
    held_at = wire.sent
    sink.clear()
    assert wire.items[-1] is None
    assert wire.sent == held_at
    assert sink.pending_samples() == 0
    sink.write(np.full(320, 7, dtype=np.int16))
    wait_for(lambda: wire.items[-1] is not None)
    assert np.all(wire.items[-1] == 7)


def test_played_is_what_the_client_had_time_to_play(sink: SocketSink, wire: Wire) -> None:
    sink.write(ramp(8000))
    begun = time.monotonic()
    wait_for(lambda: wire.sent > 0)
    while (played := sink.played_samples()) < 8000:
        assert played <= wire.sent
        assert played <= (time.monotonic() - begun) * 16_000 + 320
        # Time goes on between two questions: what is pending now was not played before.
        assert played <= 8000 - sink.pending_samples() <= sink.played_samples()
        time.sleep(0.01)
    assert sink.pending_samples() == 0


def test_clear_counts_as_played_only_what_sounded(sink: SocketSink, wire: Wire) -> None:
    sink.write(ramp(32_000))
    begun = time.monotonic()
    wait_for(lambda: sink.played_samples() > 1600)
    dropped = sink.clear()
    elapsed = (time.monotonic() - begun) * 16_000
    played = sink.played_samples()
    assert played + dropped == 32_000
    assert sink.pending_samples() == 0
    assert wire.sent - played > 0  # Sent ahead, and taken back.
    assert played <= elapsed
    time.sleep(0.1)
    assert sink.played_samples() == played
    assert wire.items[-1] is None, "nothing may follow the clear"


def test_after_a_clear_new_speech_goes_out_at_once(sink: SocketSink, wire: Wire) -> None:
    sink.write(ramp(16_000))
    wait_for(lambda: wire.sent >= 1600)
    sink.clear()
    before = sink.played_samples()
    sink.write(ramp(320) + np.int16(20_000))
    wait_for(lambda: sink.played_samples() == before + 320)
    cleared = next(n for n, item in enumerate(wire.items) if item is None)
    after = [item for item in wire.items[cleared + 1 :] if item is not None]
    assert np.concatenate(after).tolist() == list(range(20_000, 20_320))


def test_a_client_at_another_rate_hears_all_of_it(wire: Wire) -> None:
    sink = SocketSink(wire.send, wire.clear)
    sink.set_rate(48_000)
    sink.start()
    try:
        sink.write(np.full(3200, 1000, dtype=np.int16))
        wait_for(lambda: wire.sent >= 9600)
        assert sink.played_samples() <= 3200
    finally:
        sink.stop()


def test_stop_is_prompt_while_speech_waits(wire: Wire) -> None:
    sink = SocketSink(wire.send, wire.clear)
    sink.start()
    sink.write(ramp(16_000))
    sink.stop()
    sink.stop()
    sent = wire.sent
    time.sleep(0.05)
    assert wire.sent == sent < 16_000
