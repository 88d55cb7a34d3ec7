"""Profiles: read strictly, inherited, found, written; and the facts of the built-in ones."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevoice import settings
from edgevoice.devices import features, profile
from edgevoice.devices.profile import (
    BUDGETS,
    FACTS,
    AudioPort,
    Cluster,
    DeviceProfile,
    load_profile,
    load_profiles,
    parse,
    profile_names,
)
from edgevoice.devices.profile_text import to_toml
from edgevoice.errors import ConfigError
from edgevoice.quant.scheme import SCHEMES

BUILT_IN = (
    "android-snapdragon-8",
    "android-termux",
    "jetson-orin-nano",
    "raspberry-pi-4",
    "raspberry-pi-5",
    "raspberry-pi-zero-2w",
    "rk3588",
    "x86-64",
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the user's own profiles."""
    monkeypatch.setenv("EDGEVOICE_CONFIG", str(tmp_path / "edgevoice.toml"))
    (tmp_path / "devices").mkdir()
    return tmp_path / "devices"


def write(folder: Path, name: str, text: str) -> None:
    (folder / f"{name}.toml").write_text(text, encoding="utf-8")


def refused(text: str) -> str:
    data = {"title": "T", "architecture": "aarch64", **tomllib.loads(text)}
    with pytest.raises(ConfigError) as caught:
        parse(data, "mine", "mine.toml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_built_in_profiles(folder: Path) -> None:
    assert profile_names() == BUILT_IN
    found, failures = load_profiles()
    assert (len(found), failures) == (len(BUILT_IN), ())


@pytest.mark.parametrize("name", BUILT_IN)
def test_facts_have_sources_and_choices_can_be_kept(name: str) -> None:
    one = load_profile(name)
    for fact in ("architecture", "cpu_features", "clusters", "memory_mb"):
        assert not getattr(one, fact) or one.sources[fact]
    assert not one.audio.latency_ms or one.sources["audio.latency_ms"]
    assert one.cpu_features and one.title and one.providers[-1] == "CPUExecutionProvider"
    assert set(one.schemes) == {"asr", "llm", "tts"}
    assert {s for names in one.schemes.values() for s in names} <= set(SCHEMES)
    assert all(threads <= (one.cores or 8) for threads in one.threads.values())
    assert one.memory_budget_mb and one.memory_budget_mb < (one.memory_mb or 1 << 20)
    assert one.budgets_ms["voice_to_voice"] > one.budgets_ms["llm_first_token"]
    text = (profile._BUILT_IN / f"{name}.toml").read_text(encoding="utf-8")
    assert "# Targets, not measurements." in text


def test_what_the_boards_are() -> None:
    four, five = load_profile("raspberry-pi-4"), load_profile("raspberry-pi-5")
    assert not four.has_dot_product and five.has_dot_product
    assert five.clusters == (Cluster("Cortex-A76", 4, True),)
    assert load_profile("rk3588").cores == 8
    assert load_profile("raspberry-pi-zero-2w").recognition == "segmented"
    assert load_profile("raspberry-pi-zero-2w").passes == "first"


def test_a_profile_inherits_what_it_does_not_say() -> None:
    phone, base = load_profile("android-snapdragon-8"), load_profile("android-termux")
    assert phone.audio == base.audio == AudioPort("pulse")
    assert phone.threads == {**base.threads, "llm": 4}
    assert phone.sources["architecture"] == base.sources["architecture"]
    assert "i8mm" in phone.cpu_features and phone.recognised_by and not base.recognised_by


def test_users_profiles(folder: Path) -> None:
    write(folder, "kitchen", 'inherits = "raspberry-pi-5"\nmemory_mb = 8192\n[threads]\nllm = 2\n')
    write(folder, "hall", 'inherits = "kitchen"\ntitle = "Hall"\n[audio]\nlatency_ms = 30\n')
    hall = load_profile("hall")
    assert (hall.title, hall.inherits, hall.memory_mb) == ("Hall", "kitchen", 8192)
    assert hall.threads == {**load_profile("raspberry-pi-5").threads, "llm": 2}
    assert hall.audio == AudioPort("auto", 30.0)
    assert hall.recognised_by == ()
    assert set(profile_names()) == {*BUILT_IN, "hall", "kitchen"}
    assert [p.name for p in load_profiles()[0]][:2] == ["hall", "kitchen"]
    assert load_profile(str(folder / "kitchen.toml")).memory_mb == 8192


def test_circles_are_one_clear_line(folder: Path) -> None:
    write(folder, "a", 'inherits = "b"\n')
    write(folder, "b", 'inherits = "c"\n')
    write(folder, "c", 'inherits = "b"\n')
    with pytest.raises(ConfigError, match=r"^profiles inherit in a circle: b -> c -> b; "):
        load_profile("a")
    write(folder, "self", 'inherits = "self"\n')
    with pytest.raises(ConfigError, match="circle: self -> self"):
        load_profile("self")
    found, failures = load_profiles()
    assert (len(found), len(failures)) == (len(BUILT_IN), 4)


def test_names_that_lead_nowhere(folder: Path) -> None:
    with pytest.raises(ConfigError, match="unknown device profile 'raspbery-pi-5'; did you mean"):
        load_profile("raspbery-pi-5")
    write(folder, "mine", 'inherits = "rk3599"\n')
    with pytest.raises(ConfigError, match="unknown device profile 'rk3599'; did you mean 'rk3588'"):
        load_profile("mine")
    write(folder, "rk3588", 'inherits = "rk3588"\n')
    with pytest.raises(ConfigError, match=r"has a profile of that name; rename the file"):
        load_profile("rk3588")
    with pytest.raises(ConfigError, match="not a TOML file"):
        load_profile("nowhere/mine.toml")
    write(folder, "broken", "title =")
    with pytest.raises(ConfigError, match=r"broken\.toml: not a TOML file"):
        load_profile("broken")
    write(folder, "Not A Name", "")
    assert "Not A Name" not in profile_names()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("thread = {}", "mine.toml: unknown key 'thread'; did you mean 'threads'?"),
        ("[threads]\nstt = 2", "mine.toml: threads: unknown key 'stt'; did you mean 'tts'?"),
        ("[threads]\nasr = 0", "threads.asr = 0: must be from 1 to 64"),
        ("[threads]\nasr = true", "threads.asr = True: must be a whole number"),
        ("[threads]\nasr = 1.5", "threads.asr = 1.5: must be a whole number"),
        ("[budgets_ms]\nvad_fram = 1", "unknown key 'vad_fram'; did you mean 'vad_frame'?"),
        ("[budgets_ms]\nvad_frame = 0", "vad_frame = 0: must be from 0.001"),
        ("[budgets_ms]\nvad_frame = nan", "vad_frame = nan: must be from 0.001"),
        ("[load]\nhot = 80", "load: unknown key 'hot'; did you mean 'hot_c'?"),
        ("[load]\nrecogniser = 'tiny'", "load.recogniser belongs into the configuration"),
        ("[load]\nhot_c = 800", "load.hot_c = 800.0: must be from 0 to 120"),
        ("[budgets_ms]\nvad_frame = '1'", "vad_frame = '1': must be a number"),
        ("[schemes]\nasr = 'int8'", "schemes.asr = 'int8': must be of type list"),
        ("[schemes]\nasr = [8]", "schemes.asr: 8 must be text in quotes"),
        ("[schemes]\nasr = ['a', 'a']", "schemes.asr: 'a' stands in it twice"),
        ("cpu_features = ['avx2']", "cpu_features: unknown value 'avx2'; known: asimd, "),
        ("cpu_features = ['asimddpp']", "did you mean 'asimddp'?"),
        ("providers = ['CPU']", "providers: unknown value 'CPU'; known: CPUExec"),
        ("architecture = 'arm'", "unknown architecture 'arm'; known: aarch64, x86_64"),
        ("recognition = 'never'", "unknown recognition 'never'; known: any, segmented"),
        ("passes = 'none'", "unknown passes 'none'; known: both, first, second"),
        ("memory_mb = 64", "mine.toml: memory_mb = 64: must be from 128"),
        ("[audio]\nport = 'alsa'", "audio: unknown port 'alsa'; known: auto, pulse, pyaudio"),
        ("[audio]\nlatency_ms = -1", "latency_ms = -1: must be from 0 to 5000"),
        ("[[clusters]]\nname = 'A'\ncores = 4", "clusters[0]: 'fast' is missing"),
        ("[[clusters]]\nname = 'A'\ncores = 0\nfast = true", "clusters[0].cores = 0"),
        ("clusters = [1]", "clusters[0]: must be a table, not 1"),
        ("[sources]\nthreads = 'x'", "sources: unknown key 'threads'; known: architecture"),
        ("inherits = 3", "inherits = 3: must be of type str"),
    ],
)
def test_what_a_profile_may_not_say(text: str, line: str) -> None:
    assert line in refused(text)


