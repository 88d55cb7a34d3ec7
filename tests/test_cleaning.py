"""Which canceller a conversation gets, and that nothing is cancelled twice."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pulse import MICROPHONE, SPEAKER, PulseServer

from edgevoice.audio import cleaning
from edgevoice.audio.cleaning import clean_caller, clean_microphone, uses_system_canceller
from edgevoice.audio.echo import Aec3Canceller, Cleaner
from edgevoice.audio.portaudio import AudioDevice, Direction
from edgevoice.config import override
from edgevoice.errors import AudioError, MissingDependencyError
from edgevoice.settings import AudioSettings, Settings


def audio(*assignments: str) -> AudioSettings:
    return override(Settings(), [f"audio.{a}" for a in assignments]).audio


def device(
    direction: Direction, name: str, default: bool = False, driver: str = "module-alsa-card.c"
) -> AudioDevice:
    return AudioDevice("pulse", direction, name, default, driver)


PLAIN = [device("input", "mic", True), device("output", "speaker", True)]
CANCELLING = [
    device("input", "mic"),
    device("output", "speaker"),
    device("input", "clean", True, "module-echo-cancel.c"),
    device("output", "clean", True, "module-echo-cancel.c"),
]
PIPEWIRE = [
    device("input", "echo-cancel-source", True, "PipeWire"),
    device("output", "echo-cancel-sink", True, "PipeWire"),
]
PAST_IT = [
    device("input", "clean", True, "module-echo-cancel.c"),
    device("output", "speaker", True),
]


@pytest.fixture
def server_with(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[AudioDevice]]:
    devices: list[AudioDevice] = []
    monkeypatch.setattr(cleaning, "list_pulse_devices", lambda: devices)
    yield devices


@pytest.mark.parametrize("devices", [[], PLAIN, PAST_IT])
def test_a_microphone_gets_aec3_by_default(
    server_with: list[AudioDevice], devices: list[AudioDevice]
) -> None:
    server_with += devices
    assert isinstance(clean_microphone(audio()), Aec3Canceller)


@pytest.mark.parametrize("devices", [CANCELLING, PIPEWIRE])
@pytest.mark.parametrize("canceller", ["auto", "system"])
def test_what_the_server_cancels_is_not_cancelled_twice(
    server_with: list[AudioDevice], devices: list[AudioDevice], canceller: str
) -> None:
    server_with += devices
    assert clean_microphone(audio(f"canceller={canceller}")) is None
    cleaned = clean_microphone(audio(f"canceller={canceller}", "noise_suppression=true"))
    assert isinstance(cleaned, Cleaner)


def test_devices_that_the_settings_name_decide(server_with: list[AudioDevice]) -> None:
    server_with += CANCELLING
    assert not uses_system_canceller(audio("input_device=mic"))
    assert not uses_system_canceller(audio("output_device=speaker"))
    assert uses_system_canceller(audio("input_device=pulse", "output_device=default"))


def test_a_system_canceller_that_is_not_there_is_one_line(server_with: list[AudioDevice]) -> None:
    server_with += PLAIN
    with pytest.raises(AudioError, match="module-echo-cancel"):
        clean_microphone(audio("canceller=system"))


def test_none_is_none_and_aec3_is_aec3(server_with: list[AudioDevice]) -> None:
    server_with += CANCELLING
    assert clean_microphone(audio("canceller=none")) is None
    assert isinstance(clean_microphone(audio("canceller=aec3")), Aec3Canceller)


@pytest.mark.parametrize("canceller", ["auto", "system", "none"])
def test_a_callers_speaker_is_elsewhere(canceller: str) -> None:
    assert clean_caller(audio(f"canceller={canceller}")) is None
    assert isinstance(clean_caller(audio("canceller=aec3")), Aec3Canceller)
    assert isinstance(clean_caller(audio(f"canceller={canceller}", "gain_control=true")), Cleaner)


def test_without_the_library_the_conversation_goes_on_with_a_warning(
    server_with: list[AudioDevice],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setitem(sys.modules, "pywebrtc_audio", None)
    with caplog.at_level(logging.WARNING):
        assert clean_microphone(audio()) is None
    (record,) = caplog.records
    assert "may hear itself" in record.getMessage() and "pip install" in record.getMessage()
    with pytest.raises(MissingDependencyError):
        clean_microphone(audio("canceller=aec3"))


@pytest.mark.pulse
def test_the_canceller_of_a_real_server_is_recognised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = PulseServer(tmp_path)
    try:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        assert not uses_system_canceller(AudioSettings())
        server.pactl(
            "load-module", "module-echo-cancel", f"source_master={MICROPHONE}",
            f"sink_master={SPEAKER}", "source_name=quiet", "sink_name=loud", "aec_method=webrtc",
        )  # fmt: skip
        assert not uses_system_canceller(AudioSettings())
        server.pactl("set-default-source", "quiet")
        assert not uses_system_canceller(AudioSettings())
        server.pactl("set-default-sink", "loud")
        assert uses_system_canceller(AudioSettings())
    finally:
        server.kill()
