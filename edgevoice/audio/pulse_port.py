"""Microphone and speaker of a PulseAudio (or PipeWire) server through ``parec`` and ``pacat``.

For where PyAudio cannot be built, Termux first. Owns the two child processes and their pipes.
Raw 16 kHz mono s16le goes through the pipes; the server converts to what its devices have.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import shutil
import subprocess
import termios
import threading
import time

import numpy as np

from edgevoice.audio.frame_queue import FrameQueue
from edgevoice.audio.playout import PlayoutSink
from edgevoice.audio.portaudio import AudioDevice, Direction
from edgevoice.errors import AudioError, MissingDependencyError
from edgevoice.frames import SAMPLE_RATE_HZ, Frame, Int16

_FORMAT = ("--raw", "--format=s16le", f"--rate={SAMPLE_RATE_HZ}", "--channels=1")
_START_TIMEOUT_S = 5.0
_PIPE_BYTES = 4096  # one page, the least that a pipe can hold
_TICK_S = 0.010
_LEAST_LEAD_S, _MOST_LEAD_S = 0.020, 0.100
_LEAD_DECAY_S = 0.000_05  # a tick, so 5 ms a second
_STALLED_AFTER_NS = 3_000_000_000
_KINDS: dict[Direction, str] = {"input": "source", "output": "sink"}


def program(name: str) -> str:
    """Return the path of a PulseAudio program, or say which package has it."""
    if found := shutil.which(name):
        return found
    raise MissingDependencyError(
        f"{name} is not installed; apt install pulseaudio-utils (Termux: pkg install pulseaudio)"
    )


def list_pulse_devices() -> list[AudioDevice]:
    """Return the server's sources and sinks.

    Raises:
        MissingDependencyError: ``pactl`` is not installed.
        AudioError: No server answers.
    """
    defaults = dict(
        line.split(": ", 1) for line in _pactl("info").splitlines() if line.startswith("Default S")
    )
    devices = []
    for direction, kind in _KINDS.items():
        default = defaults.get(f"Default {kind.capitalize()}", "")
        for line in _pactl("list", "short", f"{kind}s").splitlines():
            name = line.split("\t")[1]
            devices.append(AudioDevice("pulse", direction, name, name == default))
    return devices


def _pactl(*arguments: str) -> str:
    try:
        done = subprocess.run(
            [program("pactl"), *arguments],
            capture_output=True,
            text=True,
            timeout=_START_TIMEOUT_S,
            env={**os.environ, "LC_ALL": "C"},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise AudioError(
            f"the PulseAudio server does not answer within {_START_TIMEOUT_S:g} s; restart it"
        ) from None
    if done.returncode:
        raise AudioError(
            f"no PulseAudio server answers ({_last_line(done.stderr)}); start one: "
            "`pulseaudio --start`"
        )
    return done.stdout


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else "it said nothing"


def _device_option(direction: Direction, wanted: str) -> list[str]:
    if not wanted:
        return []
    names = [device.name for device in list_pulse_devices() if device.direction == direction]
    for name in names:
        if wanted.lower() in name.lower():
            return [f"--device={name}"]
    known = ", ".join(repr(name) for name in names)
    raise AudioError(f"no {direction} device named {wanted!r}; known: {known}")


def _stalled(what: str) -> AudioError:
    return AudioError(
        f"the {what}'s PulseAudio server has stopped for {_STALLED_AFTER_NS / 1e9:g} s; restart it"
    )


class _Child:
    """A ``parec`` or ``pacat`` process."""

    def __init__(self, name: str, options: list[str]) -> None:
        self._name = name
        # A session of its own: Ctrl-C ends the conversation and not the port under it.
        self.process = subprocess.Popen(
            [program(name), *_FORMAT, *options],
            stdin=subprocess.DEVNULL if name == "parec" else subprocess.PIPE,
            stdout=subprocess.PIPE if name == "parec" else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            bufsize=0,
        )

    def died(self) -> AudioError:
        """Wait for the end of the process and word it."""
        try:
            self.process.wait(1.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
        stderr = self.process.stderr
        said = _last_line(stderr.read().decode(errors="replace")) if stderr else ""
        return AudioError(
            f"{self._name} has ended ({said}); is the PulseAudio server running? `pactl info`"
        )

    def end(self) -> None:
        """End the process and close what leads to it."""
        self.process.terminate()
        try:
            self.process.wait(1.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


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
        self._child: _Child | None = None
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
        options = [f"--latency-msec={self._latency_ms}", *_device_option("input", self._device)]
        self._child = _Child("parec", options)
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
        self._child: _Child | None = None
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
        self._child = _Child("pacat", options + _device_option("output", self._device))
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
