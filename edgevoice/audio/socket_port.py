"""A client at the far end of a socket as microphone and speaker.

Owns framing and resampling of what comes in, and the pace of what goes out. Knows nothing of
WebSockets: bytes come in through :meth:`SocketSource.feed`, and go out through two functions that
the server gives to :class:`SocketSink`.

What was *played*: the client plays what it gets at once and in order, so a chunk begins at its
sending or at the end of the chunk before, whichever is later. The network's delay and the client's
own buffer are not known here and not counted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from edgevoice.audio.frame_queue import FrameQueue
from edgevoice.audio.playout import Playout, PlayoutSink
from edgevoice.audio.resample import StreamResampler
from edgevoice.frames import SAMPLE_RATE_HZ, Frame, Int16, ms_to_samples

CHUNK_MS = 20.0
LEAST_LEAD_MS = 40.0
MOST_LEAD_MS = 160.0
"""Audio that a client may hold unplayed: little, since a client that does not drop it when told to
is heard that much longer; it grows where a busy machine sends late."""

_LEAD_DECAY = 0.98
"""Of the extra lead, with each chunk that was sent in time: halved in 0.7 s."""

_PIECE_MS = 100
_IDLE_S = 1.0


class SocketSource:
    """Takes mono int16 blocks of any length; gives frames.

    Args:
        queue_ms: Audio that may wait (200 at least); beyond it the oldest is dropped and counted.
    """

    def __init__(self, queue_ms: float = 2000.0) -> None:
        self._queue_ms = max(queue_ms, 2.0 * _PIECE_MS)
        self._queue = FrameQueue(self._queue_ms)
        self._rate_hz = SAMPLE_RATE_HZ
        self._resampler = self._new_resampler()
        self._started = False

    @property
    def dropped_frames(self) -> int:
        """Frames that came and were never read."""
        return self._queue.dropped_frames

    @property
    def started(self) -> bool:
        """Whether audio has come."""
        return self._started

    def set_rate(self, rate_hz: int) -> None:
        """Expect audio at ``rate_hz``; before the first :meth:`feed`."""
        self._rate_hz = rate_hz
        self._resampler = self._new_resampler()

    def _new_resampler(self) -> StreamResampler[Int16]:
        return StreamResampler(self._rate_hz, SAMPLE_RATE_HZ, "int16", "LQ")

    def feed(self, samples: Int16) -> None:
        """Take the next block (int16, shape ``[n]``, at the client's rate), which ends now."""
        self._started = True
        self._queue.push(self._resampler.convert(samples), time.monotonic_ns())

    def pieces(self, samples: Int16) -> list[Int16]:
        """Cut a block into pieces that :meth:`has_room` speaks of."""
        size = self._rate_hz * _PIECE_MS // 1000
        return [samples[i : i + size] for i in range(0, len(samples), size)]

    @property
    def has_room(self) -> bool:
        """Whether another piece would fit without dropping anything."""
        return self._queue.queued_ms + 2 * _PIECE_MS <= self._queue_ms

    def close(self) -> None:
        """Note that the client has gone: what it sent can still be read, then the source ends."""
        self._queue.close()

    def start(self) -> None:
        """Do nothing: audio comes whenever the client sends it."""

    def read(self, timeout_s: float) -> Frame | None:
        """Return the next frame, or None when none came in time.

        Raises:
            EOFError: The client has gone and everything was read.
        """
        return self._queue.read(timeout_s)

    def stop(self) -> None:
        """Take no more audio."""
        self._queue.close()


class SocketSink(PlayoutSink):
    """Sends the agent's voice at the pace of speech, a small lead ahead.

    Args:
        send: Takes one chunk: int16, shape ``[n]``, at the client's rate. Must not block.
        send_clear: Tells the client to drop what it has not played. Must not block.
        least_lead_ms: How far ahead of the client's playing it sends, where it is never late.
        most_lead_ms: How far at most.
    """

    def __init__(
        self,
        send: Callable[[Int16], None],
        send_clear: Callable[[], None],
        *,
        least_lead_ms: float = LEAST_LEAD_MS,
        most_lead_ms: float = MOST_LEAD_MS,
    ) -> None:
        # The client falls silent by itself on `clear`, so nothing is faded out on this side. Before
        # a pause it gets the last 5 ms again, faded.
        super().__init__(Playout(fade_ms=0.0))
        self._send = send
        self._send_clear = send_clear
        self._least_lead_ns = self._lead_ns = round(least_lead_ms * 1e6)
        self._most_lead_ns = round(most_lead_ms * 1e6)
        self._chunk_samples = ms_to_samples(CHUNK_MS)
        self._resampler: StreamResampler[Int16] = StreamResampler(SAMPLE_RATE_HZ, SAMPLE_RATE_HZ)
        self._filtering = False
        self._gain = 1.0
        self._playing_until_ns = 0
        # Held while a chunk goes from the playout to the wire: a clear falls before or after it.
        self._order = threading.Lock()
        self._stopping = threading.Event()
        self._taken_back = threading.Event()
        self._thread: threading.Thread | None = None

    def set_rate(self, rate_hz: int) -> None:
        """Send at ``rate_hz`` from the next chunk on."""
        with self._order:
            self._resampler = StreamResampler(SAMPLE_RATE_HZ, rate_hz)

    def start(self) -> None:
        """Begin to send."""
        self._thread = threading.Thread(target=self._pace, name="edgevoice-socket-out", daemon=True)
        self._thread.start()

    def set_gain(self, gain: float) -> None:
        """Play at ``gain`` from now on; quieter is heard at once, and louder a lead later."""
        with self._order:
            if gain < self._gain:
                self._take_back()
            self._gain = gain
            self.playout.set_gain(gain)

    def hold(self) -> int:
        """Pause and keep what is queued, and what the client has not played."""
        with self._order:
            self._take_back()
            return self.playout.hold()

    def release(self, again: Int16) -> None:
        """End a hold: play ``again``, then what was kept."""
        with self._order:
            self._gain = 1.0
            self.playout.release(again)

    def _take_back(self) -> None:
        """Let the client drop what it has not played; it is sent again, otherwise or later."""
        if self.playout.take_back():
            self._playing_until_ns = 0
            self._resampler.finish()
            self._filtering = False
            self._send_clear()
            self._taken_back.set()

    def clear(self) -> int:
        """Drop what is unsent and tell the client to drop what it has not played.

        Returns how many samples will not be heard. Only what the client had time to play counts
        as played.
        """
        with self._order:
            self._gain = 1.0
            dropped = self.playout.clear() + self.playout.recall()
            self._playing_until_ns = 0
            self._resampler.finish()
            self._filtering = False
            self._send_clear()
            return dropped

    def stop(self) -> None:
        """End sending; what is unsent is dropped."""
        self._stopping.set()
        self._taken_back.set()
        self.playout.close()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _pace(self) -> None:
        waited = False
        while not self._stopping.is_set():
            if not self.playout.queued_samples():
                self._finish_speech()
                self.playout.wait_for_samples(_IDLE_S)
                waited = False
                continue
            ahead_ns = self._playing_until_ns - time.monotonic_ns() - self._lead_ns
            if ahead_ns > 0:
                waited = not self._taken_back.wait(ahead_ns / 1e9)
                continue
            if self._taken_back.is_set():
                # The client plays nothing until it has what follows, which is late for no fault.
                self._taken_back.clear()
                waited = False
            if waited:
                self._set_lead(late_ns=-ahead_ns)
                waited = False
            self._send_chunk()

    def _set_lead(self, late_ns: int) -> None:
        """Keep a lead that covers twice the lateness of late."""
        extra_ns = round((self._lead_ns - self._least_lead_ns) * _LEAD_DECAY)
        self._lead_ns = min(self._least_lead_ns + max(extra_ns, 2 * late_ns), self._most_lead_ns)

    def _send_chunk(self) -> None:
        with self._order:
            count = min(self.playout.queued_samples(), self._chunk_samples)
            if not count:
                return  # Cleared since we looked.
            begin_ns = max(time.monotonic_ns(), self._playing_until_ns)
            self._playing_until_ns = begin_ns + count * 1_000_000_000 // SAMPLE_RATE_HZ
            chunk = self._resampler.convert(self.playout.pull(count, self._playing_until_ns))
            self._filtering = True
            if len(chunk):
                self._send(chunk)

    def _finish_speech(self) -> None:
        """Send what the resampling filter still holds: a word's last milliseconds."""
        with self._order:
            if self._filtering and not self.playout.queued_samples():
                self._filtering = False
                rest = self._resampler.finish()
                if len(rest):
                    self._send(rest)