def test_a_profile_needs_a_title_and_an_architecture_of_its_own_or_inherited() -> None:
    with pytest.raises(ConfigError, match="'architecture' is missing"):
        parse({"title": "T"}, "mine", "mine.toml")
    parent = load_profile("rk3588")
    assert parse({}, "mine", "mine.toml", parent).title == parent.title
    with pytest.raises(ConfigError, match=r"= 'x86_64': rk3588 is aarch64; inherit from"):
        parse({"architecture": "x86_64"}, "mine", "mine.toml", parent)


def test_the_words_are_those_of_their_owners() -> None:
    (port,) = (f for f in settings.AudioSettings.__dataclass_fields__.values() if f.name == "port")
    assert port.metadata["choices"] == profile.PORTS
    assert set(features.DOT_PRODUCT) <= set(features.FEATURES)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
arm_features = st.lists(st.sampled_from(features.of("aarch64")), unique=True).map(tuple)
profiles = st.builds(
    DeviceProfile,
    name=st.just("mine"),
    title=texts.filter(bool),
    architecture=st.just("aarch64"),
    cpu_features=arm_features,
    clusters=st.lists(st.builds(Cluster, texts, st.integers(1, 64), st.booleans()), max_size=3).map(
        tuple
    ),
    memory_mb=st.just(0) | st.integers(128, 1 << 24),
    memory_budget_mb=st.just(0) | st.integers(64, 1 << 24),
    recognised_by=st.lists(texts, unique=True, max_size=2).map(tuple),
    audio=st.builds(AudioPort, st.sampled_from(profile.PORTS), st.floats(0, 5000)),
    schemes=st.dictionaries(
        st.sampled_from(profile.STAGES), st.lists(texts, unique=True, max_size=3).map(tuple)
    ),
    threads=st.dictionaries(st.sampled_from(profile.THREAD_STAGES), st.integers(1, 64)),
    stage_cores=st.dictionaries(
        st.sampled_from(profile.THREAD_STAGES), st.sampled_from(["", "0", "4-7", "0,2-3"])
    ),
    chunks_ms=st.dictionaries(st.sampled_from(profile.CHUNK_STAGES), st.floats(50, 2000)),
    models=st.dictionaries(st.sampled_from(profile.THREAD_STAGES), texts),
    stage_providers=st.dictionaries(
        st.sampled_from(profile.THREAD_STAGES),
        st.lists(st.sampled_from(profile.PROVIDERS), unique=True).map(tuple),
    ),
    budgets_ms=st.dictionaries(st.sampled_from(list(BUDGETS)), st.floats(0.001, 3.6e6)),
    load=st.fixed_dictionaries(
        {}, optional={"hot_c": st.floats(0, 120), "enabled": st.booleans(), "met_turns": st.just(9)}
    ),
    notes=texts.map(str.strip),
    sources=st.dictionaries(st.sampled_from(FACTS), texts),
)


@given(profiles)
def test_what_is_written_is_read_the_same(one: DeviceProfile) -> None:
    data: dict[str, Any] = tomllib.loads(to_toml(one))
    assert parse(data, "mine", "mine.toml") == one


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_shown_profile_can_be_started_from(name: str, folder: Path) -> None:
    shown = load_profile(name)
    write(folder, "mine", to_toml(shown))
    assert load_profile("mine") == replace(shown, name="mine")
