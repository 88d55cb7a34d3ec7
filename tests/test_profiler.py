"""The profiler's rounds, files, comparisons, budgets and pages, on processes that are fakes."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from measuring import SPANS, FakeMachine

from edgevoice import config
from edgevoice.cli import main
from edgevoice.devices.profile import DeviceProfile
from edgevoice.errors import ConfigError, EngineError
from edgevoice.profiler import machine, profiling, rounds
from edgevoice.profiler.budgets import FIGURE_OF, judge
from edgevoice.profiler.children import STAGE, Child
from edgevoice.profiler.compare import compare
from edgevoice.profiler.figures import FIGURES, STAGES, YARDSTICK
from edgevoice.profiler.page import render
from edgevoice.profiler.profile_file import SCHEMA_VERSION, Profile, dump, load
from edgevoice.profiler.rounds import Plan, measure
from edgevoice.profiler.table import comparison_lines, profile_lines
from edgevoice.profiler.waterfall import bars, middle
from edgevoice.settings import Settings

X86 = DeviceProfile("x86-64", "x86", "x86_64", budgets_ms={"end_of_turn": 65.0})


@pytest.fixture(autouse=True)
def no_store(monkeypatch: pytest.MonkeyPatch) -> None:
    models = {
        "vad": {"name": "v", "family": "f", "scheme": "s", "manifest_sha256": "0", "files": {}}
    }
    monkeypatch.setattr(machine, "models", lambda settings, store: models)
    draw = FakeMachine(99).draw
    monkeypatch.setattr(rounds.yardstick, "work_ms", lambda: np.full(2, 10.0 * draw(0.03)))


def profiled(seed: int, device: DeviceProfile | None = None, **slower_ms: float) -> Profile:
    slower = {name.replace("_", "-"): ms for name, ms in slower_ms.items()}
    return profiling.run(Settings(), device, open_child=FakeMachine(seed, slower))


# ---------------------------------------------------------------------------- rounds


def test_every_round_takes_every_stage_and_begins_with_another(tmp_path: Path) -> None:
    fake = FakeMachine(0)
    seen: list[str] = []
    found = measure(Settings(), [tmp_path / "q.wav"], Plan(rounds=4), seen.append, fake)
    number = len(STAGES)
    each = [seen[i : i + number] for i in range(0, len(seen), number)]
    assert [sorted(row) for row in each] == [sorted(STAGES)] * 4
    assert [row[0] for row in each] == list(STAGES[:4])
    assert found.rounds == 4
    assert fake.running == 0
    assert all(len(series) == 4 for series in found.samples.values())
    assert set(found.samples) == set(FIGURES) - {
        *("conversation.energy_j", "conversation.transcribed_ms"),
        *("conversation.first_token_ms", "conversation.first_audio_ms"),
    }


@pytest.mark.parametrize(("limit_s", "expected"), [(1, 1), (30, 2), (70, 3), (190, 9)])
def test_rounds_end_in_time(monkeypatch: pytest.MonkeyPatch, limit_s: float, expected: int) -> None:
    now_s = 0.0

    class Slow(FakeMachine):
        def __call__(self, *given: Any, **named: Any) -> Any:
            nonlocal now_s
            now_s += 20.0
            return super().__call__(*given, **named)

    monkeypatch.setattr(rounds.time, "monotonic", lambda: now_s)
    plan = Plan(rounds=50, limit_s=limit_s, stages=("vad",))
    found = measure(Settings(), [Path("q")], plan, str, Slow(0))
    assert (found.rounds, found.took_s) == (expected, expected * 20.0)


def test_a_stage_that_cannot_be_measured_says_why_once() -> None:
    fake = FakeMachine(0, absent=("echo-canceller",))
    found = measure(Settings(), [Path("q")], Plan(rounds=3), str, fake)
    assert found.not_measured["echo-canceller"] == "no echo-canceller here"
    assert "echo-canceller" not in fake.asked
    assert not any(key.startswith("echo-canceller") for key in found.not_measured if "." in key)
    assert found.not_measured["conversation.energy_j"]


# ---------------------------------------------------------------------------- files


def test_a_profile_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    profile = profiled(1, X86)
    path = tmp_path / "a.json"
    path.write_text(dump(profile))
    assert load(path) == profile
    data = json.loads(path.read_text())
    figure = data["figures"]["recogniser.final_ms"]
    assert figure["count"] == sum(map(len, figure["rounds"])) == 16
    assert figure["p50"]["low"] < figure["p50"]["value"] < figure["p50"]["high"]
    assert data["overhead"]["spans_a_turn"] == len(SPANS)
    assert data["host"]["cores"] and data["versions"]["numpy"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nonsense", "not JSON"),
        ("[]", "no profile"),
        ('{"schema": "edgevoice-profile", "schema_version": 99}', f"reads {SCHEMA_VERSION}"),
        ('{"schema": "edgevoice-profile", "schema_version": 1}', "not a whole profile"),
    ],
)
def test_other_files_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, told: str
) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    assert main(["profile", "compare", str(path), str(path)]) == 2
    said = capsys.readouterr().err
    assert told in said and said.count("\n") == 1 and str(path) in said


# ---------------------------------------------------------------------------- comparison


def test_two_runs_agree_and_every_planted_sleep_is_named() -> None:
    first = profiled(1)
    assert compare(first, profiled(2)).worse_stages == ()
    for stage in ("vad", "recogniser", "end-of-turn", "language-model", "speech"):
        found = compare(first, profiled(3, **{stage.replace("-", "_"): 30.0}))
        assert stage in found.worse_stages
        assert set(found.worse_stages) <= {stage, "conversation"}


def test_false_alarms_are_rare_over_many_runs() -> None:
    profiles = [profiled(seed) for seed in range(10, 18)]
    alarms = [compare(a, b).worse_stages for a, b in itertools.pairwise(profiles)]
    assert alarms == [()] * len(alarms)


def test_faster_is_better_where_more_is_better() -> None:
    slow, fast = profiled(1, language_model=60.0), profiled(2)
    verdicts = {change.key: change.verdict for change in compare(slow, fast).changes}
    assert verdicts["language-model.decode_tokens_per_s"] == "better"
    assert compare(fast, slow).worse_stages[0] == "language-model"


def test_a_machine_that_is_slower_as_a_whole_is_no_regression() -> None:
    first = profiled(1)
    slowed = {
        key: [[x / 1.5 if "per_s" in key else x * 1.5 for x in row] for row in series]
        for key, series in profiled(2).samples.items()
        if FIGURES[key].unit != "MiB"
    }
    second = _with_samples(first, slowed)
    found = compare(first, second)
    assert found.yardstick is not None and found.yardstick.ratio > 1.3
    assert found.worse_stages == ()


def test_memory_counts_whatever_the_machine_does() -> None:
    first = profiled(1)
    second = _with_samples(first, {"speech.memory_mb": [[90.0]] * 8})
    assert compare(first, second).worse_stages == ("speech",)


def test_the_command_compares_and_exits_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / name for name in ("a.json", "b.json", "c.json")]
    for path, profile in zip(
        paths, (profiled(1), profiled(2), profiled(3, end_of_turn=30.0)), strict=True
    ):
        path.write_text(dump(profile))
    a, b, c = map(str, paths)
    assert main(["profile", "compare", a, b]) == 0
    assert "nothing is worse beyond the noise" in capsys.readouterr().out
    assert main(["profile", "compare", a, c]) == 1
    assert "end-of-turn" in capsys.readouterr().err
    assert main(["profile", "compare", a, c, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["worse_stages"][0] == "end-of-turn"
    judged = {change["key"]: change for change in found["changes"]}["end-of-turn.judge_ms"]
    assert 1 < judged["low"] < judged["ratio"] < judged["high"]


def test_what_else_differs_is_told() -> None:
    first = profiled(1)
    second = profiling.run(
        config.override(Settings(), ["speech.threads=2"]),
        None,
        open_child=FakeMachine(2),
    )
    found = compare(first, second)
    assert found.differences == ("setting speech.threads: 0 -> 2",)
    assert any("speech.threads" in line for line in comparison_lines(found))


def _with_samples(profile: Profile, samples: dict[str, list[list[float]]]) -> Profile:
    fields = {name: getattr(profile, name) for name in Profile.__dataclass_fields__}
    del fields["estimates"]
    return Profile(**{**fields, "samples": {**profile.samples, **samples}, "free": {}})


def crowded_profile(seed: int, slower_ms: float = 0.0) -> Profile:
    """A busy machine's: most rounds are slowed by other work, each by another factor.

    The yardstick is slowed by factors of its own: other work does not slow all work alike.
    """
    random = np.random.default_rng(seed)
    profile = profiled(seed, **({"end_of_turn": slower_ms} if slower_ms else {}))
    frees = {}
    for key, series in profile.free.items():
        crowds = np.where(random.random(len(series)) < 0.6, random.uniform(1, 2, len(series)), 1)
        within = [
            np.where(random.random(len(row)) < 0.5, crowd, 1.0)
            for row, crowd in zip(series, crowds, strict=True)
        ]
        frees[key] = [
            [x / f if "per_s" in key else x * f for x, f in zip(row, factors, strict=True)]
            for row, factors in zip(series, within, strict=True)
        ]
    fields = {name: getattr(profile, name) for name in Profile.__dataclass_fields__}
    del fields["estimates"]
    return Profile(**{**fields, "free": frees})


def test_a_busy_machine_hides_no_sleep_and_makes_no_alarm() -> None:
    plain = [crowded_profile(seed) for seed in range(20, 25)]
    slow = [crowded_profile(seed, 30.0) for seed in range(30, 33)]
    for a, b in itertools.pairwise(plain):
        assert compare(a, b).worse_stages == ()
    for a, b in zip(plain, slow, strict=False):
        assert compare(a, b).worse_stages[0] == "end-of-turn"


def test_the_yardsticks_noise_does_not_count_and_its_change_does() -> None:
    first, second = profiled(1), profiled(3, end_of_turn=30.0)
    noisy = {YARDSTICK: [[x * f] for x, f in zip([2.0] * 8, [1, 3, 1, 2, 1, 3, 2, 3], strict=True)]}
    slow = {YARDSTICK: [[3.6], [3.61], [3.59], [3.6], [3.62], [3.6], [3.61], [3.6]]}
    even = {YARDSTICK: [[2.0], [2.01], [1.99], [2.0], [2.02], [2.0], [2.01], [2.0]]}
    before = _with_samples(first, even)
    assert "end-of-turn" in compare(before, _with_samples(second, noisy)).worse_stages
    assert compare(before, _with_samples(second, slow)).worse_stages == ()


def test_what_slows_most_calls_is_seen_though_the_best_of_each_round_is_as_it_was() -> None:
    first, second = profiled(1), profiled(2)
    key = "speech.first_sound_ms"
    some = [[row[0], *(x * 2.0 for x in row[1:])] for row in second.free[key]]
    fields = {name: getattr(second, name) for name in Profile.__dataclass_fields__}
    del fields["estimates"]
    found = compare(first, Profile(**{**fields, "free": {**second.free, key: some}}))
    (change,) = found.regressions
    assert (change.key, change.view) == (key, "as a rule")


# ---------------------------------------------------------------------------- budgets


def test_a_missed_budget_names_value_and_bound() -> None:
    kept, missed = (profiled(1, X86).budgets[0], profiled(1, X86, end_of_turn=30.0).budgets[0])
    assert not kept.missed and "end_of_turn: kept" in str(kept)
    assert missed.missed and missed.value is not None and missed.value > 80
    assert str(missed).startswith("end_of_turn: missed, ") and "bound 65 ms" in str(missed)


def test_the_command_exits_with_1_when_a_budget_is_missed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(profiling, "choose", lambda *given: (X86, Settings()))
    profiles = profiled(1, X86), profiled(1, X86, end_of_turn=30.0)
    for code, profile in enumerate(profiles):
        monkeypatch.setattr(profiling, "run", lambda *_, _found=profile, **__: _found)
        out, page = tmp_path / "a.json", tmp_path / "a.html"
        assert main(["profile", "--json", str(out), "--html", str(page)]) == code
        assert f"budget end_of_turn: {'missed' if code else 'kept'}" in capsys.readouterr().out
        assert load(out) == profile and page.stat().st_size > 10_000


def test_every_budget_of_a_profile_has_a_figure() -> None:
    from edgevoice.devices.profile import BUDGETS

    assert set(FIGURE_OF) == {*BUDGETS, "memory_budget_mb"}
    assert set(FIGURE_OF.values()) <= set(FIGURES)


def test_a_budget_without_a_figure_is_not_missed() -> None:
    (budget,) = judge(X86, {})
    assert not budget.missed and "not measured" in str(budget)


# ---------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--device", "raspberry-pi-6"], "did you mean 'raspberry-pi-"),
        (["--bundle", "defualt"], "did you mean 'default'"),
        (["--set", "speech.treads=2"], "did you mean 'threads'"),
        (["--json", "/no/such/folder/a.json"], "no folder"),
        (["--stage", "vda"], "did you mean 'vad'"),
        (["--tune", "--out", "x86-64"], "comes with edgevoice"),
        (["--tune", "--out", "My Device"], "lower-case"),
        (["--tune", "--out", "mine"], "was written by hand"),
        (["--tune", "--out", "mine", "--device", "mine"], "is the profile that is measured with"),
        (["--config", "/no/such/file"], "no configuration"),
    ],
)
def test_bad_input_is_one_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    told: str,
) -> None:
    monkeypatch.setenv("EDGEVOICE_CONFIG", str(tmp_path / "edgevoice.toml"))
    (tmp_path / "edgevoice.toml").touch()
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "mine.toml").write_text('inherits = "x86-64"\n')
    assert main(["profile", *arguments]) == 2
    said = capsys.readouterr().err
    assert told in said and said.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--soak", "ten"], ["--soak", "0"], ["--load", "-1"]])
def test_times_and_counts_are_checked(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["profile", *arguments])
    assert left.value.code == 2


def test_a_profile_of_another_architecture_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiling.defaults, "this_architecture", lambda: "riscv64")
    with pytest.raises(ConfigError, match="x86_64, this machine is riscv64"):
        profiling.choose(None, None, "x86-64", [])


def test_a_missing_artifact_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("EDGEVOICE_HOME", str(tmp_path))
    assert main(["profile"]) == 2
    assert "edgevoice models pull silero-vad" in capsys.readouterr().err


def test_a_bundle_names_the_models_and_the_user_has_the_last_word() -> None:
    wanted = ["speech.model=mine", "speech.threads=2"]
    device, found = profiling.choose(None, "streaming-en", "x86-64", wanted)
    assert device is not None and device.name == found.device.profile == "x86-64"
    assert found.recogniser.model == "zipformer-en-20m-int8"
    assert (found.speech.model, found.speech.threads) == ("mine", 2)


# ---------------------------------------------------------------------------- pages


class _Tags(__import__("html.parser").parser.HTMLParser):
    """Sees that every element is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_stands_alone_and_is_whole() -> None:
    profile = profiled(1, X86)
    looks = [
        {"at_s": float(i), "temperature_c": 50.0 + i, "clock_mhz": None, "memory_mb": 400.0}
        for i in range(5)
    ]
    soak = {"duration_s": 5.0, "vitals": looks, "conversations": [], "after": {}}
    fields = {name: getattr(profile, name) for name in Profile.__dataclass_fields__}
    del fields["estimates"]
    page = render(Profile(**{**fields, "soak": soak}))
    tags = _Tags()
    tags.feed(page)
    assert tags.open == []
    assert "http" not in page and "src=" not in page and "@import" not in page
    assert page.count("<svg") == len(profile.estimates) + 1 + 2
    assert "language-model: answer" in page and "nan" not in page.lower().replace("finance", "")
    assert "Clock, mean of all cores: not measurable here" in page


