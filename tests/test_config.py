"""Settings are strict, say what was allowed, and print as a file that reads back the same."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevoice import config
from edgevoice.cli import main
from edgevoice.errors import ConfigError
from edgevoice.manifest import STAGES
from edgevoice.settings import Settings

KEYS = [
    (part.name, key)
    for part in dataclasses.fields(Settings)
    for key in dataclasses.fields(getattr(Settings(), part.name))
]
NUMBERS = [(part, key) for part, key in KEYS if key.metadata["low"] is not None]
CHOICES = [(part, key) for part, key in KEYS if key.metadata["choices"]]


def named(keys: list[tuple[str, Any]]) -> list[str]:
    return [f"{part}.{key.name}" for part, key in keys]


def reread(settings: Settings, folder: Path) -> Settings:
    path = folder / "edgevoice.toml"
    path.write_text(config.to_toml(settings), encoding="utf-8")
    return config.load(path)


def test_the_defaults_print_and_read_back(tmp_path: Path) -> None:
    assert reread(Settings(), tmp_path) == Settings()


@pytest.mark.parametrize(("part", "key"), KEYS, ids=named(KEYS))
def test_every_key_says_what_it_means_and_has_a_default_that_it_allows(
    part: str, key: dataclasses.Field[Any]
) -> None:
    assert key.metadata["doc"]
    default = getattr(getattr(Settings(), part), key.name)
    written = list(default) if isinstance(default, tuple) else default
    parsed = config.parse({part: {key.name: written}})
    assert parsed == Settings()
    line = next(
        line for line in config.to_toml(Settings()).splitlines() if line.startswith(f"{key.name} =")
    )
    assert "  # " in line


@pytest.mark.parametrize(("part", "key"), NUMBERS, ids=named(NUMBERS))
def test_every_range_has_two_ends(part: str, key: dataclasses.Field[Any]) -> None:
    kind = type(key.default)
    low, high = kind(key.metadata["low"]), kind(key.metadata["high"])
    for value in (low, high):
        assert getattr(getattr(config.parse({part: {key.name: value}}), part), key.name) == value
    step = kind(1)
    for value in (low - step, high + step):
        with pytest.raises(ConfigError, match=rf"{part}\.{key.name} = .*must be from"):
            config.parse({part: {key.name: value}})


@pytest.mark.parametrize(("part", "key"), CHOICES, ids=named(CHOICES))
def test_every_choice_is_listed(part: str, key: dataclasses.Field[Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        wrong = "no such choice"
        config.parse({part: {key.name: [wrong] if isinstance(key.default, tuple) else wrong}})
    assert all(choice in str(caught.value) for choice in key.metadata["choices"])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"turn": {}}, "unknown section 'turn'; did you mean 'turns'?"),
        ({"turns": {"barge_in": 1}}, "turns: unknown key 'barge_in'; did you mean 'barge_in_ms'?"),
        ({"turns": 3}, r"\[turns\] must be a section, not 3"),
        ({"recogniser": {"threads": "two"}}, "must be a whole number"),
        ({"recogniser": {"threads": 2.5}}, "must be a whole number"),
        ({"recogniser": {"threads": True}}, "must be a whole number"),
        ({"vad": {"threshold": True}}, "must be a number"),
        ({"vad": {"threshold": "0.5"}}, "must be a number"),
        ({"vad": {"threshold": float("nan")}}, "must be from 0.05 to 0.95"),
        ({"vad": {"model": 3}}, "must be text in quotes"),
        ({"vad": {"model": ["a"]}}, "must be text in quotes"),
    ],
)
def test_what_is_not_allowed_is_named(data: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        config.parse(data, "my.toml")
    assert str(caught.value).startswith("my.toml: ")
    assert "\n" not in str(caught.value)


def test_a_whole_number_is_a_number_too() -> None:
    threshold = config.parse({"turns": {"barge_in_ms": 200}}).turns.barge_in_ms
    assert threshold == 200.0
    assert type(threshold) is float


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("turns.barge_in_ms=200", ("turns", "barge_in_ms"), 200.0),
        ("audio.port=pulse", ("audio", "port"), "pulse"),
        ('audio.input_device="USB, left"', ("audio", "input_device"), "USB, left"),
        ("audio.input_device=USB Microphone", ("audio", "input_device"), "USB Microphone"),
        ("language_model.endpoint=http://h:1/v1?a=b", ("language_model", "endpoint"), None),
        ("end_of_turn.model=", ("end_of_turn", "model"), ""),
    ],
)
def test_one_setting_can_be_changed(assignment: str, path: tuple[str, str], value: object) -> None:
    changed = config.override(Settings(), [assignment])
    section, key = path
    assert getattr(getattr(changed, section), key) == (
        assignment.partition("=")[2] if value is None else value
    )
    assert config.override(changed, [f"{section}.{key}=" + repr_toml(Settings(), path)]) == (
        Settings()
    )


def repr_toml(settings: Settings, path: tuple[str, str]) -> str:
    value = getattr(getattr(settings, path[0]), path[1])
    return f'"{value}"' if isinstance(value, str) else repr(value)


def test_changes_add_up() -> None:
    changed = config.override(Settings(), ["vad.threshold=0.6", "vad.min_speech_ms=90"])
    assert (changed.vad.threshold, changed.vad.min_speech_ms) == (0.6, 90.0)


@pytest.mark.parametrize("assignment", ["", "vad", "vad=1", "vad.threshold", "=3", "x.y=1"])
def test_a_change_that_cannot_be_read_says_so(assignment: str) -> None:
    with pytest.raises(ConfigError):
        config.override(Settings(), [assignment])


def test_any_text_survives(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("text")

    @settings(deadline=None)
    @given(st.text(st.characters(codec="utf-8")))
    def check(text: str) -> None:
        model = dataclasses.replace(Settings().language_model, system_prompt=text)
        changed = dataclasses.replace(Settings(), language_model=model)
        assert reread(changed, folder) == changed

    check()


@settings(deadline=None)
@given(st.floats(0.05, 0.95))
def test_any_number_survives(number: float) -> None:
    changed = config.parse({"vad": {"threshold": number}})
    (line,) = [x for x in config.to_toml(changed).splitlines() if x.startswith("threshold = ")][:1]
    assert float(line.split("=")[1].split("#")[0]) == number


def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "edgevoice.toml"
    monkeypatch.setenv("EDGEVOICE_CONFIG", str(path))
    assert config.default_path() == path
    with pytest.raises(ConfigError, match="no configuration at"):
        config.load()  # it was named, so it has to be there
    path.write_text("[vad]\nthreshold = 0.7\n", encoding="utf-8")
    assert config.load().vad.threshold == 0.7
    monkeypatch.delenv("EDGEVOICE_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nothing"))
    assert config.load() == Settings()
    for content in (b"[vad\n", b"\xff\xfe", b"[vad]\nthreshold = 0.7\nthreshold = 0.8\n"):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="not a TOML file"):
            config.load(path)
    with pytest.raises(ConfigError, match="not a TOML file"):
        config.load(tmp_path)  # a folder


def test_the_artifacts_of_the_stages_that_run_here() -> None:
    alone = config.override(Settings(), ['recogniser.first_pass=""'])
    everything = alone.artifacts()
    assert everything == {
        "vad": "silero-vad",
        "recogniser": "whisper-tiny.en-int8",
        "end-of-turn": "smart-turn-v3.2",
        "language-model": "smollm2-135m-instruct-q8_0",
        "speech": "piper-en_US-joe-medium-int8",
    }
    assert set(everything) <= set(STAGES)
    less = config.override(
        alone,
        ['end_of_turn.model=""', "language_model.endpoint=http://127.0.0.1:1/v1", 'vad.model=""'],
    ).artifacts()
    # A stage that cannot be left out stays, so that loading says what is wrong with its name.
    assert less == {
        "vad": "",
        "recogniser": everything["recogniser"],
        "speech": everything["speech"],
    }


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "edgevoice.toml"
    monkeypatch.setenv("EDGEVOICE_CONFIG", str(path))
    assert main(["config", "path"]) == 0
    assert capsys.readouterr().out == f"{path}\n"

    assert main(["config", "show", "--defaults", "--set", "vad.threshold=0.7"]) == 0
    path.write_text(capsys.readouterr().out, encoding="utf-8")
    assert main(["config", "show"]) == 0
    assert capsys.readouterr().out == path.read_text(encoding="utf-8")
    assert config.load().vad.threshold == 0.7

    assert main(["config", "check", str(path)]) == 0
    assert "good" in capsys.readouterr().out
    path.write_text("[vad]\nthreshold = 7\n", encoding="utf-8")
    assert main(["config", "check", str(path)]) == 2
    assert capsys.readouterr().err == (
        f"edgevoice: {path}: vad.threshold = 7.0: must be from 0.05 to 0.95\n"
    )
