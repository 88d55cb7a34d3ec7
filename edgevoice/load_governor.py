"""How much work this process does at the moment, for all its conversations.

Owns the policy's state, the reading of the device's condition, and the cheaper models, each loaded
when it is first wanted. One thread of its own does all of it, so nobody who talks waits for a
sensor or a disk. Conversations tell it their turns and look at :attr:`LoadGovernor.standing`;
what they make of that is :mod:`edgevoice.load_follower`'s business, the rules are
:mod:`edgevoice.load_policy`'s.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from edgevoice.devices import condition
from edgevoice.devices.root import Root
from edgevoice.errors import EdgevoiceError
from edgevoice.load_policy import (
    MEANINGS,
    Change,
    LoadRules,
    LoadState,
    Measured,
    Reading,
    Step,
    TurnFigures,
    step,
    without,
)
from edgevoice.stages import LanguageModelModel, RecogniserModel

_READING_S = 5.0
"""Between two looks at the device: the clock of a hot one changes within seconds, and a look costs
a process on a Raspberry Pi."""

_REMEMBERED = 20
_CLOSE_TIMEOUT_S = 2.0

log = logging.getLogger("edgevoice.load")


@dataclass(frozen=True, slots=True)
class Cheaper:
    """Loads what the two last steps need; None where the settings name nothing."""

    recogniser: Callable[[], RecogniserModel] | None = None
    language_model: Callable[[], LanguageModelModel] | None = None


@dataclass(frozen=True, slots=True)
class Lost:
    """A step that cannot be taken after all, and why, in one line."""

    step: Step
    detail: str


@dataclass(frozen=True, slots=True)
class Standing:
    """What is in force.

    Attributes:
        taken: The steps, in the order in which they were taken.
        recogniser: To be used in place of the ordinary one, if any.
        language_model: Likewise.
        changes: How many changes there have been.
        latest: The last of them, at most 20, the newest last.
    """

    taken: tuple[Step, ...] = ()
    recogniser: RecogniserModel | None = None
    language_model: LanguageModelModel | None = None
    changes: int = 0
    latest: tuple[Change | Lost, ...] = ()


def read_condition(root: Root) -> Reading | None:
    """Return the device's condition; None where it tells nothing."""
    throttling, celsius = condition.throttling(root), condition.temperature_c(root)
    if throttling is None and celsius is None:
        return None
    return Reading(throttling.now if throttling is not None else (), celsius)


class LoadGovernor:
    """One process's. :meth:`close` ends it.

    Args:
        rules: When to step, and which steps there are.
        cheaper: Loads what steps need; called on the governor's thread.
        read: Reads the device; called there, too.
        reading_s: Seconds between two readings.
    """

    def __init__(
        self,
        rules: LoadRules,
        cheaper: Cheaper | None = None,
        read: Callable[[], Reading | None] = lambda: read_condition(Root()),
        reading_s: float = _READING_S,
    ) -> None:
        self._rules = rules
        self._cheaper = cheaper or Cheaper()
        self._read = read
        self._reading_s = reading_s
        self._state = LoadState()
        self._standing = Standing()
        self._recogniser: RecogniserModel | None = None
        self._language_model: LanguageModelModel | None = None
        self._told: queue.SimpleQueue[TurnFigures | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._govern, name="edgevoice-load", daemon=True)
        if rules.steps:
            self._thread.start()

    # ---------------------------------------------------------------- for other threads

    @property
    def standing(self) -> Standing:
        """What is in force now; another object after each change."""
        return self._standing

    def turn(self, figures: TurnFigures) -> None:
        """Take a turn that is over."""
        if self._thread.is_alive():
            self._told.put(figures)

    def status(self) -> dict[str, Any]:
        """Return what `daemon status` tells: the steps, those taken, and the latest changes."""
        standing = self._standing
        changes = [
            asdict(each) if isinstance(each, Change) else {"direction": "lost", **asdict(each)}
            for each in standing.latest
        ]
        return {
            "steps": [str(each) for each in self._rules.steps],
            "taken": [str(each) for each in standing.taken],
            "changes": standing.changes,
            "latest": changes,
        }

    def close(self) -> None:
        """End the thread and free the cheaper models; no conversation may use them any more."""
        if self._thread.is_alive():
            self._told.put(None)
            self._thread.join(_CLOSE_TIMEOUT_S)
        # A load under way ends with the process; what it gives is not looked at any more.
        for model in (self._recogniser, self._language_model):
            if model is not None:
                model.close()

    # ---------------------------------------------------------------- on the governor's thread

    def _govern(self) -> None:
        tells = True
        look_s = time.monotonic() + self._reading_s
        while True:
            # Where several callers' turns come, they come more often than readings are due.
            if tells and time.monotonic() >= look_s:
                tells = self._look()
                look_s = time.monotonic() + self._reading_s
            try:
                wait_s = max(0.0, look_s - time.monotonic()) if tells else None
                told = self._told.get(timeout=wait_s)
            except queue.Empty:
                continue
            if told is None:
                return
            self._take(told)

    def _look(self) -> bool:
        """Take a reading; return whether the device tells anything, and is worth another look."""
        reading = self._read()
        if reading is not None:
            self._take(reading)
        return reading is not None

    def _take(self, measured: Measured) -> None:
        at_ms = time.monotonic_ns() / 1e6
        self._state, change = step(self._state, at_ms, measured, self._rules)
        if change is None:
            return
        log.info("%s %s: %s", change.direction, change.step, change.detail)
        if change.direction == "up" or self._has_what_it_needs(change.step):
            self._publish(change)

    def _has_what_it_needs(self, wanted: Step) -> bool:
        try:
            if wanted is Step.RECOGNITION and self._recogniser is None:
                assert self._cheaper.recogniser is not None
                self._recogniser = self._cheaper.recogniser()
            if wanted is Step.LANGUAGE_MODEL and self._language_model is None:
                assert self._cheaper.language_model is not None
                self._language_model = self._cheaper.language_model()
        except Exception as error:
            # Whatever a native library raises: the conversation goes on as it was.
            detail = str(error) if isinstance(error, EdgevoiceError) else repr(error)
            log.warning("%s is not possible: %s", wanted, detail)
            self._state, self._rules = without(self._state, self._rules, wanted)
            self._publish(Lost(wanted, detail))
            return False
        return True

    def _publish(self, change: Change | Lost) -> None:
        taken = self._rules.steps[: self._state.taken]
        before = self._standing
        self._standing = replace(
            before,
            taken=taken,
            recogniser=self._recogniser if Step.RECOGNITION in taken else None,
            language_model=self._language_model if Step.LANGUAGE_MODEL in taken else None,
            changes=before.changes + 1,
            latest=(*before.latest, change)[-_REMEMBERED:],
        )


def described(status: Mapping[str, Any]) -> str:
    """Return :meth:`LoadGovernor.status` in one line."""
    if not status["steps"]:
        return "no steps (load.enabled is off, or the settings leave none)"
    taken = [MEANINGS[Step(name)] for name in status["taken"]]
    if not taken:
        return f"nothing is left out; {len(status['steps'])} steps are possible"
    last = next(each for each in reversed(status["latest"]) if each["direction"] != "lost")
    return f"{'; '.join(taken)} (last step {last['direction']}: {last['detail']})"
