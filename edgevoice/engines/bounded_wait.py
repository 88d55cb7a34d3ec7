"""A recogniser that is waited for so long and no longer.

Owns the thread on which a decode runs that nobody may have to wait for: native code cannot be
interrupted, so a decode that takes too long runs on to its end, unheard, and the next one waits for
it within its own time.
"""

from __future__ import annotations

import math
import threading
import time

from edgevoice.frames import Float32
from edgevoice.stages import Expected, Recogniser, RecogniserModel, Transcript

SWIFT_MS = 300.0
"""A recogniser whose decodes take longer is not asked before the whole text is wanted: what it
finds comes too late to be of use, and holds up the others."""


class BoundedRecogniser:
    """One conversation's; all methods are called on one thread.

    Args:
        model: Opens the recogniser, which the decodes' threads use one at a time.
        wait_ms: How long :meth:`conclude` waits; None: as long as it takes, without a thread.
    """

    def __init__(self, model: RecogniserModel, wait_ms: float | None) -> None:
        self._model = model
        self._wait_ms = wait_ms
        self._recogniser = model.open()
        self._unheard: list[Float32] = []
        self._decode: _Decode | None = None
        self._took_ms = 0.0

    def accept(self, samples: Float32) -> None:
        """Append float32 samples, 16 kHz, any length; a decode may be running."""
        self._unheard.append(samples)

    def partial(self) -> Transcript | None:
        """Return a growing text where one is due; None also where it would hold others up."""
        if self._wait_ms is not None and (self._busy() or self._took_ms > SWIFT_MS):
            return None
        self._feed()
        began_s = time.monotonic()
        found = self._recogniser.partial()
        took_ms = (time.monotonic() - began_s) * 1000.0
        if took_ms > SWIFT_MS:
            self._took_ms = took_ms
        return found

    def conclude(self, expected: Expected = "turn") -> Transcript | None:
        """Return the text of all audio since the last reset; None when it takes too long.

        Raises:
            Exception: Whatever the engine raised.
        """
        if self._wait_ms is None:
            self._feed()
            return self._recogniser.conclude(expected)
        until_s = time.monotonic() + self._wait_ms / 1000.0
        if self._busy() and not self._ended_by(until_s):
            return None
        self._feed()
        self._decode = _Decode(self._recogniser, expected)
        if not self._ended_by(until_s):
            self._took_ms = math.inf
            return None
        self._took_ms = self._decode.took_ms
        return self._decode.result()

    def reset(self) -> None:
        """Forget the utterance; a decode that is still running is nobody's from now on."""
        self._unheard.clear()
        if self._busy():
            self._recogniser = self._model.open()
        else:
            self._recogniser.reset()

    def _busy(self) -> bool:
        return self._decode is not None and self._decode.is_alive()

    def _ended_by(self, until_s: float) -> bool:
        assert self._decode is not None
        self._decode.join(max(0.0, until_s - time.monotonic()))
        return not self._decode.is_alive()

    def _feed(self) -> None:
        for samples in self._unheard:
            self._recogniser.accept(samples)
        self._unheard.clear()


class _Decode(threading.Thread):
    """One decode; begun at once, on the cores of the thread that begins it."""

    def __init__(self, recogniser: Recogniser, expected: Expected) -> None:
        super().__init__(name="edgevoice-second-pass", daemon=True)
        self._recogniser = recogniser
        self._expected = expected
        self._heard: Transcript | None = None
        self._raised: Exception | None = None
        self.took_ms = 0.0
        self.start()

    def run(self) -> None:
        began_s = time.monotonic()
        try:
            self._heard = self._recogniser.conclude(self._expected)
        except Exception as error:
            self._raised = error
        self.took_ms = (time.monotonic() - began_s) * 1000.0

    def result(self) -> Transcript:
        if self._raised is not None:
            raise self._raised
        assert self._heard is not None
        return self._heard
