"""The search for good settings: what is tried, what wins, what becomes of it."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import machines
import numpy as np
import pytest
from measuring import FakeChild, FakeMachine

from edgevoice import affinity, config, host, loading, manifest
from edgevoice.affinity import Pin
from edgevoice.devices import defaults
from edgevoice.devices.profile import load_profile
from edgevoice.errors import ConfigError, EngineError
from edgevoice.frames import Float32
from edgevoice.manifest import Manifest
from edgevoice.profiler import candidates, tuned_profile, tuning
from edgevoice.profiler.candidates import Candidate, Choice, choices, thread_counts
from edgevoice.profiler.children import STAGE, Child
from edgevoice.profiler.race import race
from edgevoice.profiler.spread import Ratio
from edgevoice.settings import Settings
from edgevoice.stages import Cancelled, never
from edgevoice.store import Store


def threads(stage: str, count: int) -> Candidate:
    section = candidates.SECTIONS[stage]
    return Candidate(stage, "threads", str(count), f"{section}.threads={count}", count)


LANGUAGE_MODEL = Choice(
    "language-model", "threads", tuple(threads("language-model", n) for n in (1, 2, 4))
)
SPEECH = Choice("speech", "threads", (threads("speech", 2),))


def threads_matter(best: int, in_conversation: float = 0.7) -> Callable[[Settings, str], float]:
    """A machine on which the language model wants so many threads."""

    def factor(settings: Settings, stage: str) -> float:
        if settings.language_model.threads != best:
            return 1.0
        return {"language-model": 0.7, "conversation": in_conversation}.get(stage, 1.0)

    return factor


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def set_choices(*offered: Choice) -> None:
        by_kind = {(choice.stage, choice.kind): choice.candidates for choice in offered}
        monkeypatch.setattr(candidates, "choices", lambda settings, store: iter(offered))
        monkeypatch.setattr(
            candidates, "of", lambda settings, stage, kind, store: by_kind[stage, kind]
        )

    return set_choices


def search(fake: FakeMachine, told: list[str] | None = None) -> tuning.Tuned:
    # Conversations of a fake take no time: they end by their number.
    lines: list[str] = [] if told is None else told
    return tuning.tune(Settings(), [Path("q")], 30.0, lines.append, fake)


# ---------------------------------------------------------------------------- the search


def test_the_search_finds_what_is_faster_and_shows_what_it_gained(
    offer: Callable[..., None],
) -> None:
    offer(LANGUAGE_MODEL, SPEECH)
    told: list[str] = []
    fake = FakeMachine(5, factor=threads_matter(2))
    tuned = search(fake, told)
    assert [c.assignment for c in tuned.chosen] == ["language_model.threads=2"]
    assert tuned.gains and tuned.voice_to_voice is not None
    low, high = tuned.voice_to_voice.interval()
    assert low < 0.7 < high < 0.8
    assert tuned.after_ms < 0.8 * tuned.before_ms
    assert tuned.verdict.startswith("a gain: with language-model: threads 2, voice-to-voice")
    assert len(told) == 4 and fake.running == 0


def test_the_search_admits_that_the_default_is_best_and_gives_the_interval(
    offer: Callable[..., None],
) -> None:
    offer(LANGUAGE_MODEL)
    tuned = search(FakeMachine(6))
    assert not tuned.gains and len(tuned.chosen) == 1
    assert not any(trial.adopted for trial in tuned.trials)
    assert len(tuned.trials) == 3 and not tuned.unfinished
    assert tuned.voice_to_voice is not None
    low, high = tuned.voice_to_voice.interval()
    assert low < 1.0 < high and tuned.pairs >= 6
    assert "the default is already best within noise" in tuned.verdict
    assert f"({low:.3f} to {high:.3f})" in tuned.verdict


def test_what_wins_alone_and_loses_in_conversation_is_no_gain(offer: Callable[..., None]) -> None:
    offer(LANGUAGE_MODEL)
    tuned = search(FakeMachine(7, factor=threads_matter(2, in_conversation=1.2)))
    assert any(trial.adopted for trial in tuned.trials)
    assert not tuned.gains and "already best" in tuned.verdict


def test_of_several_winners_the_set_is_kept_that_conversations_gain_by(
    offer: Callable[..., None],
) -> None:
    """The voice's threads win alone and steal the cores of everything else in a conversation."""

    def factor(settings: Settings, stage: str) -> float:
        found = 1.0
        if settings.language_model.threads == 2 and stage in ("language-model", "conversation"):
            found *= 0.7
        if settings.speech.threads == 2:
            found *= {"speech": 0.6, "conversation": 1.6}.get(stage, 1.0)
        return found

    offer(LANGUAGE_MODEL, SPEECH)
    tuned = search(FakeMachine(8, factor=factor))
    assert {str(t.candidate) for t in tuned.trials if t.adopted} == {
        "language-model: threads 2",
        "speech: threads 2",
    }
    assert tuned.gains and [str(c) for c in tuned.chosen] == ["language-model: threads 2"]


