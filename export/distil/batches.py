"""Batches of training speech: batch n of a corpus and a seed is the same whenever it is asked for.

Owns the drawing of clips, joining them with pauses, augmenting, features and padding; how wide a
batch is follows from the plan. Numpy only: a trainer's threads call :meth:`Batches.batch`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgevoice.errors import ExportError
from edgevoice.export.distil import augment
from edgevoice.export.distil.alphabet import Alphabet, least_frames
from edgevoice.export.distil.augment import Augmentation
from edgevoice.export.distil.fbank import FLOOR, HOP, fbank
from edgevoice.export.distil.sentences import transcript
from edgevoice.export.distil.shards import Clip
from edgevoice.frames import SAMPLE_RATE_HZ, Float32

FRAME_SAMPLES = 2 * HOP
"""Of an output frame."""
LONGEST_SAMPLES = 16 * SAMPLE_RATE_HZ
_CANDIDATES = 128
"""Utterances drawn for a batch and sorted by length: neighbours need little padding."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one step hears.

    Attributes:
        features: float32, [clips, frames, 80]; padding is :data:`~.fbank.FLOOR`.
        frames: Frames of each clip.
        targets: Numbers of the tokens said, all clips joined.
        target_lengths: Tokens of each clip.
        names: Of the recordings that each clip was joined of.
    """

    features: Float32
    frames: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]
    target_lengths: npt.NDArray[np.int64]
    names: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class _Utterance:
    """Clips to be joined, and the pauses before, between and after them in samples."""

    clips: Sequence[int]
    pauses: Sequence[int]
    samples: int


class Batches:
    """Draws batches.

    Args:
        clips: The corpus; clips longer than :data:`LONGEST_SAMPLES` are left out, those whose
            text the alphabet does not cover, and those too short for CTC to write their text in.
        alphabet: Of the targets.
        batch_frames: Feature frames of a batch, padding included.
        seed: For all that is drawn.
        how: The augmentation.

    Attributes:
        left_out: How many clips are not drawn, by the reason.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        alphabet: Alphabet,
        *,
        batch_frames: int,
        seed: int,
        how: Augmentation,
    ) -> None:
        self._clips: list[Clip] = []
        self._texts: list[list[int]] = []
        self.left_out: Counter[str] = Counter()
        for clip in clips:
            text = transcript(clip.line.text)
            if why := _unfit(clip.line.samples, text, alphabet):
                self.left_out[why] += 1
            else:
                self._clips.append(clip)
                self._texts.append(alphabet.encode(text))
        if not self._clips:
            raise ExportError(
                "no utterance can be trained on: all are too long, too short for their words or "
                "without words"
            )
        self._between = alphabet.between
        self._batch_samples = batch_frames * HOP
        self._seed = seed
        self._how = how

    def batch(self, number: int) -> Batch:
        """Return batch ``number``."""
        random = np.random.default_rng([self._seed, 0x62, number])
        drawn = [self._utterance(random) for _ in range(_CANDIDATES)]
        drawn.sort(key=lambda utterance: utterance.samples)
        # Neighbours from a place drawn at random, the longest of them last.
        last = int(random.integers(_CANDIDATES))
        count = max(1, self._batch_samples // (drawn[last].samples + HOP))
        chosen = drawn[max(0, last - count + 1) : last + 1]
        heard = [self._hear(utterance, random) for utterance in chosen]
        frames = np.array([len(features) for features, _ in heard], np.int64)
        features = np.full((len(heard), frames.max(), heard[0][0].shape[1]), FLOOR, np.float32)
        for row, (found, _) in enumerate(heard):
            features[row, : len(found)] = found
        targets = np.array([token for _, said in heard for token in said], np.int64)
        lengths = np.array([len(said) for _, said in heard], np.int64)
        names = [[self._clips[i].name for i in utterance.clips] for utterance in chosen]
        return Batch(features, frames, targets, lengths, names)

    def leave_out(self, names: Collection[str]) -> None:
        """Draw the recordings ``names`` no more.

        Raises:
            ExportError: Nothing would be left.
        """
        kept = [i for i, clip in enumerate(self._clips) if clip.name not in names]
        if not kept:
            raise ExportError("all of the speech has words that are not what is said")
        self._clips = [self._clips[i] for i in kept]
        self._texts = [self._texts[i] for i in kept]

    def _utterance(self, random: np.random.Generator) -> _Utterance:
        clips = [int(random.integers(len(self._clips)))]
        samples = self._clips[clips[0]].line.samples
        while samples < 5 * SAMPLE_RATE_HZ and random.random() < 0.35:
            clips.append(int(random.integers(len(self._clips))))
            samples += self._clips[clips[-1]].line.samples
        lead = float(random.choice((0.0, 0.05, 0.1, 0.2, 0.4, 0.8)))
        between = [float(random.uniform(0.05, 0.6)) for _ in clips[1:]]
        seconds = [lead, *between, float(random.uniform(0.1, 0.6))]
        pauses = [int(second * SAMPLE_RATE_HZ) for second in seconds]
        return _Utterance(clips, pauses, samples + sum(pauses))

    def _hear(
        self, utterance: _Utterance, random: np.random.Generator
    ) -> tuple[Float32, list[int]]:
        parts: list[Float32] = [np.zeros(utterance.pauses[0], np.float32)]
        said: list[int] = []
        for number, pause in zip(utterance.clips, utterance.pauses[1:], strict=True):
            samples = self._clips[number].samples().astype(np.float32) / np.float32(32768.0)
            parts += [samples, np.zeros(pause, np.float32)]
            said += (self._between if said else []) + self._texts[number]
        heard = augment.of_samples(np.concatenate(parts), self._how, random)
        features = np.maximum(fbank(heard), FLOOR)
        return augment.of_features(features, self._how, random), said


def _unfit(samples: int, text: str, alphabet: Alphabet) -> str:
    if samples > LONGEST_SAMPLES:
        return f"longer than {LONGEST_SAMPLES / SAMPLE_RATE_HZ:g} s"
    if not text or not alphabet.covers(text):
        return "with other letters" if text else "without words"
    frames = least_frames(alphabet.encode(text))
    return "too short for its words" if frames * FRAME_SAMPLES > samples else ""
