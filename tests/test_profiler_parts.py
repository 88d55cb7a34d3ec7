"""The parts that the profiler measures with: meters, vitals, spans, workloads, the second load."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from measuring import FakeMachine

from edgevoice.devices.root import Root
from edgevoice.exchanges import Exchange
from edgevoice.frames import Float32, ms_to_samples
from edgevoice.profiler import answering_work, energy, soak, yardstick
from edgevoice.profiler.conversation_child import sounded
from edgevoice.profiler.hearing_work import replay, spoken_part
from edgevoice.profiler.preparation_child import QUESTIONS
from edgevoice.profiler.second_load import busy
from edgevoice.profiler.tracing import Trace, span_cost_us, traced
from edgevoice.profiler.vitals import Vitals, VitalsWatch
from edgevoice.profiler.workload import Stopwatch
from edgevoice.recording import SessionRecord
from edgevoice.settings import Settings, TurnSettings
from edgevoice.stages import Cancelled, Ending, Expected, Message, Transcript, never
from edgevoice.weights import Engines


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# ---------------------------------------------------------------------------- energy


def test_rapl_counts_every_package_and_no_part_twice(tmp_path: Path) -> None:
    packages = [put(tmp_path / f"powercap/intel-rapl:{n}/energy_uj", "1000000") for n in (0, 1)]
    put(tmp_path / "powercap/intel-rapl:0:0/energy_uj", "999")
    meter = energy.find(tmp_path)
    assert isinstance(meter, energy.Meter) and meter.name == "RAPL"
    with energy.taken(meter) as reading:
        for package in packages:
            package.write_text("3500000")
    assert reading.joules == pytest.approx(5.0)


def test_a_counter_that_ran_over_gives_no_reading(tmp_path: Path) -> None:
    counter = put(tmp_path / "powercap/intel-rapl:0/energy_uj", "5000000")
    meter = energy.find(tmp_path)
    assert isinstance(meter, energy.Meter)
    with energy.taken(meter) as reading:
        counter.write_text("3")
    assert reading.joules is None


def test_a_battery_is_sampled_while_it_discharges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(energy, "_SAMPLE_S", 0.02)
    folder = tmp_path / "power_supply/BAT0"
    status = put(folder / "status", "Discharging\n")
    put(folder / "current_now", "2000000")
    put(folder / "voltage_now", "5000000")
    meter = energy.find(tmp_path)
    assert isinstance(meter, energy.Meter) and meter.name == "battery BAT0"
    with energy.taken(meter) as reading:
        time.sleep(0.2)
    assert reading.joules is not None and 0.8 < reading.joules < 4.0  # 10 W for 0.2 s
    status.write_text("Charging\n")
    assert energy.find(tmp_path) == "no RAPL, hwmon power sensor or discharging battery"


def test_a_meter_that_may_not_be_read_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "powercap/intel-rapl:0/energy_uj", "1")

    def refuse(path: Path) -> float:
        raise PermissionError(path)

    monkeypatch.setattr(energy, "_number", refuse)
    assert "RAPL is not readable by this user" in str(energy.find(tmp_path))


# ---------------------------------------------------------------------------- vitals


def test_vitals_are_read_from_sysfs(tmp_path: Path) -> None:
    put(tmp_path / "sys/class/thermal/thermal_zone0/type", "cpu-thermal")
    put(tmp_path / "sys/class/thermal/thermal_zone0/temp", "61500")
    for core, clock in enumerate(("1500000", "2400000")):
        put(tmp_path / f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq", clock)
    throttles = put(
        tmp_path / "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count", "4"
    )
    put(tmp_path / "proc/7/status", "Name:\tpython\nVmRSS:\t  204800 kB\n")
    watch = VitalsWatch(7, Root(tmp_path, lambda words: ""))
    look = watch.look()
    assert (look.temperature_c, look.clock_mhz, look.memory_mb) == (61.5, 1950.0, 200.0)
    assert look.throttled is False
    throttles.write_text("5")
    assert watch.look().throttled is True
    assert watch.look().throttled is False


def test_a_device_that_tells_nothing_is_no_failure(tmp_path: Path) -> None:
    look = VitalsWatch(7, Root(tmp_path, lambda words: "")).look()
    assert (look.temperature_c, look.clock_mhz, look.throttled, look.memory_mb) == (None,) * 4


# ---------------------------------------------------------------------------- soak


def test_memory_that_grows_is_told_by_the_minute() -> None:
    looks = [Vitals(float(s), None, None, None, 400.0 + s / 30.0) for s in range(120)]
    assert soak.memory_growth(looks) == pytest.approx(2.0)
    still = [Vitals(float(s), None, None, None, 300.0 if s < 10 else 400.0) for s in range(120)]
    assert soak.memory_growth(still) == 0.0
    assert soak.memory_growth([]) is None


def test_a_device_that_slows_down_is_told() -> None:
    assert soak.slowdown([1.0] * 6 + [1.5] * 6) == 1.5
    assert soak.slowdown([1.0, 2.0]) is None


def test_a_soak_works_until_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "LOOK_EVERY_S", 0.01)
    fake = FakeMachine(0)
    fake.pause_s = 0.02
    passed: list[float] = []
    found = soak.soak(Settings(), [Path("q")], 0.4, passed.append, fake)
    assert found["duration_s"] >= 0.4
    assert sum(passed) == pytest.approx(found["duration_s"], rel=0.2)
    assert len(found["vitals"]) >= 1 and len(found["conversations"]) == len(passed)
    assert found["vitals"][0]["memory_mb"] > 0  # of process 1


# ---------------------------------------------------------------------------- second load


def test_the_second_load_is_busy_and_ends() -> None:
    def ticks(pid: int) -> int:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11])

    with busy(1) as (pid,):
        ends = time.monotonic() + 30.0
        while (found := ticks(pid)) < 3 and time.monotonic() < ends:
            time.sleep(0.02)
        assert found >= 3
    assert not Path(f"/proc/{pid}").exists()


# ---------------------------------------------------------------------------- spans


class _Engine:
    """Every stage at once; pieces come one by one."""

    sample_rate_hz = 16_000
    context_tokens = 100

    def open(self) -> _Engine:
        return self

    def close(self) -> None: ...

    def draft(self) -> None: ...

    def glance(self) -> Transcript:
        return self.conclude()

    def conclude(self, expected: Expected = "turn") -> Transcript:
        return Transcript("hello")

    def partial(self) -> Transcript | None:
        return None

    def probability(self, samples: Float32) -> float:
        return 0.5

    def prefill(self, messages: Sequence[Message], cancelled: Cancelled = never) -> int:
        return 3

    def ending(self, messages: Sequence[Message], cancelled: Cancelled = never) -> Ending | None:
        return None

    def begin(self, messages: Sequence[Message], cancelled: Cancelled = never) -> Ending | None:
        return None

    def generate(self, messages: Sequence[Message], cancelled: Cancelled = never) -> Iterator[str]:
        yield from ("a", "b")

    def synthesise(self, text: str, cancelled: Cancelled = never) -> Iterator[Float32]:
        yield from (np.zeros(4, np.float32), np.ones(4, np.float32))


def test_spans_nest_by_thread_and_engines_pass_everything_on() -> None:
    trace = Trace()
    engine = _Engine()
    engines = traced(Engines(engine, engine, engine, engine, engine), trace)  # type: ignore[arg-type]
    assert engines.recogniser.open().conclude().text == "hello"
    assert engines.end_of_turn is not None and engines.end_of_turn.probability(np.zeros(1)) == 0.5
    assert list(engines.language_model.open().generate([])) == ["a", "b"]
    other = threading.Thread(target=lambda: list(engines.speech.synthesise("x")))
    with trace.span("conversation", "around"):
        other.start()
        other.join()
    named = [
        (s.stage, s.name, trace.spans[s.parent].name if s.parent >= 0 else "") for s in trace.spans
    ]
    assert ("recogniser", "final text", "") in named
    assert named.count(("language-model", "token", "answer")) == 3  # the end is looked for as well
    assert ("speech", "clause", "") in named  # of another thread than "around"
    assert named.count(("speech", "sound", "clause")) == 3
    assert all(0 < span.begin_ns <= span.end_ns for span in trace.spans)


def test_an_answer_that_is_cut_off_closes_its_span() -> None:
    trace = Trace()
    engine = _Engine()
    engines = traced(Engines(engine, engine, None, engine, engine), trace)  # type: ignore[arg-type]
    pieces = engines.language_model.open().generate([])
    next(pieces)
    del pieces
    assert all(span.end_ns for span in trace.spans)
    with trace.span("vad", "later"):
        pass
    assert trace.spans[-1].parent == -1


def test_a_spans_own_cost_is_measured() -> None:
    assert 0.05 < span_cost_us() < 1000.0


# ---------------------------------------------------------------------------- workloads


def test_waiting_for_a_core_is_told_from_sleeping() -> None:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        watch = Stopwatch()
        time.sleep(0.05)
        wall_ms, free_ms = watch.ms
        assert 50.0 <= free_ms <= wall_ms
        with busy(2):  # on the same core, which children inherit
            time.sleep(0.2)
            watch = Stopwatch()
            before_s = time.thread_time()
            while time.thread_time() - before_s < 0.03:
                pass
            wall_ms, free_ms = watch.ms
    finally:
        os.sched_setaffinity(0, cores)
    assert free_ms >= 29.0
    assert wall_ms - free_ms > 0.2 * wall_ms


class _Hearing:
    """A recogniser with a partial for every half second, and a conclusion that takes 20 ms."""

    def __init__(self) -> None:
        self.heard = 0
        self.asked = 0

    def accept(self, samples: Float32) -> None:
        self.heard += samples.size

    def partial(self) -> Transcript | None:
        self.asked += 1
        return Transcript("so far") if self.heard % 8000 == 0 else None

    def draft(self) -> None: ...

    def glance(self) -> Transcript:
        return self.conclude()

    def conclude(self, expected: Expected = "turn") -> Transcript:
        time.sleep(0.02)
        return Transcript("all")

    def endpoint(self) -> bool:
        return False

    def reset(self) -> None:
        self.heard = 0


def test_a_replay_has_the_times_of_a_microphone_and_takes_less() -> None:
    began = time.monotonic()
    hearing = _Hearing()
    found = replay(hearing, np.zeros(ms_to_samples(1950.0), np.float32))
    assert time.monotonic() - began < 1.0
    assert hearing.asked == 19  # not in the silence after the last piece
    assert found["first_partial_ms"][0] == pytest.approx(500.0, abs=30)
    assert 0 <= found["partial_ms"][0] < 30
    assert 20.0 <= found["final_ms"][1] <= found["final_ms"][0] < 100.0


def test_the_spoken_part_begins_and_ends_loud() -> None:
    sound = np.concatenate([np.zeros(100), np.full(50, 0.5), np.zeros(30)]).astype(np.float32)
    assert spoken_part(sound).size == 50
    assert spoken_part(np.zeros(5, np.float32)).size == 5


def test_what_a_model_reads_and_writes_is_counted() -> None:
    found = answering_work.answer(_Engine(), [answering_work.QUESTION])  # type: ignore[arg-type]
    assert (found.evaluated_tokens, found.decoded_tokens) == (3, 1)
    assert 0 < found.prefill_ms[0] <= found.first_token_ms[0]


def test_there_is_a_question_in_every_language() -> None:
    import dataclasses

    (language,) = (f for f in dataclasses.fields(TurnSettings) if f.name == "language")
    assert set(QUESTIONS) == set(language.metadata["choices"])


def test_the_yardstick_takes_some_milliseconds() -> None:
    assert 0.5 < yardstick.work_ms()[1] < 2000.0


# ---------------------------------------------------------------------------- what is heard


def tone(*stretches: tuple[float, float], length_ms: float = 12_000.0) -> np.ndarray:
    track = np.zeros(ms_to_samples(length_ms), np.int16)
    for begin_ms, end_ms in stretches:
        track[ms_to_samples(begin_ms) : ms_to_samples(end_ms)] = 5000
    return track


def exchange(speech_end_ms: float, closed_ms: float) -> Exchange:
    return Exchange("?", "!", "", False, speech_end_ms, closed_ms)


def test_voice_to_voice_is_the_silence_between_two_voices() -> None:
    record = SessionRecord(
        tone((1000, 1800), (2100, 3000), (8000, 9000)), tone((3600, 6000), (9500, 11000)), (), False
    )
    first = sounded(record, exchange(3050.0, 6000.0))
    assert first == {"speech_began_ms": 1000.0, "voice_to_voice_ms": 600.0}
    second = sounded(record, exchange(9010.0, 11000.0))
    assert second == {"speech_began_ms": 8000.0, "voice_to_voice_ms": 500.0}


def test_a_question_without_an_answer_has_no_time() -> None:
    record = SessionRecord(tone((1000, 3000)), tone(), (), False)
    assert sounded(record, exchange(3050.0, 6000.0)) == {
        "speech_began_ms": 1000.0,
        "voice_to_voice_ms": None,
    }
    nobody = SessionRecord(tone(), tone(), (), False)
    assert sounded(nobody, exchange(3050.0, 6000.0))["voice_to_voice_ms"] is None