def test_the_search_keeps_to_its_time(
    offer: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(LANGUAGE_MODEL, SPEECH)
    clock = iter(range(0, 10_000_000, 4))
    monkeypatch.setattr(tuning.time, "monotonic", lambda: float(next(clock)))
    tuned = search(FakeMachine(7))
    assert tuned.unfinished and len(tuned.trials) < 4
    assert tuned.voice_to_voice is not None  # the time that is left proves something all the same


def test_where_nothing_is_open_nothing_is_claimed(offer: Callable[..., None]) -> None:
    offer()
    tuned = search(FakeMachine(9))
    assert not tuned.gains and "the default stays" in tuned.verdict


def test_slow_candidates_leave_the_race_early() -> None:
    asked: dict[int, int] = {}

    class Counting(FakeMachine):
        def __call__(self, module: str, settings: Settings, **request: object) -> FakeChild:
            child = super().__call__(module, settings, **request)
            plain = child.ask

            def ask(**wanted: Any) -> dict[str, Any]:
                count = settings.language_model.threads
                asked[count] = asked.get(count, 0) + 1
                return plain(**wanted)

            child.ask = ask  # type: ignore[method-assign]
            return child

    fake = Counting(1, factor=threads_matter(2))
    trials = list(race(Settings(), LANGUAGE_MODEL, "q", 30.0, level=0.98, open_child=fake))
    assert [trial.adopted for trial in trials] == [False, True, False]
    assert sorted((asked[1], asked[4])) == [3, 6] and asked[2] == asked[0] >= 6


def test_a_candidate_that_does_not_load_or_runs_elsewhere_is_told_and_passed_over() -> None:
    def provider(name: str) -> Candidate:
        assignment = f'end_of_turn.providers=["{name}", "cpu"]'
        return Candidate("end-of-turn", "provider", name, assignment, (name, "cpu"))

    class Failing(FakeMachine):
        def __call__(self, module: str, settings: Settings, **request: object) -> FakeChild:
            if settings.end_of_turn.providers[0] == "xnnpack":
                raise EngineError("measuring end-of-turn crashed")
            return super().__call__(module, settings, **request)

    choice = Choice("end-of-turn", "provider", (provider("xnnpack"), provider("qnn")))
    trials = list(race(Settings(), choice, "q", 30.0, level=0.98, open_child=Failing(1)))
    assert [trial.failure for trial in trials] == [
        "measuring end-of-turn crashed",
        "ran on cpu; qnn: onnxruntime-qnn is not installed",
    ]
    assert not any(trial.adopted for trial in trials)


# ---------------------------------------------------------------------------- candidates


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    made = {
        "silero-vad": ("vad", "a", "fp32", "onnx", {}),
        "smart-turn-v3.2": ("end-of-turn", "b", "int8", "onnx", {}),
        "whisper-tiny.en-int8": ("recogniser", "c", "int8", "onnx", {}),
        "whisper-tiny.en-fp32": ("recogniser", "c", "fp32", "onnx", {}),
        "whisper-base.en-fp32": ("recogniser", "d", "fp32", "onnx", {}),
        "smollm2-135m-instruct-q8_0": ("language-model", "e", "q8_0", "gguf", {}),
        "piper-en_US-joe-medium-int8": ("speech", "f", "int8", "onnx", {"decoder": "d.onnx"}),
    }
    root = tmp_path / "models"
    for name, (stage, source, scheme, kind, engine) in made.items():
        (root / name).mkdir(parents=True)
        described = Manifest(name, stage, "f", kind, scheme, "MIT", source, (), engine=engine)
        manifest.write(described, root / name)
    monkeypatch.setattr(host, "cores", lambda: 2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1})
    return Store(root)


