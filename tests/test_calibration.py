"""Speech and text of one's own, and the project's when there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgevoice.audio.wav import write_wav
from edgevoice.errors import ConfigError
from edgevoice.export.calibration import Calibration, default_sentences


def test_the_users_folder_gives_text_and_speech_with_its_words(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("Good morning.\n\nOpen the door.\n", encoding="utf-8")
    (tmp_path / "transcripts.tsv").write_text("one\tHello there.\n", encoding="utf-8")
    write_wav(tmp_path / "one.wav", np.zeros(8_000, np.int16), 8_000)
    mine = Calibration(tmp_path)
    assert mine.sentences() == ("Good morning.", "Open the door.", "Hello there.")
    (clip,) = mine.clips()
    assert (clip.name, clip.text, clip.samples.size) == ("one.wav", "Hello there.", 16_000)


def test_an_empty_folder_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no text to calibrate with"):
        Calibration(tmp_path).sentences()
    with pytest.raises(ConfigError, match=r"no \*\.wav to calibrate with"):
        Calibration(tmp_path).clips()


def test_the_projects_own_is_said_by_a_voice_of_this_machine() -> None:
    clips = Calibration().clips()
    assert clips and all(clip.samples.size > 8_000 and clip.text for clip in clips)
    assert set(c.text for c in clips) <= set(default_sentences("calibration"))
