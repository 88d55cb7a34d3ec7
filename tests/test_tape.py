"""Recordings of conversations: complete, readable when cut off, and below their cap."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from edgevoice import config
from edgevoice.audio.echo import Aec3Canceller
from edgevoice.audio.wav import read_wav
from edgevoice.config import override
from edgevoice.errors import AudioError
from edgevoice.events import DecisionNotice, SpeechStarted
from edgevoice.frames import FRAME_SAMPLES, Frame, Int16, to_int16
from edgevoice.settings import Settings
from edgevoice.tape import Tape
from edgevoice.tapes import Tapes

PLAYED = np.full(FRAME_SAMPLES, 9, dtype=np.int16)


def frame(seq: int) -> Frame:
    return Frame(seq, 0, np.full(FRAME_SAMPLES, 100 + seq % 100, dtype=np.int16))


def track(path: Path) -> Int16:
    samples, rate_hz = read_wav(path)
    assert rate_hz == 16_000
    return to_int16(samples * np.float32(32768 / 32767))


def wait_for(tape: Tape, size: int) -> None:
    for _ in range(500):
        if (tape.folder / "user.wav").stat().st_size >= size:
            return
        tape._over.wait(0.01)
    pytest.fail("the tape was not written")


def small(folder: Path) -> Tapes:
    return Tapes(folder, override(Settings(), ["recording.max_mb=1"]))


def test_a_tape_holds_both_voices_side_by_side_events_and_settings(tmp_path: Path) -> None:
    tape = Tapes(tmp_path, override(Settings(), ["turns.barge_in_ms=200"])).begin(None)
    for seq in range(70):
        tape.hear(frame(seq), PLAYED)
    tape.note(SpeechStarted(700.0, 640.0))
    tape.note(DecisionNotice(700.0, "interrupted", {"speech_ms": 96.0, "words": "hé"}))
    tape.close()
    user, agent = track(tape.folder / "user.wav"), track(tape.folder / "agent.wav")
    assert user.size == agent.size == 70 * FRAME_SAMPLES
    assert [int(user[i * FRAME_SAMPLES]) for i in (0, 33, 69)] == [100, 133, 169]
    assert (agent == 9).all()
    lines = [json.loads(line) for line in (tape.folder / "events.jsonl").open(encoding="utf-8")]
    assert lines[0] == {
        "kind": "SpeechStarted",
        "heard_ms": 700.0,
        "at_ms": 700.0,
        "onset_ms": 640.0,
        "echo_margin_db": None,
        "loudness_db": None,
    }
    assert lines[1]["evidence"] == {"speech_ms": 96.0, "words": "hé"}
    settings = config.load(tape.folder / "settings.toml")
    assert settings.turns.barge_in_ms == 200
    assert settings.audio.canceller == "none"


def test_the_settings_name_the_canceller_that_there_was(tmp_path: Path) -> None:
    tape = Tapes(tmp_path, Settings()).begin(Aec3Canceller())
    tape.close()
    assert config.load(tape.folder / "settings.toml").audio.canceller == "aec3"


def test_lost_frames_are_silence_and_keep_the_time(tmp_path: Path) -> None:
    tape = Tapes(tmp_path, Settings()).begin(None)
    for seq in (0, 1, 5):
        tape.hear(frame(seq), PLAYED)
    tape.note(SpeechStarted(60.0, 0.0))
    tape.close()
    user = track(tape.folder / "user.wav")
    assert user.size == 6 * FRAME_SAMPLES
    assert not user[2 * FRAME_SAMPLES : 5 * FRAME_SAMPLES].any()
    assert json.loads((tape.folder / "events.jsonl").read_text())["heard_ms"] == 60.0


def test_a_tape_that_a_crash_cut_off_can_be_read(tmp_path: Path) -> None:
    tape = Tapes(tmp_path, Settings()).begin(None)
    for seq in range(120):
        tape.hear(frame(seq), PLAYED)
    wait_for(tape, 44 + 100 * FRAME_SAMPLES * 2)
    # Nothing was closed: this is what a crash leaves.
    assert track(tape.folder / "user.wav").size >= 100 * FRAME_SAMPLES
    tape.close()


def test_old_tapes_make_room_and_nothing_else_goes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "user.wav").write_bytes(bytes(900_000))
    for name in ("20200101-000000", "20200102-000000"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "settings.toml").write_text("")
        (tmp_path / name / "user.wav").write_bytes(bytes(400_000))
    with caplog.at_level(logging.WARNING):
        small(tmp_path).begin(None).close()
    assert not (tmp_path / "20200101-000000").exists()
    assert (tmp_path / "20200102-000000").exists()
    assert (tmp_path / "notes" / "user.wav").exists()
    assert [r.getMessage() for r in caplog.records] == [
        f"deleted the recording {tmp_path / '20200101-000000'}: recording.max_mb is reached"
    ]


def test_a_tape_ends_at_the_cap_with_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tape = small(tmp_path).begin(None)
    with caplog.at_level(logging.WARNING):
        for seq in range(2500):  # 1.6 MB
            tape.hear(frame(seq), PLAYED)
        tape.close()
    assert sum(p.stat().st_size for p in tape.folder.iterdir()) < 1_200_000
    assert len([r for r in caplog.records if "recording.max_mb is reached" in r.message]) == 1
    assert track(tape.folder / "user.wav").size > 200_000


def test_a_tape_that_is_being_written_is_not_deleted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = small(tmp_path).begin(None)
    for seq in range(1000):
        first.hear(frame(seq), PLAYED)
    wait_for(first, 300_000)
    with pytest.raises(AudioError, match=r"no room to record.*raise it"):
        small(tmp_path).begin(None)
    assert not caplog.records
    first.close()
    small(tmp_path).begin(None).close()
    assert f"deleted the recording {first.folder}" in caplog.text


def test_two_tapes_of_one_second_have_folders_of_their_own(tmp_path: Path) -> None:
    tapes = Tapes(tmp_path, Settings())
    both = [tapes.begin(None), tapes.begin(None)]
    for tape in both:
        tape.close()
    assert both[0].folder != both[1].folder


def test_a_folder_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AudioError, match="cannot record into"):
        Tapes(tmp_path / "file", Settings()).begin(None)


def test_a_disk_that_fails_ends_the_tape_and_not_the_conversation(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tape = Tapes(tmp_path, Settings()).begin(None)
    tape._user.close()
    tape._user = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115
    with caplog.at_level(logging.WARNING):
        for seq in range(200):
            tape.hear(frame(seq), PLAYED)
        tape.close()
        tape.hear(frame(200), PLAYED)
    assert "No space left on device" in caplog.text
