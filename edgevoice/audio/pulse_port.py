"""Microphone and speaker of a PulseAudio (or PipeWire) server through ``parec`` and ``pacat``.

For where PyAudio cannot be built, Termux first. Owns the two pipes, which carry raw 16 kHz mono
s16le (the server converts to what its devices have). Leaves starting the programs to
:mod:`edgevoice.audio.pulse_client`.
"""

from __future__ import annotations

import array
import fcntl
import os
import termios
import threading
import time

import numpy as np

from edgevoice.audio.frame_queue import FrameQueue
from edgevoice.audio.playout import PlayoutSink
from edgevoice.audio.pulse_client import PulseChild, device_option
from edgevoice.errors import AudioError
from edgevoice.frames import SAMPLE_RATE_HZ, Frame, Int16

_START_TIMEOUT_S = 5.0
_PIPE_BYTES = 4096  # one page, the least that a pipe can hold
_TICK_S = 0.010
_LEAST_LEAD_S, _MOST_LEAD_S = 0.020, 0.100
_LEAD_DECAY_S = 0.000_05  # a tick, so 5 ms a second
_STALLED_AFTER_NS = 3_000_000_000


def _stalled(what: str) -> AudioError:
    return AudioError(
        f"the {what}'s PulseAudio server has stopped for {_STALLED_AFTER_NS / 1e9:g} s; restart it"
    )


class PulseSource:
    """A microphone; see :class:`edgevoice.stages.Source`.

    Args:
        device: Part of the source's name; "" is the server's default.
        queue_ms: Audio that may wait to be read.
        latency_ms: What the server is asked to collect before it delivers.
    """

    def __init__(self, device: str = "", queue_ms: float = 2000.0, latency_ms: int = 20) -> None:
        self._device = device
        self._latency_ms = latency_ms
        self._queue = FrameQueue(queue_ms)
        self._child: PulseChild | None = None
        self._thread: threading.Thread | None = None
        self._heard = threading.Event()
        self._alive_ns = 0
        self._failure: AudioError | None = None
        self._stopped = False

    @property
    def dropped_frames(self) -> int:
        """Frames that nobody read in time."""
        return self._queue.dropped_frames

    def start(self) -> None:
        """Start to record; returns when the first audio is there.

        Raises:
            MissingDependencyError: ``parec`` is not installed.
            AudioError: No server answers, or the source delivers nothing.
        """
        options = [f"--latency-msec={self._latency_ms}", *device_option("input", self._device)]
        self._child = PulseChild("parec", options)
        self._thread = threading.Thread(target=self._capture, name="pulse-source", daemon=True)
        self._thread.start()
        heard = self._heard.wait(_START_TIMEOUT_S)
        if heard and self._failure is None:
            return
        self.stop()
        raise self._failure or AudioError(
            f"the microphone delivers nothing for {_START_TIMEOUT_S:g} s; "
            "is it suspended? `pactl list short sources`"
        )

    def _capture(self) -> None:
        child = self._child
        assert child is not None and child.process.stdout is not None
        descriptor = child.process.stdout.fileno()
        odd = b""
        while data := os.read(descriptor, 1 << 16):
            self._alive_ns = captured_ns = time.monotonic_ns()
            data = odd + data
            whole = len(data) - len(data) % 2  # a read may end between the bytes of a sample
            odd = data[whole:]
            self._queue.push(np.frombuffer(data[:whole], dtype="<i2"), captured_ns)
            self._heard.set()
        if not self._stopped:
            self._failure = child.died()
            self._queue.fail(self._failure)
        self._heard.set()

    def read(self, timeout_s: float) -> Frame | None:
        """Return the next frame; see :meth:`edgevoice.stages.Source.read`."""
        frame = self._queue.read(timeout_s)
        silent_ns = time.monotonic_ns() - self._alive_ns
        if frame is None and self._child is not None and silent_ns > _STALLED_AFTER_NS:
            self._queue.fail(_stalled("microphone"))
            return self._queue.read(0)
        return frame

    def stop(self) -> None:
        """End the recording."""
        self._stopped = True
        if self._child is not None and self._thread is not None:
            self._child.process.terminate()
            self._thread.join(2.0)
            self._child.end()
            self._child = None
        self._queue.close()


