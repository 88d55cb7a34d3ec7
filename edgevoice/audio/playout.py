"""The agent's voice between the one who writes it and the speaker that pulls it.

Owns the queue of samples, the count of what was *played* (which is what history and the echo
canceller need, and not what was synthesised), turning it down, pausing it, and falling silent
without a click. Leaves the device, its clock and its sample rate to the ports.
"""

from __future__ import annotations

import threading
import time
from collections import deque

import numpy as np

from edgevoice.frames import SAMPLE_RATE_HZ, Int16, ms_to_samples

_REMEMBERED_SAMPLES = 2 * SAMPLE_RATE_HZ


class Playout:
    """A bounded, thread-safe buffer of mono 16 kHz int16 that a speaker pulls from.

    Args:
        capacity_s: Audio that may wait. A writer beyond it blocks until there is room, or until
            :meth:`clear` or :meth:`close` makes what it holds pointless. A session paces itself
            and stays far below.
        fade_ms: Length of the ramp to silence when :meth:`clear` cuts into speech.
        pause_fade_ms: Length of the ramp of :meth:`hold`, :meth:`release` and :meth:`set_gain`.
    """

    def __init__(
        self, capacity_s: float = 60.0, fade_ms: float = 5.0, pause_fade_ms: float = 5.0
    ) -> None:
        self._capacity = max(1, round(capacity_s * SAMPLE_RATE_HZ))
        self._fade = ms_to_samples(fade_ms)
        self._pause_fade = max(1, ms_to_samples(pause_fade_ms))
        self._gain = self._gain_wanted = 1.0
        self._held = False
        self._hold_tail = 0  # samples that still sound before a hold is silent
        self._chunks: deque[Int16] = deque()
        self._queued = 0
        self._blocked = 0  # samples in the hands of writers that wait for room
        self._fading = 0  # samples at the head of the queue that are already ramped down
        self._pulled = 0
        self._left = 0
        # (leaves_ns, pulled by then, the samples as they were written)
        self._leaving: deque[tuple[int, int, Int16]] = deque()
        self._recent = np.zeros(_REMEMBERED_SAMPLES, dtype=np.int16)
        self._given_out = 0  # pulled, silence included: the position after self._recent
        self._generation = 0
        self._closed = False
        self._changed = threading.Condition()

    def write(self, samples: Int16) -> None:
        """Queue int16 samples, shape ``[n]``; copied. Dropped once the buffer is closed."""
        rest = np.array(samples, dtype=np.int16)
        with self._changed:
            generation = self._generation
            while len(rest) and not self._closed and generation == self._generation:
                part = rest[: self._capacity - self._queued]
                rest = rest[len(part) :]
                if len(part):
                    self._chunks.append(part)
                    self._queued += len(part)
                    self._changed.notify_all()
                if len(rest):
                    self._blocked += len(rest)
                    self._changed.wait()
                    self._blocked -= len(rest)

    def pull(self, count: int, leaves_ns: int = 0) -> Int16:
        """Take ``count`` samples for the speaker, zero-filled where nothing is queued.

        Args:
            count: Samples wanted.
            leaves_ns: ``time.monotonic_ns()`` at which these will have left the speaker, for a
                device with latency; until then they count as pending. 0 is now.
        """
        out = np.zeros(count, dtype=np.int16)
        with self._changed:
            done = 0
            wanted = min(count, self._hold_tail) if self._held else count
            while done < wanted and self._chunks:
                chunk = self._chunks.popleft()
                part = chunk[: wanted - done]
                out[done : done + len(part)] = part
                done += len(part)
                if len(part) < len(chunk):
                    self._chunks.appendleft(chunk[len(part) :])
            self._hold_tail = max(0, self._hold_tail - done)
            written = out[:done].copy()
            self._shape(out[:done])
            self._queued -= done
            self._fading = max(0, self._fading - done)
            self._pulled += done
            self._settle()
            if leaves_ns and done:
                self._leaving.append((leaves_ns, self._pulled, written))
            elif done:
                self._left = self._pulled
                self._leaving.clear()
            self._remember(out)
            if done:
                self._changed.notify_all()
        return out

    def _shape(self, out: Int16) -> None:
        """Apply the gain in place, moving evenly from what it is to what is wanted."""
        target = 0.0 if self._held else self._gain_wanted
        if not len(out) or self._gain == target == 1.0:
            return
        step = 1.0 / self._pause_fade
        moved = np.arange(1, len(out) + 1, dtype=np.float32) * step
        low, high = sorted((self._gain, target))
        gains = np.clip(self._gain + (moved if target > self._gain else -moved), low, high)
        self._gain = float(gains[-1])
        out[:] = (out * gains).astype(np.int16)

    def _remember(self, out: Int16) -> None:
        self._given_out += len(out)
        if len(out) >= _REMEMBERED_SAMPLES:
            self._recent = out[-_REMEMBERED_SAMPLES:].copy()
        elif len(out):
            self._recent = np.concatenate((self._recent[len(out) :], out))

    def _settle(self) -> None:
        """Count as played what has left the speaker by now."""
        now_ns = time.monotonic_ns()
        while self._leaving and self._leaving[0][0] <= now_ns:
            self._left = self._leaving.popleft()[1]

    def played_samples(self) -> int:
        """Samples that have left the speaker; the silence between them is not counted."""
        with self._changed:
            self._settle()
            return self._left

    def pending_samples(self) -> int:
        """Samples written, not dropped, and not played yet."""
        with self._changed:
            self._settle()
            return self._queued + self._blocked + self._pulled - self._left

    def queued_samples(self) -> int:
        """Samples that a speaker would get if it pulled now; during a hold there are none."""
        with self._changed:
            return self._available()

    def _available(self) -> int:
        return min(self._queued, self._hold_tail) if self._held else self._queued

    def set_gain(self, gain: float) -> None:
        """Play at ``gain`` (1 is as written) from the next pull on."""
        with self._changed:
            self._gain_wanted = gain

    def hold(self) -> int:
        """Pause: keep what is queued, and pull silence once a short fade is over.

        Returns how many of the samples written so far, and not played, will still sound.
        """
        with self._changed:
            self._settle()
            if not self._held:
                self._held = True
                self._hold_tail = min(self._queued, round(self._gain * self._pause_fade))
            return self._pulled - self._left + self._hold_tail

    def release(self, again: Int16) -> None:
        """End a hold: play ``again`` (int16, shape ``[n]``), then what was kept, fading in.

        Without a hold only the gain is restored, and ``again`` is not played.
        """
        with self._changed:
            self._gain_wanted = 1.0
            if not self._held or self._closed:
                return
            self._held = False
            self._gain = 0.0
            queued = np.concatenate((*self._chunks, np.zeros(0, dtype=np.int16)))
            parts = (queued[: self._hold_tail], again, queued[self._hold_tail :])
            self._chunks = deque(np.array(part, dtype=np.int16) for part in parts if len(part))
            self._queued += len(again)
            self._hold_tail = 0
            self._changed.notify_all()

    def last_played(self, count: int) -> Int16:
        """Return the last ``count`` samples that were pulled, silence included.

        The reference of an echo canceller. Shape ``[count]``, at most the last 2 s; zeros from
        before the first pull.
        """
        with self._changed:
            return self._recent[_REMEMBERED_SAMPLES - count :].copy()

    def given_out(self) -> int:
        """Return how many samples were pulled so far, silence included."""
        with self._changed:
            return self._given_out

    def excerpt(self, start: int, count: int) -> Int16:
        """Return samples ``start`` to ``start + count`` of all that was pulled, silence included.

        Shape ``[count]``; zeros for what lies further back than 2 s, or was not pulled yet.
        """
        out = np.zeros(count, dtype=np.int16)
        with self._changed:
            oldest = self._given_out - _REMEMBERED_SAMPLES
            first, last = max(start, oldest), min(start + count, self._given_out)
            if first < last:
                out[first - start : last - start] = self._recent[first - oldest : last - oldest]
        return out

    def clear(self) -> int:
        """Drop what is queued but for a short ramp to silence; return how many were dropped.

        A hold ends with it, and the gain is 1 again for what is written next.
        """
        with self._changed:
            fade = min(self._hold_tail, self._fade) if self._held else self._fade
            gain = self._gain
            self._held = False
            self._hold_tail = 0
            self._gain = self._gain_wanted = 1.0
            queued: Int16 = np.concatenate((*self._chunks, np.zeros(0, dtype=np.int16)))
            if self._fading:
                tail = queued[: self._fading]
            else:
                tail = queued[:fade]
                ramp = np.linspace(gain, 0.0, len(tail), dtype=np.float32)
                tail = (tail * ramp).astype(np.int16)
            dropped = len(queued) - len(tail) + self._blocked
            self._chunks = deque([tail]) if len(tail) else deque()
            self._queued = self._fading = len(tail)
            self._generation += 1
            self._changed.notify_all()
            return dropped

    def recall(self) -> int:
        """Take back what was pulled and has not left yet, for a device that was told to drop it.

        It is never counted as played. Returns how many samples that were.
        """
        with self._changed:
            self._settle()
            return self._unpull()

    def take_back(self) -> int:
        """Do what :meth:`recall` does, and queue it again as it was written.

        What of it has been heard by now is counted to the sample. During a hold, and while a
        :meth:`clear` fades, nothing is taken back. Returns how many samples were.
        """
        with self._changed:
            self._settle()
            if self._held or self._fading or not self._leaving:
                return 0
            leaves_ns, until, _ = self._leaving[0]
            left_ns = max(0, leaves_ns - time.monotonic_ns())
            unheard = min(until - self._left, -(-left_ns * SAMPLE_RATE_HZ // 1_000_000_000))
            self._left = until - unheard
            written: Int16 = np.concatenate([samples for *_, samples in self._leaving])
            count = self._unpull()
            self._chunks.appendleft(written[written.size - count :])
            self._queued += count
            self._changed.notify_all()
            return count

    def _unpull(self) -> int:
        """Forget what was pulled and has not left; return how many samples that were."""
        recalled = self._pulled - self._left
        self._pulled = self._left
        self._leaving.clear()
        if recalled:
            unheard = min(recalled, _REMEMBERED_SAMPLES)
            silence = np.zeros(unheard, dtype=np.int16)
            self._recent = np.concatenate((silence, self._recent[:-unheard]))
            self._given_out -= recalled
        return recalled

    def close(self) -> None:
        """Release blocked writers; later writes are dropped."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def wait_for_samples(self, timeout_s: float) -> bool:
        """Wait until something is queued or the buffer is closed; return whether something is.

        For ports that send nothing while there is nothing to say.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._available() or self._closed, timeout_s)
            return self._available() > 0


class PlayoutSink:
    """The part of :class:`edgevoice.stages.Sink` that every port with a :class:`Playout` shares."""

    def __init__(self, playout: Playout | None = None) -> None:
        self.playout = playout or Playout()

    def write(self, samples: Int16) -> None:
        """Queue mono 16 kHz int16, shape ``[n]``."""
        self.playout.write(samples)

    def played_samples(self) -> int:
        """Samples that have left the speaker, silence not counted."""
        return self.playout.played_samples()

    def pending_samples(self) -> int:
        """Samples written and not played yet."""
        return self.playout.pending_samples()

    def last_played(self, count: int) -> Int16:
        """Return the last ``count`` samples that went out: the echo canceller's reference."""
        return self.playout.last_played(count)

    def set_gain(self, gain: float) -> None:
        """Play at ``gain`` (1 is as written) from now on."""
        self.playout.set_gain(gain)

    def hold(self) -> int:
        """Pause and keep what is queued; return how many samples will still sound."""
        return self.playout.hold()

    def release(self, again: Int16) -> None:
        """End a hold: play ``again``, then what was kept."""
        self.playout.release(again)

    def clear(self) -> int:
        """Drop what is queued and fall silent; return how many samples were dropped."""
        return self.playout.clear()
