import threading
import time
from collections.abc import Callable

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgevoice.audio.playout import Playout


def ramp(count: int, start: int = 1) -> np.ndarray:
    return np.arange(start, start + count, dtype=np.int16)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 400)), max_size=20))
def test_what_is_written_is_played_in_order_and_counted(steps: list[tuple[int, int]]) -> None:
    playout = Playout()
    written = 0
    heard: list[np.ndarray] = []
    for write, pull in steps:
        playout.write(ramp(write, written + 1))
        written += write
        heard.append(playout.pull(pull))
        assert len(heard[-1]) == pull
        assert playout.played_samples() + playout.pending_samples() == written
    heard.append(playout.pull(playout.pending_samples()))
    joined = np.concatenate(heard)
    assert np.array_equal(joined[joined != 0], ramp(written))
    assert playout.played_samples() == written


def test_silence_is_filled_in_and_not_counted() -> None:
    playout = Playout()
    playout.write(ramp(10))
    assert not playout.pull(30)[10:].any()
    assert playout.played_samples() == 10


def test_last_played_is_what_was_pulled_with_its_silence() -> None:
    playout = Playout()
    playout.write(ramp(100))
    playout.pull(60)
    assert np.array_equal(playout.last_played(10), ramp(10, 51))
    playout.pull(60)
    assert np.array_equal(playout.last_played(25), np.r_[ramp(5, 96), np.zeros(20, np.int16)])
    playout.pull(40_000)
    assert not playout.last_played(32_000).any()


def test_clear_fades_within_its_time_and_counts_what_it_dropped() -> None:
    playout = Playout(fade_ms=5)
    playout.write(np.full(16_000, 10_000, np.int16))
    playout.pull(160)
    dropped = playout.clear()
    assert dropped == 16_000 - 160 - 80
    tail = playout.pull(160)
    assert abs(int(tail[0]) - 10_000) < 300
    assert np.all(np.diff(tail[:80].astype(int)) <= 0)
    assert np.abs(np.diff(tail.astype(int))).max() < 200
    assert not tail[80:].any()
    assert playout.played_samples() == 160 + 80
    assert playout.pending_samples() == 0


def test_clear_during_the_fade_drops_new_audio_and_finishes_the_fade() -> None:
    playout = Playout(fade_ms=5)
    playout.write(np.full(1000, 10_000, np.int16))
    playout.clear()
    head = playout.pull(40)
    playout.write(np.full(500, -10_000, np.int16))
    assert playout.clear() == 500
    tail = playout.pull(100)
    both = np.r_[head, tail].astype(int)
    assert np.abs(np.diff(both)).max() < 200
    assert both.min() == 0


def test_clearing_silence_drops_nothing() -> None:
    assert Playout().clear() == 0


def test_a_writer_over_the_bound_waits_for_room_and_loses_nothing() -> None:
    playout = Playout(capacity_s=0.01)
    writer = threading.Thread(target=playout.write, args=(ramp(500),))
    writer.start()
    until(lambda: playout.pending_samples() == 500)
    heard = []
    while playout.pending_samples():
        assert playout.queued_samples() <= 160
        heard.append(playout.pull(50))
    writer.join(5)
    assert not writer.is_alive()
    joined = np.concatenate(heard)
    assert np.array_equal(joined[joined != 0], ramp(500))


def test_clear_and_close_release_a_blocked_writer_whose_rest_is_dropped() -> None:
    for release in ("clear", "close"):
        playout = Playout(capacity_s=0.01, fade_ms=0)
        writer = threading.Thread(target=playout.write, args=(ramp(500),))
        writer.start()
        until(lambda p=playout: p.pending_samples() == 500)  # type: ignore[misc]
        result = getattr(playout, release)()
        writer.join(5)
        assert not writer.is_alive()
        assert result in (None, 500)
        assert playout.queued_samples() == (0 if release == "clear" else 160)


def test_samples_on_their_way_through_a_device_are_pending_until_they_left_it() -> None:
    playout = Playout()
    playout.write(ramp(100))
    playout.pull(60, leaves_ns=time.monotonic_ns() + 50_000_000)
    assert (playout.played_samples(), playout.pending_samples()) == (0, 100)
    until(lambda: playout.played_samples() == 60)
    assert playout.pending_samples() == 40


def test_waiting_for_something_to_say() -> None:
    playout = Playout()
    assert not playout.wait_for_samples(0.01)
    playout.write(ramp(5))
    assert playout.wait_for_samples(0)
    playout.pull(5)
    playout.close()
    assert not playout.wait_for_samples(10)


def loud(count: int) -> np.ndarray:
    return np.full(count, 10_000, np.int16)