def test_candidates_are_what_two_alike_cores_and_this_store_leave_open(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    # As after another test has loaded the plugin: no artifact here has a binary for it.
    built = ["QNNExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: built)
    root = machines.x86(tmp_path / "x86")
    found = {(c.stage, c.kind): c.candidates for c in choices(Settings(), store, root)}
    named = {key: [c.assignment for c in each] for key, each in found.items()}
    assert [c.kind for c in choices(Settings(), store, root)][:5] == ["threads"] * 4 + ["scheme"]
    assert named["recogniser", "scheme"] == ['recogniser.model="whisper-tiny.en-fp32"']
    assert named["language-model", "threads"] == ["language_model.threads=2"]
    assert named["speech", "chunk"] == [
        "speech.first_chunk_ms=175.0",
        "speech.first_chunk_ms=700.0",
    ]
    longest = config.override(Settings(), ["speech.first_chunk_ms=2000"])
    (half,) = candidates.of(longest, "speech", "chunk", store)
    assert half.setting == 1000.0
    assert not [key for key in named if key[1] == "provider"]
    assert thread_counts(4) == [1, 2, 3, 4]
    for assignments in named.values():
        for assignment in assignments:
            assert config.override(Settings(), [assignment]) != Settings()


def test_providers_that_this_onnxruntime_has_are_candidates_of_graphs_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    built = ["XnnpackExecutionProvider", "AzureExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: built)
    (found,) = candidates.of(Settings(), "speech", "provider", store)
    assert found.assignment == 'speech.providers=["xnnpack", "cpu"]'
    assert candidates.of(Settings(), "language-model", "provider", store) == ()  # a GGUF
    elsewhere = config.override(Settings(), ['speech.providers=["xnnpack", "cpu"]'])
    assert [c.value for c in candidates.of(elsewhere, "speech", "provider", store)] == ["cpu"]


def test_kinds_of_cores_are_candidates_where_there_are_enough_of_them(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    root = machines.rk3588(tmp_path / "rk")
    of = candidates.of(Settings(), "speech", "cores", store, root)
    assert {c.value for c in of} == {"4-7", "0-3"}
    six = config.override(Settings(), ["speech.threads=6"])
    assert candidates.of(six, "speech", "cores", store, root) == ()
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {4, 5, 6, 7})
    assert [c.value for c in candidates.of(Settings(), "speech", "cores", store, root)] == [
        *("4", "5", "6", "7"),
    ]


# ---------------------------------------------------------------------------- the profile


def test_every_kind_of_choice_takes_effect_through_the_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = (
        threads("language-model", 1),
        Candidate("recogniser", "scheme", "fp32", 'recogniser.model="mine"', "mine"),
        Candidate("speech", "provider", "xnnpack", "", ("xnnpack", "cpu")),
        Candidate("speech", "cores", "0", 'speech.cores="0"', "0"),
        Candidate("speech", "chunk", "175 ms", "speech.first_chunk_ms=175.0", 175.0),
    )
    tuned = tuning.Tuned((), chosen, Ratio(0.9, 0.01, 9.0), 600.0, 540.0, 9)
    path = tmp_path / "devices" / "mine.toml"
    tuned_profile.save(path, tuned_profile.text(tuned, "x86-64", "2026-11-22"))
    assert tuning.NOT_JUDGED in path.read_text() and "600 -> 540 ms" in path.read_text()
    saved = load_profile(str(path))
    assert saved.inherits == "x86-64" and saved.budgets_ms

    own = tmp_path / "edgevoice.toml"
    own.write_text("[language_model]\nthreads = 2\n")
    monkeypatch.setenv("EDGEVOICE_CONFIG", str(own))
    found = defaults.load(device="mine")
    assert found.recogniser.model == "mine"
    assert (found.speech.providers, found.speech.cores) == (("xnnpack", "cpu"), "0")
    assert found.speech.first_chunk_ms == 175.0
    assert found.end_of_turn.providers == ("cpu",)
    real = tuning.Tuned((), (chosen[0], chosen[3]))
    assert list(tuned_profile.ineffective(real, found)) == [
        "your configuration sets language_model.threads, which wins over the profile: take it out "
        "there"
    ]


def test_a_search_on_a_machine_of_no_known_kind_stands_alone(tmp_path: Path) -> None:
    tuned = tuning.Tuned((), (threads("speech", 2),), Ratio(0.9, 0.01, 9.0), 600.0, 540.0, 9)
    path = tmp_path / "mine.toml"
    tuned_profile.save(path, tuned_profile.text(tuned, "", "2026-11-22"))
    assert load_profile(str(path)).threads == {"tts": 2}


# ---------------------------------------------------------------------------- cores


@pytest.mark.parametrize("text", ["fast", "3-", "-1", "4-2", "0;1", "99999"])
def test_what_is_no_list_of_cores_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="as taskset takes them"):
        Pin("speech", text)
    path = tmp_path / "mine.toml"
    path.write_text(f'inherits = "x86-64"\n[cores]\ntts = "{text}"\n')
    with pytest.raises(ConfigError, match=r"cores\.tts"):
        load_profile(str(path))


def test_a_pin_holds_the_calling_thread_alone_and_what_it_starts() -> None:
    before = os.sched_getaffinity(0)
    core = min(before)
    seen: list[set[int]] = []
    with Pin("speech", affinity.text(frozenset({core}))).held():
        seen.append(os.sched_getaffinity(0))
        inner = threading.Thread(target=lambda: seen.append(os.sched_getaffinity(0)))
        inner.start()
        inner.join()
    assert seen == [{core}, {core}]
    assert os.sched_getaffinity(0) == before


def test_cores_that_are_refused_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    before = os.sched_getaffinity(0)
    pin = Pin("speech", "4000")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            with pin.held():
                assert os.sched_getaffinity(0) == before
    (record,) = caplog.records
    assert "speech cannot be kept on cores 4000" in record.getMessage()
    assert "it runs on any" in record.getMessage()


def test_a_real_stage_and_all_its_threads_stay_on_its_core(
    artifact: Callable[[str], Path], tmp_path: Path
) -> None:
    from edgevoice.audio.wav import write_wav

    artifact("smart-turn-v3.2")
    question = tmp_path / "question.wav"
    noise = np.random.default_rng(0).integers(-3000, 3000, 16_000)
    write_wav(question, noise.astype(np.int16), 16_000)
    core = max(os.sched_getaffinity(0))
    pinned = config.override(Settings(), [f'end_of_turn.cores="{core}"', "end_of_turn.threads=2"])
    with Child(STAGE, pinned, stage="end-of-turn", speech=str(question)) as child:
        assert child.ask(samples=1)["samples"]
        tasks = list(Path(f"/proc/{child.pid}/task").iterdir())
        allowed = [
            line.split()[1]
            for task in tasks
            for line in (task / "status").read_text().splitlines()
            if line.startswith("Cpus_allowed_list")
        ]
    assert child.first["ran_on"]["name"] == "cpu"
    assert allowed.count(str(core)) >= 2  # those of numpy's library came before


class _Voice:
    """A voice that tells the cores on which each piece of its sound is made."""

    sample_rate_hz = 16_000

    def __init__(self) -> None:
        self.loaded_on = os.sched_getaffinity(0)

    def synthesise(self, text: str, cancelled: Cancelled = never) -> Iterator[Float32]:
        del text, cancelled
        for _ in range(2):
            yield np.array(sorted(os.sched_getaffinity(0)), np.float32)

    def close(self) -> None: ...


def test_a_pinned_stage_is_loaded_and_works_on_its_cores_and_its_caller_does_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before, core = os.sched_getaffinity(0), max(os.sched_getaffinity(0))
    voices: list[_Voice] = []

    def load_voice(folder: Path, settings: object) -> _Voice:
        voices.append(_Voice())
        return voices[-1]

    for name in ("load_vad", "load_passes", "load_end_of_turn", "load_language_model"):
        monkeypatch.setattr(loading, name, lambda *given, **named: object())
    monkeypatch.setattr(loading, "load_speech", load_voice)
    monkeypatch.setattr(Store, "path", lambda store, name: tmp_path)
    pinned = config.override(Settings(), [f'speech.cores="{core}"'])
    engines = loading.load_engines(pinned, Store(tmp_path))
    assert voices[0].loaded_on == {core}
    for cores in engines.speech.synthesise("x"):
        assert list(cores) == [core]
        assert os.sched_getaffinity(0) == before
    assert isinstance(loading.load_engines(Settings(), Store(tmp_path)).speech, _Voice)
    with pytest.raises(ConfigError, match=r"speech\.cores = 'all'"):
        loading.load_engines(config.override(Settings(), ['speech.cores="all"']), Store(tmp_path))


def test_a_scheme_is_judged_less_the_waiting_for_a_core_and_threads_with_it() -> None:
    class Waiting(FakeMachine):
        """All wait for cores that others have, the candidate longer than the present choice."""

        def __call__(self, module: str, settings: Settings, **request: object) -> FakeChild:
            child = super().__call__(module, settings, **request)
            plain, present = child.ask, settings == Settings()

            def ask(**wanted: Any) -> dict[str, Any]:
                answer = plain(**wanted)
                (free,) = answer["free"]
                waited_ms = 200.0 if present else 500.0
                return {
                    **answer,
                    "samples": [{k: ms + waited_ms for k, ms in free.items()}],
                }

            child.ask = ask  # type: ignore[method-assign]
            return child

    def factor(settings: Settings, stage: str) -> float:
        return 1.0 if settings.speech == Settings().speech else 0.7

    scheme = Candidate("speech", "scheme", "fp32", 'speech.model="mine"', "mine")
    for candidate, adopted in ((scheme, True), (threads("speech", 2), False)):
        choice = Choice("speech", candidate.kind, (candidate,))
        fake = Waiting(1, factor=factor)
        (trial,) = race(Settings(), choice, "q", 30.0, level=0.95, open_child=fake)
        assert trial.adopted is adopted
