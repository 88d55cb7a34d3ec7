"""One answer's text and sound, and how much of both has been heard.

Owns the account of what was made, played, held and said again. Everything is told to it: it
reaches neither the speaker nor the clock. Leaves making the answer to
:mod:`edgevoice.answering`, whose threads share it under ``lock``.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from edgevoice.frames import SAMPLE_RATE_HZ, Int16, ms_to_samples
from edgevoice.history import heard_prefix
from edgevoice.resuming import cut_word_start, quiet_spot, words_between

_REMEMBERED_SAMPLES = 3 * SAMPLE_RATE_HZ
"""Speech behind the playback position that is kept, to say a word again."""

_DOUBTED_SAMPLES = ms_to_samples(60)
"""Before a hold: where the speaker is far away these may not have sounded, as nobody can know. A
word that has begun so late counts as not begun, and the one before it is said again."""

_SAID_MS = 4000.0
_ABOUT_TO_SAY_MS = 400.0
"""Around the playback position: the words of which an echo may be in the microphone. An echo path
of 250 ms and a recogniser's second are behind it; ahead lies the error of the estimate."""

_CLAUSES_AHEAD = 4


@dataclass(slots=True)
class Clause:
    """A piece of the text, and how many samples of it have been made."""

    text: str
    samples: int = 0


@dataclass(frozen=True, slots=True)
class Heard:
    """What of an answer left the speaker, and ``unheard``, what was made of it and did not."""

    text: str
    whole: bool
    unheard: str = ""


@dataclass(slots=True)
class SpokenAnswer:
    """One answer under way. ``played`` below is the speaker's count since it was opened.

    Attributes:
        number: The machine's.
        lock: Guards all but the events and the queue.
        room: Set to wake the voice, which waits until there is room for more.
        clauses: From the one who writes the answer to the voice; None is the end.
        spoken: What was given to the voice so far.
        held: Speech that is made and not released.
        complete: All of it is made.
        sounded: Its first sound was noticed.
    """

    number: int
    cancelled: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    first_audio: threading.Event = field(default_factory=threading.Event)
    room: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    clauses: queue.Queue[str | None] = field(
        default_factory=lambda: queue.Queue(maxsize=_CLAUSES_AHEAD)
    )
    spoken: list[Clause] = field(default_factory=list)
    held: list[Int16] = field(default_factory=list)
    made_samples: int = 0
    complete: bool = False
    sounded: bool = False
    _made: deque[Int16] = field(default_factory=deque)
    _forgotten_samples: int = 0  # of what was made, no longer in `_made`
    _start: int = 0  # the speaker's count at which it begins
    _again: int = 0  # samples that were said a second time
    _furthest: int = 0  # in the answer: what had been heard when it was last held
    _head: int | None = None  # in the answer: where the speaker's queue begins during a hold

    @property
    def text(self) -> str:
        """All text that was given to the voice."""
        return " ".join(clause.text for clause in self.spoken)

    @property
    def paused(self) -> bool:
        """Whether it is between :meth:`pause` and :meth:`go_on`."""
        return self._head is not None

    def add(self, clause: Clause, samples: Int16) -> None:
        """Note sound that was made of ``clause``: int16, 16 kHz, shape ``[n]``."""
        clause.samples += samples.size
        self.made_samples += samples.size
        self._made.append(samples)

    def begin(self, start: int) -> None:
        """Note that it begins when the speaker has played ``start`` samples."""
        self._start = start

    def position(self, played: int) -> int:
        """Return which of the answer's samples is at the speaker."""
        return max(0, played - self._start - self._again)

    def forget_played(self, played: int) -> None:
        """Let go of what was played too long ago to be said again."""
        if self.paused:
            return
        needed = self.position(played) - _REMEMBERED_SAMPLES
        while self._made and self._forgotten_samples + self._made[0].size <= needed:
            self._forgotten_samples += self._made.popleft().size

    def pause(self, played: int, still: int) -> None:
        """Note a hold, after which ``still`` more samples sound."""
        self._head = self.position(played) + still

    def go_on(self) -> Int16:
        """End the hold; return what is to be said again, from the start of the cut word."""
        if self._head is None:
            return np.zeros(0, dtype=np.int16)
        head = self._head - self._forgotten_samples
        kept: Int16 = np.concatenate((*self._made, np.zeros(0, dtype=np.int16)))[: max(0, head)]
        surely = max(0, self._head - _DOUBTED_SAMPLES)
        start = cut_word_start(self._parts(), surely) - self._forgotten_samples
        again = kept[quiet_spot(kept, max(0, start)) :]
        self._furthest = max(self._furthest, self._head)
        self._again += len(again)
        self._head = None
        return again

    def heard(self, played: int) -> Heard:
        """Return the words that were heard, each once however often it was said, and the rest.

        Takes the clauses that nobody has spoken yet out of the queue.
        """
        position = max(self.position(played), self._furthest)
        heard: list[str] = []
        unheard: list[str] = []
        for clause in self.spoken:
            share = position / clause.samples if clause.samples else float(position > 0)
            prefix = heard_prefix(clause.text, share) if position > 0 else ""
            heard += [prefix] if prefix and clause.samples else []
            unheard += clause.text.split()[len(prefix.split()) :]
            position -= clause.samples
        unheard += [clause for clause in self._unspoken() if clause]
        return Heard(" ".join(heard), False, " ".join(unheard))

    def said(self, played: int) -> str:
        """Return what it says around the playback position."""
        position = self.position(played)
        return words_between(
            self._parts(),
            position - ms_to_samples(_SAID_MS),
            position + ms_to_samples(_ABOUT_TO_SAY_MS),
        )

    def _parts(self) -> list[tuple[str, int]]:
        return [(clause.text, clause.samples) for clause in self.spoken]

    def _unspoken(self) -> Iterator[str | None]:
        while True:
            try:
                yield self.clauses.get_nowait()
            except queue.Empty:
                return