def test_lines_tell_every_figure_and_the_profilers_own_cost() -> None:
    lines = list(profile_lines(profiled(1)))
    for key in ("vad.window_ms", "conversation.voice_to_voice_ms"):
        assert any(FIGURES[key].title in line for line in lines)
    assert any("the profiler itself" in line for line in lines)
    assert any("not measurable here: energy" in line for line in lines)


def test_every_form_of_a_profile_shows_what_each_stage_ran_on() -> None:
    profile = profiled(1)
    line = next(line for line in profile_lines(profile) if line.startswith("end-of-turn"))
    assert "on cpu (tried: qnn, cpu; qnn: onnxruntime-qnn is not installed)" in line
    assert any(line == "speech, on xnnpack (with the CPU)" for line in profile_lines(profile))
    assert not any(" on " in line for line in profile_lines(profile) if line == "language-model")
    told = json.loads(dump(profile))["providers"]
    assert told["end-of-turn"][0]["tried"] == ["qnn", "cpu"] and "language-model" not in told
    page = render(profile)
    assert "tried: qnn, cpu; qnn: onnxruntime-qnn is not installed" in page
    assert "speech: clause (xnnpack)" in page  # of the waterfall


def test_a_provider_that_changed_is_told_and_an_older_file_names_none(tmp_path: Path) -> None:
    first = profiled(1)
    other = {**first.ran_on, "speech": [{"name": "cpu", "tried": ["cpu"], "passed_over": []}]}
    fields = {name: getattr(first, name) for name in Profile.__dataclass_fields__}
    del fields["estimates"]
    found = compare(first, Profile(**{**fields, "ran_on": other}))
    assert found.differences == ("provider of speech: xnnpack -> cpu",)
    old = json.loads(dump(first))
    del old["providers"]
    (tmp_path / "old.json").write_text(json.dumps(old))
    assert load(tmp_path / "old.json").ran_on == {}


