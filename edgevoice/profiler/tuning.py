"""Searches what suits this device by measuring: threads of each stage, and schemes in the store.

Owns the search: a candidate and the choice so far are loaded side by side and take turns, so that
the machine's drift falls on both (pairs), and what has won alone must win again as a conversation,
where the stages share the cores. What becomes of the result is
:mod:`edgevoice.profiler.tuned_profile`'s business.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgevoice import config
from edgevoice.errors import EdgevoiceError
from edgevoice.profiler.candidates import Candidate, candidates
from edgevoice.profiler.children import CONVERSATION, STAGE, Child
from edgevoice.profiler.rounds import Open
from edgevoice.profiler.spread import Ratio, paired_ratio
from edgevoice.settings import Settings
from edgevoice.store import Store

CONFIDENCE = 0.95
_FEWEST_PAIRS = 5
_MOST_PAIRS = 15
_BLOCKS = 8
_FEWEST_BLOCKS = 3
_BLOCK_PAIRS = 4
_SEARCH_SHARE = 0.6
"""Of the time; the rest shows whether conversations gain by what was found."""

_CLAUSE_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Trial:
    """A candidate against what was chosen before it.

    Attributes:
        candidate: What was tried.
        ratio: Its time over the other's.
        pairs: How many there were.
        adopted: Whether it was surely faster.
        failure: Why it could not be measured, "" if it could.
    """

    candidate: Candidate
    ratio: Ratio
    pairs: int
    adopted: bool
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Tuned:
    """What the search came to.

    Attributes:
        trials: All that was tried, in order.
        chosen: Threads that were adopted, the last of each stage.
        voice_to_voice: Time with all of it over time without, None where nothing was adopted.
        pairs: Of conversations.
        unfinished: Whether time ran out before every candidate was tried.
    """

    trials: tuple[Trial, ...]
    chosen: tuple[Candidate, ...]
    voice_to_voice: Ratio | None
    pairs: int
    unfinished: bool

    @property
    def advice(self) -> tuple[str, ...]:
        """A line on each scheme that is faster: a profile cannot choose a model."""
        return tuple(
            f"[{trial.candidate.stage}] {trial.candidate.value} takes "
            f"{ratio_text(trial.ratio, CONFIDENCE)} of the time: {trial.candidate.assignment}"
            for trial in self.trials
            if trial.adopted and trial.candidate.kind == "scheme"
        )

    @property
    def gains(self) -> bool:
        """Whether conversations are surely faster with what was chosen."""
        return self.voice_to_voice is not None and (
            self.voice_to_voice.interval(CONFIDENCE)[1] < 1.0
        )


def wait_ms(stage: str, sample: Mapping[str, float]) -> float:
    """Return what a turn waits for a stage, of one sample: less is better."""
    match stage:
        case "recogniser":
            return sample["final_ms"]
        case "end-of-turn":
            return sample["judge_ms"]
        case "language-model":
            clause_ms = _CLAUSE_TOKENS * 1000.0 / sample["decode_kept_tokens_per_s"]
            return sample["first_token_kept_ms"] + clause_ms
        case "speech":
            return sample["first_sound_ms"]
    raise ValueError(f"no turn waits for {stage!r} alone")


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
    ends_s = time.monotonic() + limit_s
    search_ends_s = time.monotonic() + limit_s * _SEARCH_SHARE
    wanted = list(candidates(settings, Store.default()))
    trials: list[Trial] = []
    best: dict[str, Candidate] = {}
    for number, candidate in enumerate(wanted):
        left_s = search_ends_s - time.monotonic()
        if left_s <= 0:
            break
        share_s = left_s / (len(wanted) - number)
        now = _with(settings, best)
        # The more that are tried, the surer each must be.
        level = 1.0 - (1.0 - CONFIDENCE) / len(wanted)
        trial = _try(now, candidate, str(speech[0]), share_s, level=level, open_child=open_child)
        trials.append(trial)
        tell(describe(trial))
        if trial.adopted and candidate.kind == "threads":
            best[candidate.stage] = candidate
    unfinished = len(trials) < len(wanted)
    if not best:
        return Tuned(tuple(trials), (), None, 0, unfinished)
    blocks = _conversations(settings, _with(settings, best), speech, ends_s, open_child)
    gained = paired_ratio(blocks)
    pairs = sum(map(len, blocks))
    tell(
        f"conversations with all of it: {ratio_text(gained, CONFIDENCE)} of the time, {pairs} pairs"
    )
    return Tuned(tuple(trials), tuple(best.values()), gained, pairs, unfinished)


def describe(trial: Trial) -> str:
    """Return a line on a trial."""
    what = f"{trial.candidate.stage}: {trial.candidate.kind} {trial.candidate.value}"
    if trial.failure:
        return f"{what}: {trial.failure}"
    verdict = "faster" if trial.adopted else "not surely faster"
    told = ratio_text(trial.ratio, CONFIDENCE)
    return f"{what}: {told} of the time, {trial.pairs} pairs: {verdict}"


def ratio_text(ratio: Ratio, confidence: float) -> str:
    """Write a ratio with its interval."""
    low, high = ratio.interval(confidence)
    return f"{ratio.value:.3f} ({low:.3f} to {high:.3f})"


def _with(settings: Settings, best: dict[str, Candidate]) -> Settings:
    return config.override(settings, [candidate.assignment for candidate in best.values()])


def _try(
    settings: Settings,
    candidate: Candidate,
    speech: str,
    limit_s: float,
    *,
    level: float,
    open_child: Open,
) -> Trial:
    began_s = time.monotonic()
    stage = candidate.stage
    changed = config.override(settings, [candidate.assignment])
    pairs: list[tuple[float, float]] = []
    try:
        with (
            open_child(STAGE, settings, stage=stage, speech=speech) as own,
            open_child(STAGE, changed, stage=stage, speech=speech) as other,
        ):
            for number in range(_MOST_PAIRS):
                late = time.monotonic() - began_s > limit_s
                if number >= _FEWEST_PAIRS and (late or _settled(pairs, level)):
                    break
                pairs.append(_in_turn(own, other, stage, number))
    except EdgevoiceError as error:
        return Trial(candidate, Ratio(1.0, 0.0, 1.0), 0, False, str(error))
    found = paired_ratio([[pair] for pair in pairs])
    return Trial(candidate, found, len(pairs), found.interval(level)[1] < 1.0)


def _in_turn(own: Child, other: Child, stage: str, number: int) -> tuple[float, float]:
    """Measure both, in the other order each time."""
    took: dict[Child, float] = {}
    for child in (own, other) if number % 2 else (other, own):
        (sample,) = child.ask(samples=1)["samples"]
        took[child] = wait_ms(stage, sample)
    return took[own], took[other]


def _settled(pairs: Sequence[tuple[float, float]], level: float) -> bool:
    low, high = paired_ratio([[pair] for pair in pairs]).interval(level)
    return low > 1.0 or high < 1.0


def _conversations(
    settings: Settings,
    changed: Settings,
    speech: Sequence[Path],
    ends_s: float,
    open_child: Open,
) -> list[list[tuple[float, float]]]:
    """Hold conversations with both settings in turn; a pair hears the same question.

    Each block has processes of its own, since one process may be luckier than the next.
    """
    questions = [str(path) for path in speech]
    blocks: list[list[tuple[float, float]]] = []
    longest_s = 0.0
    for number in range(_BLOCKS):
        began_s = time.monotonic()
        if number >= _FEWEST_BLOCKS and began_s + longest_s > ends_s:
            break
        with (
            open_child(CONVERSATION, settings, speech=questions) as own,
            open_child(CONVERSATION, changed, speech=questions) as other,
        ):
            held = [_converse_in_turn(own, other, each) for each in range(_BLOCK_PAIRS)]
        blocks.append([pair for pair in held if pair is not None])
        longest_s = max(longest_s, time.monotonic() - began_s)
    return blocks


def _converse_in_turn(own: Child, other: Child, number: int) -> tuple[float, float] | None:
    """Hold a conversation of one turn with both; None when either gave no answer."""
    took: dict[Child, float | None] = {}
    for child in (own, other) if number % 2 else (other, own):
        turns = child.ask(turns=1, pace="real-time")["turns"]
        took[child] = turns[0]["voice_to_voice_ms"] if turns else None
    before, after = took[own], took[other]
    return None if before is None or after is None else (before, after)
