"""PortAudio through PyAudio: start-up without its noise, and devices found by part of a name.

Leaves the streams to :mod:`edgevoice.audio.pyaudio_port`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from edgevoice.errors import AudioError, MissingDependencyError
from edgevoice.frames import SAMPLE_RATE_HZ

Direction = Literal["input", "output"]

_log = logging.getLogger(__name__)
_stderr_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class AudioDevice:
    """A microphone or a speaker that a port can open.

    Attributes:
        port: "pyaudio" or "pulse".
        direction: "input" or "output".
        name: What ``input_device`` and ``output_device`` are matched with.
        is_default: Whether it is used when no name is given.
        driver: What the sound server runs it with, "" where none says.
    """

    port: str
    direction: Direction
    name: str
    is_default: bool
    driver: str = ""


@dataclass(frozen=True, slots=True)
class StreamFormat:
    """How a device is opened: its PortAudio number, rate and channels."""

    index: int
    name: str
    rate_hz: int
    channels: int


def load_pyaudio() -> Any:
    """Import PyAudio. Raises :class:`MissingDependencyError` that says how to install it."""
    try:
        import pyaudio
    except ImportError as error:
        raise MissingDependencyError(
            f"PyAudio cannot be imported ({error}); apt install portaudio19-dev, then "
            "pip install 'edgevoice[audio]', or use port = 'pulse'"
        ) from error
    return pyaudio


def initialise() -> Any:
    """Return a new ``pyaudio.PyAudio``; its owner calls ``terminate()``.

    PortAudio looks at its devices once, when the first one is made.

    Raises:
        MissingDependencyError: PyAudio is not installed.
        AudioError: PortAudio does not start.
    """
    pyaudio = load_pyaudio()
    try:
        with quiet_stderr():
            return pyaudio.PyAudio()
    except OSError as error:
        raise AudioError(f"PortAudio does not start: {error}; try port = 'pulse'") from error


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Send what C libraries write to file descriptor 2 to /dev/null, unless debugging.

    ALSA and JACK print some 90 lines for every device of a generic configuration that is not
    there. The descriptor belongs to the whole process, so another thread's stderr is lost too
    while this lasts; it is kept to PortAudio's start-up and the opening of a stream.
    """
    if _log.isEnabledFor(logging.DEBUG):
        yield
        return
    with _stderr_lock, contextlib.ExitStack() as restored:
        try:
            saved = os.dup(2)
        except OSError:  # a daemon that has closed its stderr has nothing to silence
            yield
            return
        restored.callback(os.close, saved)
        restored.callback(os.dup2, saved, 2)
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield


def list_portaudio_devices() -> list[AudioDevice]:
    """Return what PortAudio sees. Raises :class:`MissingDependencyError` without PyAudio."""
    portaudio = initialise()
    try:
        directions: tuple[Direction, ...] = ("input", "output")
        return [
            AudioDevice("pyaudio", direction, info["name"], info["index"] == default)
            for direction in directions
            for default in [_default_index(portaudio, direction)]
            for info in _devices(portaudio, direction)
        ]
    finally:
        portaudio.terminate()


def choose_format(portaudio: Any, direction: Direction, wanted: str) -> StreamFormat:
    """Find the device and how to open it: 16 kHz mono if it can, else its own rate.

    Args:
        portaudio: From :func:`initialise`.
        direction: "input" or "output".
        wanted: Part of the device's name, in any case; "" is the default device.

    Raises:
        AudioError: There is no such device, or it takes no 16-bit format.
    """
    info = _find(portaudio, direction, wanted)
    own_rate_hz = round(info["defaultSampleRate"])
    most = int(info[_CHANNELS_KEY[direction]])
    for rate_hz in dict.fromkeys((SAMPLE_RATE_HZ, own_rate_hz, 48_000, 44_100)):
        for channels in sorted({1, min(2, most), most}):
            if _supports(portaudio, direction, info["index"], rate_hz, channels):
                return StreamFormat(info["index"], info["name"], rate_hz, channels)
    raise AudioError(
        f"{direction} device {info['name']!r} takes no 16-bit audio at {SAMPLE_RATE_HZ} or "
        f"{own_rate_hz} Hz; it may be in use; `edgevoice doctor` lists the others"
    )


_CHANNELS_KEY = {"input": "maxInputChannels", "output": "maxOutputChannels"}


def _devices(portaudio: Any, direction: Direction) -> list[dict[str, Any]]:
    every = map(portaudio.get_device_info_by_index, range(portaudio.get_device_count()))
    return [info for info in every if info[_CHANNELS_KEY[direction]] > 0]


def _default_index(portaudio: Any, direction: Direction) -> int:
    try:
        info = getattr(portaudio, f"get_default_{direction}_device_info")()
    except OSError:
        return -1
    return int(info["index"])


def _find(portaudio: Any, direction: Direction, wanted: str) -> dict[str, Any]:
    found = _devices(portaudio, direction)
    if not found:
        raise AudioError(
            f"PortAudio sees no {direction} device; with PulseAudio or PipeWire install "
            "libasound2-plugins, and check that the server runs (`pactl info`)"
        )
    default = _default_index(portaudio, direction)
    for info in found:
        if wanted.lower() in info["name"].lower() if wanted else info["index"] == default:
            return info
    names = ", ".join(repr(info["name"]) for info in found)
    what = f"named {wanted!r}" if wanted else "that is the default"
    raise AudioError(f"no {direction} device {what}; known: {names}")


def _supports(
    portaudio: Any, direction: Direction, index: int, rate_hz: int, channels: int
) -> bool:
    try:
        with quiet_stderr():
            return bool(
                portaudio.is_format_supported(
                    rate_hz,
                    **{
                        f"{direction}_device": index,
                        f"{direction}_channels": channels,
                        f"{direction}_format": load_pyaudio().paInt16,
                    },
                )
            )
    except ValueError:
        return False