# ---------------------------------------------------------------------------- one turn


def test_a_turns_bars_nest_and_count_from_the_end_of_speech() -> None:
    turn = {
        "speech_began_ms": 500.0,
        "speech_end_ms": 2000.0,
        "closed_ms": 4000.0,
        "spans_ms": {"paused": 64.0, "endpoint": 300.0, "first_sound": 700.0},
    }
    early = {"stage": "recogniser", "name": "old", "parent": -1, "begin_ms": 10.0, "end_ms": 90.0}
    found = bars(turn, [*SPANS, early])
    named = {bar.name: bar for bar in found}
    assert (found[0].name, found[0].begin_ms, found[0].end_ms) == ("turn", -1500.0, 2000.0)
    assert (named["token"].depth, named["answer"].depth, named["turn"].depth) == (2, 1, 0)
    assert (named["answer"].begin_ms, named["answer"].end_ms) == (300.0, 600.0)
    assert named["agent speaks"].begin_ms == 700.0
    assert "old" not in named


def test_the_turn_in_the_middle_is_drawn() -> None:
    turns = [{"voice_to_voice_ms": ms} for ms in (900.0, None, 500.0, 700.0)]
    assert middle(turns) == 3
    assert middle([{"voice_to_voice_ms": None}]) is None


# ---------------------------------------------------------------------------- real processes


