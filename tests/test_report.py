"""The report is one whole page that says what happened and fetches nothing."""

import base64
import io
import re
import wave
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from edgevoice import report
from edgevoice.errors import AudioError
from edgevoice.events import (
    DecisionNotice,
    ErrorNotice,
    MetricsNotice,
    Notice,
    StateNotice,
    TranscriptNotice,
)
from edgevoice.recording import SessionRecord
from edgevoice.settings import Settings

HELD_AT = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
SPANS = {"endpoint": 300.0, "transcribed": 250.0, "first_token": 320.0, "first_sound": 512.0}
NOTICES: tuple[Notice, ...] = (
    StateNotice(0.0, "listening"),
    StateNotice(500.0, "user_speaking"),
    StateNotice(1100.0, "endpointing"),
    DecisionNotice(1300.0, "turn_ended", {"end_of_turn": 0.97}),
    StateNotice(1300.0, "thinking"),
    TranscriptNotice(1300.0, "user", "Is 1 < 2 & <b>bold</b>?", True),
    StateNotice(1512.0, "speaking"),
    TranscriptNotice(1600.0, "agent", "Yes it is, and so on", False),
    TranscriptNotice(2000.0, "agent", "Yes it is,", True, True),
    MetricsNotice(2000.0, 1, SPANS),
    ErrorNotice(2100.0, "the voice stumbled"),
    StateNotice(2100.0, "listening"),
)


def record(
    seconds: float = 3.0, notices: tuple[Notice, ...] = NOTICES, lock_step: bool = False
) -> SessionRecord:
    user = np.zeros(round(seconds * 16_000), dtype=np.int16)
    user[8_000:16_000] = 9000
    agent = np.zeros(32_000, dtype=np.int16)
    agent[24_192:32_000] = -7000
    return SessionRecord(user, agent, notices, truncated=False, lock_step=lock_step)


def page(shown: SessionRecord) -> str:
    return report.render(shown, Settings(), 2345.0, HELD_AT)


class Checker(HTMLParser):
    VOID = frozenset({"meta"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(html: str) -> Checker:
    checker = Checker()
    checker.feed(html)
    assert checker.open == []
    return checker


def test_it_is_well_formed_and_fetches_nothing() -> None:
    html = page(record())
    checker = parsed(html)
    assert all(address.startswith("data:") for address in checker.addresses)
    assert not re.search(r"https?://|url\(|@import", html)


def test_it_says_what_was_said_and_heard() -> None:
    html = page(record())
    text = parsed(html).text
    assert "Is 1 < 2 & <b>bold</b>?" in text
    assert "<b>bold" not in html
    assert "Yes it is," in text
    assert '<span class="unheard">and so on</span>' in html
    assert "(interrupted)" in text
    assert "the voice stumbled" in text
    assert "end_of_turn 0.97" in text
    assert "512 ms" in text
    assert "2.3 s" in text
    assert "whisper-tiny.en-int8" in text
    assert "2026-03-01 12:30" in text


def test_the_table_has_percentiles() -> None:
    second = (
        TranscriptNotice(2500.0, "user", "More?", True),
        TranscriptNotice(2600.0, "agent", "No.", True),
        MetricsNotice(2900.0, 2, {**SPANS, "first_sound": 712.0}),
    )
    html = page(record(notices=NOTICES + second))
    rows = re.findall(r"<td>(p\d+)</td>.*?<td>(\d+|–)</td></tr>", html)
    assert rows == [("p50", "612"), ("p90", "692")]


def test_the_sound_is_both_voices() -> None:
    found = re.search(r"data:audio/wav;base64,([^\"]+)", page(record()))
    assert found
    with wave.open(io.BytesIO(base64.b64decode(found[1]))) as file:
        assert (file.getnchannels(), file.getframerate()) == (1, 16_000)
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    assert samples.size == 48_000
    assert samples[10_000] == 9000
    assert samples[30_000] == -7000


def test_long_sound_is_cut_and_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "AUDIO_LIMIT_S", 2.0)
    html = page(record())
    assert "The first 2 s." in html
    found = re.search(r"data:audio/wav;base64,([^\"]+)", html)
    assert found
    assert len(base64.b64decode(found[1])) == 44 + 2 * 32_000


def test_each_voice_is_drawn_where_it_was() -> None:
    html = page(record())
    overview = html[html.index('<svg id="overview"') : html.index("</svg>")]
    (user,) = re.findall(r'<path class="wave user" d="M([^"]+)Z"', overview)
    points = [tuple(map(float, point.split(","))) for point in user.split("L")]
    upper = points[: len(points) // 2]
    top = min(y for _, y in upper)
    tall = [x for x, y in upper if y == top]
    # Speech from 0.5 to 1.0 s of 3.0 s, on a drawing from 56 to 1200.
    assert min(tall) == pytest.approx(56 + 1144 * 0.5 / 3, abs=2)
    assert max(tall) == pytest.approx(56 + 1144 * 1.0 / 3, abs=2)
    assert overview.count('class="phase ') == 6


def test_lock_step_and_truncation_are_said() -> None:
    shown = record(lock_step=True)
    assert "--fast" in parsed(page(shown)).text
    cut = SessionRecord(shown.user, shown.agent, NOTICES, truncated=True)
    assert "went on after" in parsed(page(cut)).text


def test_an_empty_conversation_is_a_page() -> None:
    nothing = np.zeros(0, dtype=np.int16)
    checker = parsed(page(SessionRecord(nothing, nothing, (), truncated=False)))
    assert "Nobody said anything." in checker.text
    assert checker.addresses == []


def test_a_turn_without_an_answer() -> None:
    notices = (TranscriptNotice(1300.0, "user", "Hello?", True),)
    assert "no answer" in parsed(page(record(notices=notices))).text


def test_it_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    report.write_report(path, record(), Settings(), 1.0)
    assert path.read_text(encoding="utf-8").endswith("</html>\n")
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(AudioError, match="cannot write"):
        report.write_report(tmp_path / "no" / "report.html", record(), Settings(), 1.0)
