"""A real PulseAudio server of a test's own: a null sink as the speaker, another as the room.

What is played into the sink ``room`` is what the microphone (``room.monitor``) hears; what the
assistant says appears on ``speaker.monitor``. Nothing of the user's own server is touched.
"""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgevoice.errors import AudioError

_SERVER = [
    "pulseaudio",
    "-n",
    "--daemonize=no",
    "--exit-idle-time=-1",
    "--realtime=no",
    "--use-pid-file=no",
    "--system=no",
    "--disable-shm=yes",
]
_RAW = ["--raw", "--format=s16le", "--rate=16000", "--channels=1"]

SPEAKER, ROOM = "speaker", "room"
MICROPHONE = f"{ROOM}.monitor"


class PulseServer:
    def __init__(self, folder: Path) -> None:
        self._socket = folder / "pulse.sock"
        self._log = folder / "pulse.log"
        self.env = {
            "PULSE_SERVER": f"unix:{self._socket}",
            "PULSE_RUNTIME_PATH": str(folder / "runtime"),
            "XDG_RUNTIME_DIR": str(folder),
            "XDG_CONFIG_HOME": str(folder),
        }
        # Without norewinds an idle null sink renders 2 s at once, and whoever starts to record
        # its monitor waits that long for the first sample.
        modules = [
            f"module-native-protocol-unix socket={self._socket} auth-anonymous=1",
            f"module-null-sink sink_name={SPEAKER} rate=16000 channels=1 norewinds=1",
            f"module-null-sink sink_name={ROOM} rate=16000 channels=1 norewinds=1",
        ]
        loads = [argument for module in modules for argument in ("-L", module)]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [*_SERVER, *loads],
                env={**os.environ, **self.env},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + 20
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"pulseaudio did not start: {self._log.read_text()}")
            time.sleep(0.05)
        self.pactl("set-default-sink", SPEAKER)
        self.pactl("set-default-source", MICROPHONE)

    def _answers(self) -> bool:
        asked = subprocess.run(
            ["pactl", "info"], env=self._environment, capture_output=True, check=False
        )
        return asked.returncode == 0

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, **self.env}

    def pactl(self, *arguments: str) -> str:
        return subprocess.run(
            ["pactl", *arguments], env=self._environment, check=True, capture_output=True, text=True
        ).stdout

    def say(self, samples: np.ndarray) -> "subprocess.Popen[bytes]":
        """Play 16 kHz int16 into the room; the caller waits for the returned process."""
        process = subprocess.Popen(
            ["pacat", "--playback", *_RAW, f"--device={ROOM}", "--latency-msec=50"],
            env=self._environment,
            stdin=subprocess.PIPE,
        )
        assert process.stdin is not None
        process.stdin.write(samples.astype("<i2").tobytes())
        process.stdin.close()
        return process

    def freeze(self) -> None:
        """Let the server hang: it keeps its connections and serves none."""
        self._process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        """End the server as a crash would; nothing is told to its clients."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


class Recorder:
    """Records a source of the server; one sample is 1/16000 s of the server's own clock."""

    def __init__(self, server: PulseServer, source: str = f"{SPEAKER}.monitor") -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (a pipe holds only 2 s)
        self._process = subprocess.Popen(
            ["parec", *_RAW, f"--device={source}", "--latency-msec=10"],
            env={**os.environ, **server.env},
            stdout=self._file,
        )
        deadline = time.monotonic() + 10
        while not os.fstat(self._file.fileno()).st_size:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"parec records nothing from {source}")
            time.sleep(0.005)

    def stop(self) -> np.ndarray:
        self._process.terminate()
        self._process.wait()
        with self._file as file:
            file.seek(0)
            whole = file.read()
        return np.frombuffer(whole[: len(whole) // 2 * 2], dtype="<i2")


def tone(seconds: float, hz: float = 440.0, level: float = 10_000.0) -> np.ndarray:
    at = np.arange(round(16_000 * seconds)) / 16_000
    return (level * np.sin(2 * np.pi * hz * at)).astype(np.int16)


def loud_ms(samples: np.ndarray, threshold: int = 500) -> float:
    """Milliseconds that are loud, in windows of 5 ms.

    Gaps that a busy machine tears into the sound do not count; what is lost or doubled does.
    """
    whole = np.abs(samples[: len(samples) // 80 * 80].astype(int)).reshape(-1, 80)
    return float((whole.max(axis=1) > threshold).sum() * 5)


def error_within(seconds: float, act: Callable[[], object]) -> AudioError:
    """Repeat `act` until it raises, and return what."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            act()
        except AudioError as error:
            return error
        time.sleep(0.01)
    raise AssertionError(f"no AudioError within {seconds} s")
