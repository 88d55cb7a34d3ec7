"""The baseline: a plain serial cascade on the same weights, behind the daemon's wire format.

The VAD hears the turn; 700 ms of silence end it; then the whole turn is transcribed, then the whole
answer is written, then all of it is spoken, then it is sent. Nothing overlaps and nothing is
prepared. Speech over the agent stops it, after the daemon's own `turns.barge_in_ms`.

    python benchmarks/cascade.py --port 0
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import threading
import time
from collections import deque
from types import FrameType

import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from edgevoice.audio.resample import resample
from edgevoice.audio.socket_port import SocketSink, SocketSource
from edgevoice.config import load, override
from edgevoice.engines.edges import Continued, Paused, Started
from edgevoice.events import ClearNotice, Notice, TranscriptNotice
from edgevoice.frames import FRAME_MS, SAMPLE_RATE_HZ, Float32, to_float32, to_int16
from edgevoice.history import History, fit
from edgevoice.loading import load_engines
from edgevoice.protocols import pcm
from edgevoice.settings import Settings
from edgevoice.weights import Engines

END_SILENCE_MS = 700.0


class Conversation:
    """One caller."""

    def __init__(self, connection: ServerConnection, engines: Engines, settings: Settings) -> None:
        self._connection = connection
        self._engines = engines
        self._settings = settings
        self._source = SocketSource(queue_ms=60_000.0)
        self._sink = SocketSink(
            lambda samples: self._send(pcm.encode_audio(samples)),
            lambda: self._send(pcm.encode_notice(ClearNotice(0.0))),
        )
        self._history = History(settings.language_model.system_prompt)
        self._recogniser = engines.recogniser.open()
        self._model = engines.language_model.open()

    def hold(self) -> None:
        self._model.prefill(self._history.messages())
        self._send(pcm.encode_ready(1, SAMPLE_RATE_HZ))
        threading.Thread(target=self._receive, daemon=True).start()
        self._sink.start()
        try:
            self._listen()
        except EOFError:
            pass
        finally:
            self._sink.stop()
            self._model.close()

    def _receive(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            for message in self._connection:
                if isinstance(message, bytes):
                    self._source.feed(pcm.decode_audio(message))
        self._source.close()

    def _listen(self) -> None:
        vad, edges = self._engines.vad.open(), self._engines.vad.open_edges()
        lookback = round(
            (self._settings.vad.preroll_ms + self._settings.vad.min_speech_ms) / FRAME_MS
        )
        recent: deque[Float32] = deque(maxlen=lookback + 4)
        turn: list[Float32] = []
        paused_ms: float | None = None
        heard_ms = 0.0
        while True:
            frame = self._source.read(1.0)
            if frame is None:
                continue
            samples = to_float32(frame.samples)
            heard_ms += FRAME_MS
            recent.append(samples)
            if turn:
                turn.append(samples)
            for edge in edges.feed(vad.accept(samples)):
                match edge:
                    case Started():
                        paused_ms = None
                        turn = turn or list(recent)
                    case Continued(speech_ms=speech_ms):
                        if (
                            self._sink.pending_samples()
                            and speech_ms >= self._settings.turns.barge_in_ms
                        ):
                            self._sink.clear()
                    case Paused(end_ms=end_ms):
                        paused_ms = end_ms
            if paused_ms is not None and heard_ms - paused_ms >= END_SILENCE_MS:
                if not self._sink.pending_samples():
                    self._answer(np.concatenate(turn))
                turn, paused_ms = [], None

    def _answer(self, audio: Float32) -> None:
        self._recogniser.reset()
        self._recogniser.accept(audio)
        text = self._recogniser.conclude().text
        if not text:
            return
        self._tell(TranscriptNotice(0.0, "user", text, final=True))
        self._history.user_said(text)
        room = self._settings.language_model.max_answer_tokens
        fitted = fit(self._history.messages(), self._model, room)
        answer = "".join(self._model.generate(fitted.messages)).strip()
        self._history.agent_said(answer, cut_off=False)
        self._tell(TranscriptNotice(0.0, "agent", answer, final=True))
        speech = list(self._engines.speech.synthesise(answer))
        if speech:
            rate_hz = self._engines.speech.sample_rate_hz
            self._sink.write(to_int16(resample(np.concatenate(speech), rate_hz, SAMPLE_RATE_HZ)))

    def _tell(self, notice: Notice) -> None:
        self._send(pcm.encode_notice(notice))

    def _send(self, message: str | bytes) -> None:
        with contextlib.suppress(ConnectionClosed):
            self._connection.send(message)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    arguments = parser.parse_args()
    began = time.monotonic()
    settings = override(load(), arguments.set)
    engines = load_engines(settings)
    server = serve(
        lambda connection: Conversation(connection, engines, settings).hold(),
        "127.0.0.1",
        arguments.port,
        compression=None,
    )

    def end(number: int, frame: FrameType | None) -> None:
        del number, frame
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, end)
    port = server.socket.getsockname()[1]
    print(
        f"listening on ws://127.0.0.1:{port} (pid {os.getpid()}), "
        f"ready in {time.monotonic() - began:.1f} s",
        flush=True,
    )
    server.serve_forever()


if __name__ == "__main__":
    main()