@pytest.fixture
def question(tmp_path: Path) -> Path:
    import numpy as np

    from edgevoice.audio.wav import write_wav

    path = tmp_path / "question.wav"
    noise = np.random.default_rng(0).integers(-3000, 3000, 16_000)
    write_wav(path, noise.astype(np.int16), 16_000)
    return path


def test_a_real_stage_is_measured_in_a_process_of_its_own(
    artifact: Callable[[str], Path], question: Path
) -> None:
    artifact("silero-vad")
    began = time.monotonic()
    plan = Plan(rounds=1, stages=("vad",))
    found = measure(Settings(), [question], plan, str)
    spent_ms = (time.monotonic() - began) * 1000
    (samples,) = found.samples["vad.window_ms"]
    assert len(samples) == plan.samples("vad") and all(0 < s < 32 for s in samples)
    assert 0 < found.samples["vad.cold_start_ms"][0][0] < spent_ms
    assert 1 < found.samples["vad.memory_mb"][0][0] < 300
    assert not math.isnan(found.samples[YARDSTICK][0][0])


def test_a_process_that_crashes_is_one_line(question: Path) -> None:
    with pytest.raises(EngineError, match=r"measuring nonsense failed.*no stage 'nonsense'"):
        Child(STAGE, Settings(), stage="nonsense", speech=str(question))