class PulseSink(PlayoutSink):
    """A speaker; see :class:`edgevoice.stages.Sink`.

    The pipe is topped up to 20 ms (to 100 ms at most, where a busy machine keeps the thread
    waiting) whenever the server has taken some. So the server's clock sets the pace, and what
    :meth:`clear` cannot take back is that and the server's own buffer.

    Once the server is gone, :meth:`write` raises :class:`AudioError` and nothing is pending.

    Args:
        device: Part of the sink's name; "" is the server's default.
        latency_ms: The buffer that the server is asked to keep.
    """

    def __init__(self, device: str = "", latency_ms: int = 40) -> None:
        super().__init__()
        self._device = device
        self._latency_ms = latency_ms
        self._child: PulseChild | None = None
        self._thread: threading.Thread | None = None
        self._flowing = threading.Event()
        self._stopped = threading.Event()
        self._failure: AudioError | None = None

    def start(self) -> None:
        """Start to play; returns when the server takes audio.

        Raises:
            MissingDependencyError: ``pacat`` is not installed.
            AudioError: No server answers, or the sink takes nothing.
        """
        options = ["--playback", f"--latency-msec={self._latency_ms}"]
        self._child = PulseChild("pacat", options + device_option("output", self._device))
        assert self._child.process.stdin is not None
        descriptor = self._child.process.stdin.fileno()
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._thread = threading.Thread(
            target=self._play, args=(descriptor,), name="pulse-sink", daemon=True
        )
        self._thread.start()
        flows = self._flowing.wait(_START_TIMEOUT_S)
        if flows and self._failure is None:
            return
        self.stop()
        raise self._failure or AudioError(
            f"the speaker takes nothing for {_START_TIMEOUT_S:g} s; "
            "is it suspended? `pactl list short sinks`"
        )

    def _play(self, descriptor: int) -> None:
        child = self._child
        assert child is not None
        waiting = array.array("i", [0])
        given = 0
        lead_s = _LEAST_LEAD_S
        alive_ns = last_ns = time.monotonic_ns()
        while not self._stopped.wait(_TICK_S):
            now_ns = time.monotonic_ns()
            fcntl.ioctl(descriptor, termios.FIONREAD, waiting)
            unread = waiting[0] // 2
            if given > unread:
                self._flowing.set()
            # On a busy machine this thread is kept waiting, and the pipe must bridge that.
            late_s = (now_ns - last_ns) / 1e9
            last_ns = now_ns
            lead_s = max(_LEAST_LEAD_S, lead_s - _LEAD_DECAY_S, min(1.5 * late_s, _MOST_LEAD_S))
            room = round(lead_s * SAMPLE_RATE_HZ) - unread
            if room > 0:
                alive_ns = now_ns
                out = self.playout.pull(
                    room, now_ns + round((self._latency_ms / 1000 + lead_s) * 1e9)
                )
                try:
                    os.write(descriptor, out.astype("<i2").tobytes())
                except BrokenPipeError:
                    self._fail(child.died())
                given += room
            elif child.process.poll() is not None:
                self._fail(child.died())
            elif self._flowing.is_set() and now_ns - alive_ns > _STALLED_AFTER_NS:
                self._fail(_stalled("speaker"))

    def _fail(self, error: AudioError) -> None:
        self._failure = error
        self.playout.close()
        self._stopped.set()
        self._flowing.set()

    def write(self, samples: Int16) -> None:
        """Queue samples. Raises :class:`AudioError` once the server is gone."""
        if self._failure is not None:
            raise self._failure
        super().write(samples)

    def pending_samples(self) -> int:
        """Samples written and not played yet; 0 once the server is gone."""
        return 0 if self._failure is not None else super().pending_samples()

    def stop(self) -> None:
        """End playing; what is queued is not played."""
        self._stopped.set()
        self.playout.close()
        if self._thread is not None:
            self._thread.join(2.0)
        if self._child is not None:
            self._child.end()
            self._child = None
