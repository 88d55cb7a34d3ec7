"""A recorded conversation, decided again with real engines."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from room import Room
from speech import spoken

from edgevoice.audio.echo import Aec3Canceller
from edgevoice.audio.wav_port import WavSink
from edgevoice.cli import main
from edgevoice.errors import ConfigError
from edgevoice.events import DecisionNotice, Notice
from edgevoice.frames import FRAME_MS, FRAME_SAMPLES, Float32, Frame
from edgevoice.loading import load_engines
from edgevoice.replay import Decision, compare, read_tape
from edgevoice.session import Pace, Session
from edgevoice.settings import Settings
from edgevoice.tapes import Tapes

QUESTION_AT_S, INTERRUPTION_AT_S, LENGTH_S = 0.5, 5.0, 9.0


class RoomSource:
    """A microphone in a room with the session's speaker, in lock step."""

    dropped_frames = 0

    def __init__(self, sink: WavSink, near: Float32) -> None:
        self._sink = sink
        self._near = near
        self._room = Room(return_loss_db=6.0)
        self._seq = 0

    def start(self) -> None:
        """Nothing to open."""

    def read(self, timeout_s: float) -> Frame:
        start = self._seq * FRAME_SAMPLES
        if start + FRAME_SAMPLES > len(self._near):
            raise EOFError
        near = self._near[start : start + FRAME_SAMPLES]
        samples = self._room.hear(self._sink.last_played(FRAME_SAMPLES), near)
        self._seq += 1
        return Frame(self._seq - 1, self._seq * FRAME_MS * 1_000_000, samples)

    def stop(self) -> None:
        """Nothing to close."""


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder of a recording in which the agent was interrupted, and what was decided."""
    near = np.zeros(round(LENGTH_S * 16_000), np.float32)
    for at_s, text, voice in (
        (QUESTION_AT_S, "Tell me about the planet Venus.", "slt"),
        (INTERRUPTION_AT_S, "Stop please, I have another question.", "rms"),
    ):
        words = spoken(text, voice)
        first = round(at_s * 16_000)
        near[first : first + len(words)] += words[: len(near) - first]
    settings = Settings()
    engines = load_engines(settings)
    decided: list[str] = []

    def watch(notice: Notice) -> None:
        if isinstance(notice, DecisionNotice):
            decided.append(notice.decision)
            if notice.decision == "interrupted":
                assert isinstance(notice.evidence["echo_margin_db"], float)

    sink, canceller = WavSink(None, "fast"), Aec3Canceller()
    tape = Tapes(tmp_path_factory.mktemp("tapes"), settings).begin(canceller)
    try:
        Session(
            engines, settings, RoomSource(sink, near), sink, watch,
            pace=Pace.LOCK_STEP, echo_canceller=canceller, tape=tape,
        ).run()  # fmt: skip
    finally:
        engines.close()
    return tape.folder, decided


@pytest.mark.bundle
def test_a_replay_decides_what_was_decided_live(
    live: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, decided = live
    assert "interrupted" in decided
    assert main(["replay", str(folder), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    pairs = result["decisions"]
    assert [pair["before"]["decision"] for pair in pairs if pair["before"]] == decided
    assert result["different"] == 0
    for pair in pairs[:3]:
        assert abs(pair["before"]["at_ms"] - pair["after"]["at_ms"]) < 100


@pytest.mark.bundle
def test_other_settings_show_what_they_change(
    live: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Deaf to all but shouting: nobody is heard, and the table says what is lost."""
    folder, _ = live
    assert main(["replay", str(folder), "--set", "vad.min_speech_ms=2000"]) == 0
    out = capsys.readouterr().out
    assert "recorded settings" in out and "changed settings" in out
    (lost,) = [line for line in out.splitlines() if "interrupted" in line]
    assert "<- only here" in lost


@pytest.mark.bundle
def test_a_recording_that_was_cut_off_is_replayed_as_far_as_it_goes(
    live: tuple[Path, list[str]], tmp_path: Path
) -> None:
    folder = shutil.copytree(live[0], tmp_path / "cut")
    whole = read_tape(folder)
    for name in ("user.wav", "agent.wav", "events.jsonl"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) * 2 // 3])
    cut = read_tape(folder)
    assert cut.user.size == cut.agent.size
    assert abs(cut.user.size - whole.user.size * 2 / 3) < FRAME_SAMPLES
    assert 0 < len(cut.decisions) < len(whole.decisions)


def test_decisions_that_moved_are_paired_and_others_stand_alone() -> None:
    pairs = compare(
        [Decision(1000.0, "turn_ended", {}), Decision(5000.0, "interrupted", {})],
        [Decision(1400.0, "turn_ended", {}), Decision(9000.0, "interrupted", {})],
    )
    assert [(a and a.at_ms, b and b.at_ms) for a, b in pairs] == [
        (1000.0, 1400.0),
        (5000.0, None),
        (None, 9000.0),
    ]


def test_a_folder_that_is_no_recording_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "20260101-000000").mkdir()
    (tmp_path / "20260101-000000" / "settings.toml").write_text("")
    with pytest.raises(ConfigError, match=r"is no recording.*20260101-000000"):
        read_tape(tmp_path)
