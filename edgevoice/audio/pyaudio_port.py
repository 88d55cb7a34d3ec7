"""Microphone and speaker through PyAudio, in PortAudio's callback mode.

Owns the two streams, conversion from and to the device's own rate and channels, and noticing
that a device is gone. Leaves finding devices to :mod:`edgevoice.audio.portaudio`.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from typing import Any

import numpy as np

from edgevoice.audio.frame_queue import FrameQueue
from edgevoice.audio.playout import PlayoutSink
from edgevoice.audio.portaudio import (
    Direction,
    StreamFormat,
    choose_format,
    initialise,
    load_pyaudio,
    quiet_stderr,
)
from edgevoice.audio.resample import StreamResampler
from edgevoice.errors import AudioError
from edgevoice.frames import SAMPLE_RATE_HZ, Frame, Int16

# PortAudio holds two blocks on ALSA. With blocks of 10 ms a callback that waits 20 ms for a core
# loses audio, so they are of 20 ms.
_BLOCK_MS = 20
# A device that works calls back every block; a second without is a device that was unplugged or
# a sound server that is gone (PortAudio reports neither).
_LOST_AFTER_NS = 1_000_000_000
_LONGEST_LATENCY_S = 1.0
# Closing takes some 10 ms. PortAudio joins its own thread, which after the death of a sound
# server may spin in an error that it never leaves.
_CLOSE_WITHIN_S = 2.0

_log = logging.getLogger(__name__)


class _Stream:
    """One open PortAudio stream and the time of its last callback."""

    def __init__(self, direction: Direction, device: str) -> None:
        self._direction = direction
        self._portaudio: Any = None
        self._stream: Any = None
        self._format: StreamFormat | None = None
        self._alive_ns = 0
        self._device = device

    def choose(self) -> StreamFormat:
        """Start PortAudio and find the device. Raises :class:`AudioError`."""
        self._portaudio = initialise()
        try:
            self._format = choose_format(self._portaudio, self._direction, self._device)
        except AudioError:
            self.close()
            raise
        return self._format

    def open(self, callback: Any) -> None:
        assert self._format is not None
        form = self._format
        self._alive_ns = time.monotonic_ns()
        try:
            with quiet_stderr():
                self._stream = self._portaudio.open(
                    form.rate_hz,
                    form.channels,
                    load_pyaudio().paInt16,
                    frames_per_buffer=form.rate_hz * _BLOCK_MS // 1000,
                    stream_callback=callback,
                    **{self._direction: True, f"{self._direction}_device_index": form.index},
                )
        except OSError as error:
            self.close()
            raise AudioError(
                f"cannot open {self._direction} device {form.name!r}: {error}; "
                "`edgevoice doctor` lists the others"
            ) from error

    def touch(self) -> int:
        """Note a callback; return the time."""
        self._alive_ns = time.monotonic_ns()
        return self._alive_ns

    def lost(self) -> AudioError | None:
        """Return what to raise if the device calls back no more."""
        if self._stream is None or self._format is None:
            return None
        if time.monotonic_ns() - self._alive_ns < _LOST_AFTER_NS:
            return None
        name = self._format.name
        return AudioError(
            f"the {self._direction} device {name!r} is gone (no audio for 1 s); connect it again "
            "or choose another (`edgevoice doctor` lists them)"
        )

    @property
    def latency_s(self) -> float:
        return float(self._stream.get_output_latency()) if self._stream is not None else 0.0

    def close(self) -> None:
        """Let go of the device, or of PortAudio where that does not let go of the device.

        In a thread, since no signal reaches one that waits in PortAudio. A stream that cannot
        be closed keeps PortAudio started, and a core busy, until the process ends.
        """
        stream, portaudio = self._stream, self._portaudio
        self._stream = self._portaudio = None
        if portaudio is None:
            return
        closing = threading.Thread(target=_close, args=(stream, portaudio), daemon=True)
        closing.start()
        with quiet_stderr():  # which that error fills with 100 MB in these 2 s
            closing.join(_CLOSE_WITHIN_S)
        if closing.is_alive():
            _log.warning(
                "PortAudio does not let go of the %s device %r; the program has to be started "
                "again before it can be used",
                self._direction,
                self._format.name if self._format else self._device,
            )


def _close(stream: Any, portaudio: Any) -> None:
    if stream is not None:
        # A stream whose server has died refuses to stop, and is closed all the same.
        with contextlib.suppress(OSError):
            stream.close()
    portaudio.terminate()


class PyAudioSource:
    """A microphone; see :class:`edgevoice.stages.Source`.

    Args:
        device: Part of the device's name; "" is the default.
        queue_ms: Audio that may wait to be read.
    """

    def __init__(self, device: str = "", queue_ms: float = 2000.0) -> None:
        self._stream = _Stream("input", device)
        self._queue = FrameQueue(queue_ms)
        self._channels = 1
        self._continue = 0
        self._resampler: StreamResampler[Int16] = StreamResampler(SAMPLE_RATE_HZ, SAMPLE_RATE_HZ)

    @property
    def dropped_frames(self) -> int:
        """Frames that nobody read in time."""
        return self._queue.dropped_frames

    def start(self) -> None:
        """Open the microphone. Raises :class:`AudioError` or :class:`MissingDependencyError`."""
        form = self._stream.choose()
        self._channels = form.channels
        self._resampler = StreamResampler(form.rate_hz, SAMPLE_RATE_HZ, "int16", "LQ")
        self._continue = load_pyaudio().paContinue
        self._stream.open(self._captured)

    def _captured(
        self, data: bytes, count: int, times: dict[str, float], status: int
    ) -> tuple[None, int]:
        now_ns = self._stream.touch()
        block = np.frombuffer(data, dtype=np.int16)
        if self._channels > 1:
            block = block.reshape(-1, self._channels).mean(axis=1).astype(np.int16)
        converted = self._resampler.convert(block)
        self._queue.push(converted, now_ns - round(self._resampler.delay_s * 1e9))
        return None, self._continue

    def read(self, timeout_s: float) -> Frame | None:
        """Return the next frame; see :meth:`edgevoice.stages.Source.read`."""
        frame = self._queue.read(timeout_s)
        if frame is None and (error := self._stream.lost()):
            self._queue.fail(error)
            return self._queue.read(0)
        return frame

    def stop(self) -> None:
        """Close the microphone."""
        self._stream.close()
        self._queue.close()


class PyAudioSink(PlayoutSink):
    """A speaker; see :class:`edgevoice.stages.Sink`.

    Once the device is gone, :meth:`write` raises :class:`AudioError` and nothing is pending.

    Args:
        device: Part of the device's name; "" is the default.
    """

    def __init__(self, device: str = "") -> None:
        super().__init__()
        self._stream = _Stream("output", device)
        self._channels = 1
        self._continue = 0
        self._rate_hz = SAMPLE_RATE_HZ
        self._resampler: StreamResampler[Int16] = StreamResampler(SAMPLE_RATE_HZ, SAMPLE_RATE_HZ)
        self._ready: Int16 = np.zeros(0, dtype=np.int16)

    def start(self) -> None:
        """Open the speaker. Raises :class:`AudioError` or :class:`MissingDependencyError`."""
        form = self._stream.choose()
        self._channels, self._rate_hz = form.channels, form.rate_hz
        self._resampler = StreamResampler(SAMPLE_RATE_HZ, form.rate_hz, "int16", "LQ")
        self._continue = load_pyaudio().paContinue
        self._stream.open(self._wanted)

    def _wanted(
        self, data: None, count: int, times: dict[str, float], status: int
    ) -> tuple[bytes, int]:
        now_ns = self._stream.touch()
        latency_s = times["output_buffer_dac_time"] - times["current_time"]
        if not 0 < latency_s < _LONGEST_LATENCY_S:
            latency_s = self._stream.latency_s
        while len(self._ready) < count:
            missing = count - len(self._ready)
            need = max(1, round(missing * SAMPLE_RATE_HZ / self._rate_hz))
            held_s = self._resampler.delay_s + len(self._ready) / self._rate_hz
            leaves_s = latency_s + held_s + need / SAMPLE_RATE_HZ
            pulled = self.playout.pull(need, now_ns + round(leaves_s * 1e9))
            self._ready = np.concatenate((self._ready, self._resampler.convert(pulled)))
        out, self._ready = self._ready[:count], self._ready[count:]
        if self._channels > 1:
            out = np.repeat(out, self._channels)
        return out.tobytes(), self._continue

    def write(self, samples: Int16) -> None:
        """Queue samples. Raises :class:`AudioError` once the device is gone."""
        if error := self._fallen_silent():
            raise error
        super().write(samples)

    def pending_samples(self) -> int:
        """Samples written and not played yet; 0 once the device is gone."""
        return 0 if self._fallen_silent() else super().pending_samples()

    def _fallen_silent(self) -> AudioError | None:
        error = self._stream.lost()
        if error:
            self.playout.close()
        return error

    def stop(self) -> None:
        """Close the speaker; what is queued is not played."""
        self.playout.close()
        self._stream.close()
