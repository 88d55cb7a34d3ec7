"""What the exporter measures of a voice: is it still understood, does it sound alike, is it faster.

Both voices say the same sentences without their own noise, a Whisper that is installed reads them
back, and the sounds are compared. Then they are timed in turn, on one thread and on two, in every
engine that can run them; the quality is that of the faster engine, whose name goes into the
manifest as ``runner``.

Owns the figures; bounds are :mod:`edgevoice.export.gates`'s business.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgevoice import host, manifest
from edgevoice.audio.resample import resample
from edgevoice.engines import speech as engines
from edgevoice.engines.recogniser import load_recogniser
from edgevoice.errors import ArtifactError, EdgevoiceError
from edgevoice.export.calibration import Calibration, default_sentences
from edgevoice.export.checks import costs, sound, weights
from edgevoice.export.paired import PairedRatio, compare
from edgevoice.export.words import spelled, word_errors
from edgevoice.frames import SAMPLE_RATE_HZ, Float32
from edgevoice.settings import RecogniserSettings, SpeechSettings
from edgevoice.stages import Recogniser, Speech
from edgevoice.store import Store

RECOGNISER = "whisper-tiny.en-int8"
_SILENT_DB = -60.0
# A pair takes as long as the voice is slow; the budget keeps a slow one to few pairs.
_PAIRS_BUDGET_S = 20.0
_LEAST_PAIRS, _MOST_PAIRS = 5, 15


def measure(
    reference: Path, candidate: Path, material: Path | None, threads: int
) -> Mapping[str, Any]:
    """Measure the voice in ``candidate`` beside the float voice in ``reference``.

    Returns:
        Figures, ``*_ratio`` being candidate over reference. ``speed_ratio`` (with ``_low`` and
        ``_high``) is for one thread, ``speed_ratio_2`` for two where there are two cores, both in
        the engine that won; ``speed_ratio_onnx`` and ``speed_ratio_sherpa`` are each engine's.
        Under ``engine``: ``runner``, the engine that runs the candidate faster.

    Raises:
        ArtifactError: No engine runs both, or no recogniser is installed.
    """
    sentences = (
        default_sentences("speech") if material is None else Calibration(material).sentences()
    )
    whisper = listener()
    figures: dict[str, Any] = {
        "size_ratio": costs.size_ratio(reference, candidate),
        **weights.compare(reference, candidate),
    }
    runners = contenders(reference, candidate)
    speed: dict[str, dict[int, PairedRatio]] = {}
    own: dict[str, float] = {}
    for runner in runners:
        speed[runner] = {}
        for count in (1, 2) if host.cores() > 1 else (1,):
            pair = Pair.load(reference, candidate, runner, count)
            speed[runner][count] = timed(pair.reference, pair.candidate, sentences)
        own[runner] = speed[runner][1].second_s
        figures[f"speed_ratio_{runner}"] = speed[runner][1].median
        if 2 in speed[runner]:
            figures[f"speed_ratio_{runner}_2"] = speed[runner][2].median
    winner = _faster(candidate, runners, sentences, own)
    for count, ratio in speed[winner].items():
        name = "speed_ratio" if count == 1 else f"speed_ratio_{count}"
        figures |= costs.ratio_figures(name, ratio)
    begun = time.perf_counter()
    pair = Pair.load(reference, candidate, winner, threads)
    figures["load_s"] = time.perf_counter() - begun - pair.reference_load_s
    said = pair.said(sentences)
    figures["rtf"] = own[winner] / (said.seconds / len(sentences))
    figures |= quality(said, whisper)
    return {**figures, "engine": {"runner": winner}}


@dataclass(frozen=True, slots=True)
class Said:
    """Sentences, and the sound that two voices made of each."""

    sentences: Sequence[str]
    first: Sequence[Float32]
    second: Sequence[Float32]
    rate_hz: int

    @property
    def seconds(self) -> float:
        """How long the second took for all."""
        return sum(map(len, self.second)) / self.rate_hz


def quality(said: Said, listener: Recogniser) -> dict[str, float]:
    """Return the figures of what was said; those of a voice that fell silent are NaN."""
    distances, lengths, levels, clipped = [], [], [], []
    wrong = [0, 0]
    total = 0
    for text, *pair in zip(said.sentences, said.first, said.second, strict=True):
        wanted = spelled(text)
        total += len(wanted)
        for side, samples in enumerate(pair):
            wrong[side] += word_errors(wanted, spelled(_heard(listener, samples, said.rate_hz)))
        first, second = pair
        clipped.append(sound.clipped_share(second) - sound.clipped_share(first))
        if not len(first):
            continue
        lengths.append(len(second) / len(first))
        level = sound.level_db(second)
        levels.append(level - sound.level_db(first))
        if not len(second) or not np.isfinite(second).all() or level < _SILENT_DB:
            distances.append(math.nan)
        else:
            mels = (sound.log_mel_db(samples, said.rate_hz) for samples in pair)
            distances.append(sound.distance_db(*mels))
    return {
        "wer": wrong[1] / total,
        "wer_reference": wrong[0] / total,
        "wer_points": 100.0 * (wrong[1] - wrong[0]) / total,
        "words": float(total),
        "log_mel_distance_db": float(np.mean(distances)),
        "duration_ratio": float(np.mean(lengths)),
        "level_difference_db": abs(float(np.mean(levels))),
        "clipped_share": max(0.0, float(np.mean(clipped))),
    }


@dataclass(frozen=True, slots=True)
class Pair:
    """The float voice and the candidate, loaded in one engine."""

    reference: Speech
    candidate: Speech
    reference_load_s: float

    @classmethod
    def load(cls, reference: Path, candidate: Path, runner: str, threads: int) -> Pair:
        """Load both without their own noise."""
        begun = time.perf_counter()
        first = voice(reference, runner, threads)
        spent = time.perf_counter() - begun
        return cls(first, voice(candidate, runner, threads), spent)

    def said(self, sentences: Sequence[str]) -> Said:
        """Let both say every sentence."""
        rate_hz = self.reference.sample_rate_hz
        if rate_hz != self.candidate.sample_rate_hz:
            raise ArtifactError(
                f"the candidate speaks at {self.candidate.sample_rate_hz} Hz, float at {rate_hz}"
            )
        sounds = [[say(v, s) for s in sentences] for v in (self.reference, self.candidate)]
        return Said(sentences, sounds[0], sounds[1], rate_hz)


def voice(folder: Path, runner: str, threads: int) -> Speech:
    """Load the voice in ``folder`` in that engine, without its own noise."""
    return engines.load_unguarded(folder, SpeechSettings(engine=runner, threads=threads), noise=0.0)


def say(speaker: Speech, text: str) -> Float32:
    """Return all the sound of ``text``."""
    return np.concatenate([np.zeros(0, np.float32), *speaker.synthesise(text)])


def timed(first: Speech, second: Speech, sentences: Sequence[str]) -> PairedRatio:
    """Time both voices in turn, each pair on another sentence, the same for both."""
    begun = time.perf_counter()
    say(first, sentences[0])
    say(second, sentences[0])
    spent = time.perf_counter() - begun
    pairs = max(_LEAST_PAIRS, min(_MOST_PAIRS, int(_PAIRS_BUDGET_S / spent)))
    turns = [itertools.cycle(sentences) for _ in range(2)]
    return compare(
        lambda: say(first, next(turns[0])), lambda: say(second, next(turns[1])), pairs=pairs
    )


def contenders(reference: Path, candidate: Path) -> tuple[str, ...]:
    """Return the engines that both voices say something in."""
    found, reasons = [], []
    for runner in engines.RUNNERS:
        try:
            for folder in (reference, candidate):
                engines.runner_of(manifest.read(folder), runner)
                if not len(say(voice(folder, runner, 1), "One two.")):
                    raise ArtifactError(f"{folder} says nothing in {runner}")
        except EdgevoiceError as error:
            reasons.append(f"{runner}: {error}")
        else:
            found.append(runner)
    if not found:
        raise ArtifactError(f"no engine runs {candidate}: {'; '.join(reasons)}")
    return tuple(found)


def _faster(
    candidate: Path, contenders: Sequence[str], sentences: Sequence[str], own: Mapping[str, float]
) -> str:
    """Return the engine that runs the candidate faster, timed in turn when it is close."""
    best = min(contenders, key=lambda runner: own[runner])
    for other in contenders:
        if other != best and own[other] < 1.3 * own[best]:
            first, second = (voice(candidate, runner, 1) for runner in (best, other))
            if timed(first, second, sentences).median < 1.0:
                best = other
    return best


def listener() -> Recogniser:
    """Open the Whisper that reads voices back.

    Raises:
        ArtifactError: It is not installed.
    """
    try:
        folder = Store.default().path(RECOGNISER)
    except ArtifactError as error:
        raise ArtifactError(
            "a voice is judged by what Whisper understands of it, and there is none; "
            f"`edgevoice models pull {RECOGNISER}` fetches it"
        ) from error
    return load_recogniser(folder, RecogniserSettings(model=RECOGNISER)).open()


def _heard(listener: Recogniser, samples: Float32, rate_hz: int) -> str:
    if not len(samples) or not np.isfinite(samples).all():
        return ""
    listener.reset()
    listener.accept(resample(samples, rate_hz, SAMPLE_RATE_HZ))
    return listener.conclude().text
