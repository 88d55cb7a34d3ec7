"""The daemon's own wire format: PCM over a WebSocket. This docstring is its reference.

Owns encoding and decoding; no sockets, no state. It is the format of PyPI ``voicebench``'s
``websocket`` adapter with more kinds of JSON, which that adapter skips.

Audio, both ways: binary messages of any even length, mono 16-bit signed little-endian PCM, at
16 kHz unless the client's ``start`` says otherwise. The client sends in real time, silence
included. The server sends at most a fraction of a second ahead; a client plays what it has in the
order in which it came.

Client to server, JSON objects in text messages:

``{"type": "start", "sample_rate": 48000}``
    Optional, before the first audio. ``sample_rate`` (8000 to 48000, 16000 if left out) holds for
    both directions. The ``type`` may be left out. Answered by ``ready``.
``{"type": "stop"}``
    Ends the session; closing the WebSocket does the same.

Server to client, JSON objects in text messages; ``at_ms`` counts from the session's start:

``{"type": "ready", "session": 1, "sample_rate": 16000, "encoding": "pcm_s16le", "version": ...}``
    First message, and the answer to ``start``.
``{"type": "state", "state": ..., "at_ms": ...}``
    ``listening``, ``user_speaking``, ``endpointing``, ``thinking``, ``speaking``, ``held`` (the
    agent pauses, since somebody may be interrupting; audio stops and may go on); ``closed`` is
    the last message of a session that the server ends.
``{"type": "transcript", "role": "user"|"agent", "text": ..., "final": ..., "interrupted": ...}``
    Final agent text is what was heard of the answer.
``{"type": "clear"}``
    Drop the audio that came before this message and has not been played. It comes when the agent is
    interrupted, and also when it pauses or is turned down: what was not played then comes again.
``{"type": "metrics", "turn": 1, "spans_ms": {"endpoint": 262.0, ...}, "speculation": {...}}``
    Milliseconds after the end of the user's speech; the names are those of
    :data:`edgevoice.latency.MARKS`. Work done ahead in this session and how much of it was wasted;
    the names are those of :meth:`edgevoice.speculation.Speculation.figures`.
``{"type": "decision", "decision": ..., "evidence": {...}}``
    A turn-taking decision and why.
``{"type": "load", "direction": "down"|"up", "step": ..., "detail": ..., "taken": [...], ...}``
    The daemon does less work, or all of it again, since it was too slow or too hot, or no longer
    is; the fields are those of :class:`edgevoice.events.LoadNotice`.
``{"type": "error", "message": ..., "fatal": ...}``
    One line. Unless ``fatal``, the session goes on.

Close codes: 1000 the client asked; 1001 the daemon ends; 1008 the client does not read; 1009 a
message was over 16 MiB (one over ``daemon.max_message_bytes`` gets an ``error``); 1011 the session
failed; 1013 all sessions are taken, try later.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any, TypeAlias

import numpy as np

from edgevoice import __version__
from edgevoice.errors import ProtocolError, unknown
from edgevoice.events import (
    ClearNotice,
    DecisionNotice,
    ErrorNotice,
    LoadNotice,
    MetricsNotice,
    Notice,
    ProviderNotice,
    StateNotice,
    TranscriptNotice,
)
from edgevoice.frames import SAMPLE_RATE_HZ, Int16

ENCODING = "pcm_s16le"
MIN_RATE_HZ = 8000
MAX_RATE_HZ = 48_000

_SHOWN_CHARACTERS = 60
_TYPES: dict[type[Notice], str] = {
    StateNotice: "state",
    TranscriptNotice: "transcript",
    ClearNotice: "clear",
    MetricsNotice: "metrics",
    DecisionNotice: "decision",
    ProviderNotice: "provider",
    LoadNotice: "load",
    ErrorNotice: "error",
}


class CloseCode(IntEnum):
    """WebSocket close codes (RFC 6455, section 7.4) that the daemon sends."""

    DONE = 1000
    GOING_AWAY = 1001
    NOT_READING = 1008
    FAILED = 1011
    TRY_LATER = 1013


@dataclass(frozen=True, slots=True)
class Start:
    """The client's ``start``: samples per second of both directions."""

    sample_rate_hz: int = SAMPLE_RATE_HZ


@dataclass(frozen=True, slots=True)
class Stop:
    """The client's ``stop``."""


Command: TypeAlias = Start | Stop


def decode_command(text: str) -> Command:
    """Read one text message of the client's.

    Raises:
        ProtocolError: It is not JSON, not an object, of an unknown type, or has a bad value.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"text message is not JSON: {_shown(text)}") from error
    if not isinstance(data, dict):
        raise ProtocolError(f"text message must be a JSON object, got {_shown(text)}")
    kind = data.get("type", "start")
    if kind == "start":
        return _start(data)
    if kind == "stop":
        return Stop()
    raise ProtocolError(unknown("message type", _shown(str(kind)), ("start", "stop")))


def _start(data: dict[str, Any]) -> Start:
    rate = data.get("sample_rate", SAMPLE_RATE_HZ)
    if (
        isinstance(rate, bool)
        or not isinstance(rate, int)
        or not MIN_RATE_HZ <= rate <= MAX_RATE_HZ
    ):
        raise ProtocolError(
            f"sample_rate {_shown(json.dumps(rate))}: must be a whole number "
            f"from {MIN_RATE_HZ} to {MAX_RATE_HZ}"
        )
    return Start(rate)


def decode_audio(data: bytes) -> Int16:
    """Read one binary message: int16 samples, shape ``[n]``.

    Raises:
        ProtocolError: The length is odd, so that the message cannot be whole samples.
    """
    if len(data) % 2:
        raise ProtocolError(
            f"binary message of {len(data)} bytes: an even number is needed, "
            "a sample is 2 bytes (PCM16, little-endian, mono)"
        )
    return np.frombuffer(data, dtype="<i2").astype(np.int16)


def encode_audio(samples: Int16) -> bytes:
    """Write int16 samples, shape ``[n]``, as one binary message."""
    return samples.astype("<i2").tobytes()


def encode_ready(session: int, sample_rate_hz: int) -> str:
    """Write the ``ready`` message."""
    return _dump(
        {
            "type": "ready",
            "session": session,
            "sample_rate": sample_rate_hz,
            "encoding": ENCODING,
            "version": __version__,
        }
    )


def encode_notice(notice: Notice) -> str:
    """Write what a session tells its watchers as one text message."""
    return _dump({"type": _TYPES[type(notice)], **asdict(notice)})


def _dump(data: dict[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))


def _shown(text: str) -> str:
    # A client's own words go back to it, and to the log, on one line and cut short.
    cut = text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."
    return ascii(cut)
