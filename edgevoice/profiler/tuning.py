"""Searches what suits this device by measuring, within a time limit.

Three steps, each on fresh measurements. Stage by stage, what may be chosen races against the
present choice (:mod:`edgevoice.profiler.race`). What won alone must win as a conversation, where
the stages share the cores: all of it together, and the most promising changes on their own, are
held against the default, and the worse ones drop out. The one that is left is then held against the
default in new pairs of conversations (:mod:`edgevoice.profiler.contest`), which alone decide: a
winner's own race flatters it. Where nothing won, the most promising loser is held against the
default all the same, so that "already best" has an interval too.

What becomes of the result is :mod:`edgevoice.profiler.tuned_profile`'s business.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgevoice import config
from edgevoice.latency import percentile
from edgevoice.profiler import candidates
from edgevoice.profiler.candidates import Candidate, Choice
from edgevoice.profiler.children import Child
from edgevoice.profiler.contest import Block, hold, hold_block
from edgevoice.profiler.race import Trial, race
from edgevoice.profiler.rounds import Open
from edgevoice.profiler.spread import Ratio, paired_ratio
from edgevoice.settings import Settings
from edgevoice.store import Store

CONFIDENCE = 0.95
_RACES_SHARE = 0.45
_FINALS_SHARE = 0.6
"""Of the time: races end at the one, finals at the other; the rest is the confirmation's."""

_FINALISTS = 3

_WIDE = 0.9
"""An interval that reaches below this leaves room for a gain that one would want."""

NOT_JUDGED = "how well it recognises, answers or sounds was not judged"


@dataclass(frozen=True, slots=True)
class Tuned:
    """What the search came to.

    Attributes:
        trials: All that was tried, in order.
        chosen: The changes that were held against the default in the end.
        voice_to_voice: Time with them over time without; None where there was nothing to try, or
            too few conversations had an answer.
        before_ms: Median of the pairs with the default.
        after_ms: With the changes.
        pairs: Of conversations.
        unfinished: Whether time ran out before every candidate was tried.
    """

    trials: tuple[Trial, ...]
    chosen: tuple[Candidate, ...] = ()
    voice_to_voice: Ratio | None = None
    before_ms: float = 0.0
    after_ms: float = 0.0
    pairs: int = 0
    unfinished: bool = False

    @property
    def gains(self) -> bool:
        """Whether conversations are surely faster with what was chosen."""
        return self.voice_to_voice is not None and (
            self.voice_to_voice.interval(CONFIDENCE)[1] < 1.0
        )

    @property
    def verdict(self) -> str:
        """What was gained over the default, or that it is best, in one line with its interval."""
        if self.voice_to_voice is None:
            return "nothing is open here, or nothing else could be measured: the default stays"
        told = (
            f"{ratio_text(self.voice_to_voice, CONFIDENCE)} of the default's time, median "
            f"{self.before_ms:.0f} -> {self.after_ms:.0f} ms, {self.pairs} pairs"
        )
        what = "; ".join(map(str, self.chosen))
        if self.gains:
            return f"a gain: with {what}, voice-to-voice takes {told}"
        said = (
            "the default is already best within noise: with the most promising change "
            f"({what}) voice-to-voice takes {told}"
        )
        if self.voice_to_voice.interval(CONFIDENCE)[0] < _WIDE:
            said += "; that noise is wide: a quieter machine or a longer --limit tells more"
        return said


def tune(
    settings: Settings,
    speech: Sequence[Path],
    limit_s: float,
    tell: Callable[[str], object],
    open_child: Open = Child,
) -> Tuned:
    """Search for at most about ``limit_s``.

    Args:
        settings: Where the search starts.
        speech: Recorded questions.
        limit_s: Counted from the call.
        tell: Takes a line on each trial.
        open_child: Starts the processes that measure.
    """
    began_s = time.monotonic()
    trials, best, unfinished = _races(
        settings, str(speech[0]), began_s + limit_s * _RACES_SHARE, tell, open_child
    )
    finalists = _finalists(trials, best)
    if not finalists:
        return Tuned(tuple(trials), unfinished=unfinished)
    ends_s = began_s + limit_s * _FINALS_SHARE
    chosen = _final(settings, finalists, speech, ends_s, tell=tell, open_child=open_child)
    changed = _with(settings, chosen)
    held = hold(settings, changed, speech, began_s + limit_s, open_child)
    blocks = [block for block in held if block]
    pairs = [pair for block in blocks for pair in block]
    if len(blocks) < 2:  # of which there is no interval
        return Tuned(tuple(trials), unfinished=unfinished)
    return Tuned(
        tuple(trials),
        chosen,
        paired_ratio(blocks),
        percentile([before for before, _ in pairs], 50.0),
        percentile([after for _, after in pairs], 50.0),
        len(pairs),
        unfinished,
    )


