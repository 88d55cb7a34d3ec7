"""The wire format: what is taken, what is refused, and what goes out."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevoice.errors import ProtocolError
from edgevoice.events import (
    ClearNotice,
    DecisionNotice,
    ErrorNotice,
    MetricsNotice,
    Notice,
    StateNotice,
    TranscriptNotice,
)
from edgevoice.protocols import pcm


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"type": "start"}', pcm.Start(16_000)),
        ('{"type": "start", "sample_rate": 48000}', pcm.Start(48_000)),
        # What voicebench sends for `start_message: {}` has no type.
        ('{"sample_rate": 16000}', pcm.Start(16_000)),
        ('{"type": "start", "sample_rate": 8000, "language": "en"}', pcm.Start(8000)),
        ('{"type": "stop"}', pcm.Stop()),
    ],
)
def test_commands_are_read(text: str, expected: pcm.Command) -> None:
    assert pcm.decode_command(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hello", "not JSON"),
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"sample_rate": ' + "9" * 5000 + "}", "not JSON"),
        ("[1, 2]", "must be a JSON object"),
        ("null", "must be a JSON object"),
        ('{"type": "sotp"}', "known: start, stop"),
        ('{"type": 7}', "unknown message type"),
        ('{"sample_rate": 44100.0}', "whole number from 8000 to 48000"),
        ('{"sample_rate": true}', "whole number"),
        ('{"sample_rate": 7999}', "7999"),
        ('{"sample_rate": 96000}', "96000"),
        ('{"sample_rate": "16000"}', "whole number"),
    ],
)
def test_what_is_no_command_gets_one_short_line(text: str, words: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        pcm.decode_command(text)
    message = str(caught.value)
    assert words in message
    assert "\n" not in message
    assert len(message) < 250


@given(st.text(max_size=200))
def test_any_text_is_a_command_or_a_protocol_error(text: str) -> None:
    try:
        pcm.decode_command(text)
    except ProtocolError as error:
        assert str(error).isascii()


@given(st.binary(max_size=64))
def test_audio_of_an_even_length_goes_there_and_back(data: bytes) -> None:
    if len(data) % 2:
        with pytest.raises(ProtocolError, match=f"{len(data)} bytes"):
            pcm.decode_audio(data)
        return
    assert pcm.encode_audio(pcm.decode_audio(data)) == data


def test_audio_is_little_endian() -> None:
    assert pcm.decode_audio(b"\x01\x00\x00\x80").tolist() == [1, -32768]
    assert pcm.encode_audio(np.array([1, -32768], dtype=np.int16)) == b"\x01\x00\x00\x80"


@pytest.mark.parametrize(
    ("notice", "expected"),
    [
        (StateNotice(1.5, "listening"), {"type": "state", "at_ms": 1.5, "state": "listening"}),
        (
            TranscriptNotice(2.0, "user", "Grüezi", final=True),
            {
                "type": "transcript",
                "at_ms": 2.0,
                "role": "user",
                "text": "Grüezi",
                "final": True,
                "interrupted": False,
                "heard_by": "",
            },
        ),
        (ClearNotice(3.0), {"type": "clear", "at_ms": 3.0}),
        (
            MetricsNotice(4.0, 1, {"endpoint": 262.0}, {"tokens_wasted": 3}),
            {
                "type": "metrics",
                "at_ms": 4.0,
                "turn": 1,
                "spans_ms": {"endpoint": 262.0},
                "speculation": {"tokens_wasted": 3},
            },
        ),
        (
            DecisionNotice(5.0, "turn_ended", {"end_of_turn": 0.9}),
            {
                "type": "decision",
                "at_ms": 5.0,
                "decision": "turn_ended",
                "evidence": {"end_of_turn": 0.9},
            },
        ),
        (
            ErrorNotice(6.0, "no", fatal=True),
            {"type": "error", "at_ms": 6.0, "message": "no", "fatal": True},
        ),
    ],
)
def test_notices_are_flat_json(notice: Notice, expected: dict[str, object]) -> None:
    assert json.loads(pcm.encode_notice(notice)) == expected


def test_ready_names_the_session_and_the_rate() -> None:
    ready = json.loads(pcm.encode_ready(3, 8000))
    assert (ready["type"], ready["session"], ready["sample_rate"]) == ("ready", 3, 8000)
    assert ready["encoding"] == "pcm_s16le"