def test_a_stage_that_is_switched_off_says_so(question: Path) -> None:
    from edgevoice.profiler.workload import NotMeasurable

    off = config.override(Settings(), ['audio.canceller="none"'])
    with pytest.raises(NotMeasurable, match="none"):
        Child(STAGE, off, stage="echo-canceller", speech=str(question))


def test_other_work_on_the_machine_hides_no_regression_and_makes_none() -> None:
    """By the wall's clock all takes twice the time; less the waiting it does not."""

    def crowded(profile: Profile, factor: float) -> Profile:
        doubled = {
            key: [[x * factor for x in row] for row in series]
            for key, series in profile.samples.items()
            if key in profile.free and FIGURES[key].better == "lower"
        }
        changed = _with_samples(profile, doubled)
        fields = {name: getattr(changed, name) for name in Profile.__dataclass_fields__}
        del fields["estimates"]
        return Profile(**{**fields, "free": profile.free})

    quiet, slow = profiled(1), profiled(3, end_of_turn=30.0)
    assert "vad" not in compare(quiet, crowded(profiled(2), 2.0)).worse_stages
    assert "end-of-turn" in compare(crowded(quiet, 2.0), slow).worse_stages


def test_intervals_are_wider_where_other_work_took_the_cores() -> None:
    quiet = profiled(1)
    taken = {
        key: [[x / 2 for x in row] for row in rows]
        for key, rows in quiet.samples.items()
        if key.endswith("cold_start_ms") or key == YARDSTICK
    }
    fields = {name: getattr(quiet, name) for name in Profile.__dataclass_fields__}
    del fields["estimates"]
    busy = Profile(**{**fields, "free": {**quiet.free, **taken}})
    assert busy.waited_share == pytest.approx(0.5, abs=0.01)
    for profile, least in ((quiet, 0.05), (busy, 0.6)):
        found = profile.estimates["conversation.voice_to_voice_ms"][50]
        assert math.log(found.high / found.low) > least
    memory = "conversation.memory_mb"  # which nobody else takes
    assert busy.estimates[memory] == quiet.estimates[memory]