def describe(trial: Trial) -> str:
    """Return a line on a trial."""
    if trial.failure:
        return f"{trial.candidate}: {trial.failure}"
    verdict = "faster" if trial.adopted else "not surely faster than what was chosen"
    if trial.candidate.kind == "scheme" and trial.adopted:
        verdict += f" ({NOT_JUDGED})"
    told = ratio_text(trial.ratio, CONFIDENCE)
    return f"{trial.candidate}: {told} of the time, {trial.pairs} pairs: {verdict}"


def ratio_text(ratio: Ratio, confidence: float) -> str:
    """Write a ratio with its interval."""
    low, high = ratio.interval(confidence)
    return f"{ratio.value:.3f} ({low:.3f} to {high:.3f})"


def _races(
    settings: Settings,
    speech: str,
    ends_s: float,
    tell: Callable[[str], object],
    open_child: Open,
) -> tuple[list[Trial], dict[tuple[str, str], Trial], bool]:
    """Return all trials, the adopted ones by stage and kind, and whether time ran out."""
    store = Store.default()
    wanted = list(candidates.choices(settings, store))
    trials: list[Trial] = []
    best: dict[tuple[str, str], Trial] = {}
    for number, choice in enumerate(wanted):
        left_s = ends_s - time.monotonic()
        if left_s <= 0:
            return trials, best, True
        now = _with(settings, [trial.candidate for trial in best.values()])
        # What was chosen since may leave less open: two threads need two cores.
        still = candidates.of(now, choice.stage, choice.kind, store)
        if not still:
            continue
        share_s = left_s / (len(wanted) - number)
        open_choice = Choice(choice.stage, choice.kind, still)
        for trial in race(
            now, open_choice, speech, share_s, level=CONFIDENCE, open_child=open_child
        ):
            trials.append(trial)
            tell(describe(trial))
            if trial.adopted:
                best[choice.stage, choice.kind] = trial
    return trials, best, False


def _finalists(
    trials: Sequence[Trial], best: Mapping[tuple[str, str], Trial]
) -> list[tuple[Candidate, ...]]:
    """Return the changes that conversations are held with: all winners, and the best of them alone.

    Without a winner it is the loser that is least surely slower.
    """
    won = sorted(best.values(), key=lambda trial: trial.ratio.value)
    if won:
        together = tuple(trial.candidate for trial in best.values())
        alone = [(trial.candidate,) for trial in won] if len(won) > 1 else []
        return [together, *alone][:_FINALISTS]
    measured = [trial for trial in trials if not trial.failure]
    hopeful = sorted(measured, key=lambda trial: trial.ratio.interval(CONFIDENCE)[1])[:1]
    return [(trial.candidate,) for trial in hopeful]


def _final(
    settings: Settings,
    finalists: Sequence[tuple[Candidate, ...]],
    speech: Sequence[Path],
    ends_s: float,
    *,
    tell: Callable[[str], object],
    open_child: Open,
) -> tuple[Candidate, ...]:
    """Return the finalist whose conversations were fastest; the worse half drops out each time."""
    left = list(finalists)
    blocks: dict[tuple[Candidate, ...], list[Block]] = {each: [] for each in left}

    def middle(each: tuple[Candidate, ...]) -> float:
        ratios = [after / before for block in blocks[each] for before, after in block]
        return percentile(ratios, 50.0) if ratios else 1.0

    number = 0
    while len(left) > 1 and time.monotonic() < ends_s:
        for each in left:
            changed = _with(settings, each)
            blocks[each].append(hold_block(settings, changed, speech, number, open_child))
            tell(f"conversations with {'; '.join(map(str, each))}: about {middle(each):.3f}")
        left = sorted(left, key=middle)[: (len(left) + 1) // 2]
        number += 1
    return left[0]


def _with(settings: Settings, chosen: Sequence[Candidate]) -> Settings:
    return config.override(settings, [candidate.assignment for candidate in chosen])
