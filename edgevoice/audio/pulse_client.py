"""PulseAudio's own programs: finding them, asking ``pactl`` for devices, running the other two.

Leaves what goes through their pipes to :mod:`edgevoice.audio.pulse_port`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess

from edgevoice.audio.portaudio import AudioDevice, Direction
from edgevoice.errors import AudioError, MissingDependencyError
from edgevoice.frames import SAMPLE_RATE_HZ

_FORMAT = ("--raw", "--format=s16le", f"--rate={SAMPLE_RATE_HZ}", "--channels=1")
_ANSWER_TIMEOUT_S = 5.0
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
            name, driver = line.split("\t")[1:3]
            devices.append(AudioDevice("pulse", direction, name, name == default, driver))
    return devices


def _pactl(*arguments: str) -> str:
    try:
        done = subprocess.run(
            [program("pactl"), *arguments],
            capture_output=True,
            text=True,
            timeout=_ANSWER_TIMEOUT_S,
            env={**os.environ, "LC_ALL": "C"},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise AudioError(
            f"the PulseAudio server does not answer within {_ANSWER_TIMEOUT_S:g} s; restart it"
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


def device_option(direction: Direction, wanted: str) -> list[str]:
    """Return the option that names the first device with ``wanted`` in its name, in any case.

    Raises:
        AudioError: There is none.
    """
    if not wanted:
        return []
    names = [device.name for device in list_pulse_devices() if device.direction == direction]
    for name in names:
        if wanted.lower() in name.lower():
            return [f"--device={name}"]
    known = ", ".join(repr(name) for name in names)
    raise AudioError(f"no {direction} device named {wanted!r}; known: {known}")


class PulseChild:
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