def test_a_gain_moves_without_a_click() -> None:
    playout = Playout()
    playout.write(loud(1600))
    playout.pull(160)
    playout.set_gain(0.3)
    out = playout.pull(480).astype(int)
    assert np.abs(np.diff(out)).max() < 200
    assert out[-1] == 3000
    playout.set_gain(1.0)
    assert playout.pull(480)[-1] == 10_000
    assert playout.played_samples() == 1120


def test_a_hold_fades_out_and_keeps_the_rest() -> None:
    playout = Playout(pause_fade_ms=5)
    playout.write(loud(1600))
    playout.pull(160)
    assert playout.hold() == 80
    out = playout.pull(480)
    assert np.abs(np.diff(np.r_[10_000, out].astype(int))).max() < 200
    assert not out[80:].any()
    assert playout.played_samples() == 240
    assert playout.pending_samples() == 1600 - 240
    assert playout.queued_samples() == 0
    assert not playout.wait_for_samples(0.0)
    assert playout.hold() == 0


def test_what_is_written_during_a_hold_comes_behind_what_was_held() -> None:
    playout = Playout()
    playout.write(loud(400))
    playout.hold()
    playout.pull(160)
    playout.write(np.full(100, 5000, np.int16))
    playout.release(np.full(200, 7000, np.int16))
    out = playout.pull(1000)
    assert np.abs(np.diff(np.r_[0, out[:80]].astype(int))).max() < 200
    assert list(out[100:200]) == [7000] * 100
    assert list(out[200:520]) == [10_000] * 320
    assert list(out[520:620]) == [5000] * 100
    assert not out[620:].any()
    assert playout.played_samples() == 400 + 100 + 200


def test_a_release_before_the_fade_was_pulled_plays_its_samples_first() -> None:
    playout = Playout()
    playout.write(ramp(1000))
    assert playout.hold() == 80
    playout.release(ramp(10, 5001))
    assert playout.pending_samples() == 1010
    out = playout.pull(1010)
    assert list(out[80:90]) == list(ramp(10, 5001))
    assert list(out[90:]) == list(ramp(920, 81))


def test_a_release_without_a_hold_plays_nothing_again_and_restores_the_gain() -> None:
    playout = Playout()
    playout.set_gain(0.3)
    playout.release(ramp(100))
    playout.write(loud(400))
    assert playout.pending_samples() == 400
    assert playout.pull(400)[-1] == 10_000


def test_a_clear_ends_a_hold() -> None:
    playout = Playout()
    playout.set_gain(0.3)
    playout.write(loud(1600))
    playout.pull(480)
    playout.hold()
    playout.pull(160)
    playout.clear()
    assert not playout.pull(160).any()
    playout.write(loud(100))
    assert list(playout.pull(100)) == [10_000] * 100


def test_what_has_not_left_the_speaker_can_be_played_otherwise() -> None:
    playout = Playout()
    playout.write(np.arange(1600, dtype=np.int16))
    hour_ns = 3600 * 10**9
    playout.pull(320, time.monotonic_ns() - 1)
    playout.pull(320, time.monotonic_ns() + hour_ns)
    playout.pull(320, time.monotonic_ns() + 2 * hour_ns)
    assert playout.take_back() == 640
    assert playout.played_samples() == 320
    assert playout.pending_samples() == playout.queued_samples() == 1280
    assert playout.excerpt(320, 640).tolist() == [0] * 640, "it is no reference for an echo"
    assert playout.pull(1280).tolist() == list(range(320, 1600))
    assert playout.take_back() == 0


def test_of_a_block_that_is_leaving_only_the_rest_is_taken_back() -> None:
    playout = Playout()
    playout.write(np.arange(32_000, dtype=np.int16))
    playout.pull(32_000, time.monotonic_ns() + 10**9)
    taken = playout.take_back()
    assert 0 < taken <= 16_000, "it takes a second until all has left"
    assert playout.pull(1)[0] == 32_000 - taken


@given(
    st.lists(
        st.sampled_from(["write", "pull", "ahead", "back", "hold", "release", "clear", "duck"]),
        max_size=30,
    )
)
def test_every_sample_is_played_pending_or_dropped_whatever_happens(steps: list[str]) -> None:
    playout = Playout()
    owed = 0
    for step in steps:
        if step == "write":
            playout.write(loud(300))
            owed += 300
        elif step == "pull":
            playout.pull(130)
        elif step == "ahead":
            playout.pull(130, time.monotonic_ns() + 3600 * 10**9)
        elif step == "back":
            playout.take_back()
        elif step == "hold":
            playout.hold()
        elif step == "duck":
            playout.set_gain(0.3)
        elif step == "clear":
            owed -= playout.clear()
        else:
            before = playout.pending_samples()
            playout.release(loud(50))
            owed += playout.pending_samples() - before
        assert playout.played_samples() + playout.pending_samples() == owed
    playout.release(loud(0))
    playout.pull(10_000)
    playout.recall()
    assert playout.pending_samples() == 0
