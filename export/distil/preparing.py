"""Prepares a training: from a Whisper and a folder of speech to a plan and starting weights.

Owns what is asked of the user's material, and the files `plan.json` and `start.npz` that
:mod:`edgevoice.export.distil.training` begins with. Needs no torch.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgevoice.errors import ArtifactError, ConfigError, ExportError
from edgevoice.export.distil import alphabet, corpus, pieces, plan, start
from edgevoice.export.distil.alphabet import Alphabet
from edgevoice.export.distil.files import PLAN, START
from edgevoice.export.distil.plan import Plan, Stage
from edgevoice.export.distil.sentences import transcript
from edgevoice.export.distil.shards import Clip
from edgevoice.export.families import whisper_checkpoint, whisper_ctranslate2
from edgevoice.export.families.whisper_weights import Weights
from edgevoice.frames import Float32, to_float32
from edgevoice.whole_file import write_whole

_FITTED_CLIPS = 80
_FEWEST_LETTERS = 8
_WIDEST = 768
"""Whisper small's. A larger encoder is no streaming recogniser for a small device."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be trained.

    Attributes:
        whisper: A Whisper in CTranslate2's or Hugging Face's format.
        speech: Folders of shards.
        chunk: Output frames (20 ms) that are decoded at once.
        left: Output frames of context before them.
        letters: All that it is to write but spaces; empty: what occurs in the transcripts.
        pieces: Of words, that it is to write, the blank counted; 0 for letters.
        new_layers: Behind Whisper's.
        stages: None for the default.
        batch_frames: Feature frames of a batch.
        seed: For all that is drawn.
        allow_pickle: Pickled weights may be read.
    """

    whisper: Path
    speech: Sequence[Path]
    chunk: int = 32
    left: int = 192
    letters: str = ""
    pieces: int = 0
    new_layers: int = 1
    stages: tuple[Stage, ...] | None = None
    batch_frames: int = 7500
    seed: int = 0
    allow_pickle: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """What was prepared.

    Attributes:
        plan: The training.
        speech: One line: how much there is.
        explained: Share of the variance of Whisper's features that the fit explains.
    """

    plan: Plan
    speech: str
    explained: float


def prepare(wanted: Wanted, work: Path) -> Prepared:
    """Write plan and starting weights into ``work``.

    Raises:
        ArtifactError: The source is no Whisper, or too large a one.
        ConfigError: There is no speech, chunk and left context do not go together, or there are
            not as many pieces of words as are wanted; or a training of another plan is in
            ``work``.
        ExportError: There is too little speech.
        MissingDependencyError: What learns pieces of words is not installed.
    """
    whisper = read_whisper(wanted.whisper, wanted.allow_pickle)
    spoken = corpus.read(wanted.speech, ())
    before = _before(work / PLAN)
    texts = [transcript(clip.line.text) for clip in spoken.training]
    shape = start.shape(
        whisper.sizes,
        new_layers=wanted.new_layers,
        chunk=wanted.chunk,
        left=wanted.left,
        tokens=_alphabet(wanted, texts, before).tokens,
    )
    stages = wanted.stages or plan.default_stages(wanted.chunk, 1500, 12_000)
    made = Plan(shape, stages, batch_frames=wanted.batch_frames, seed=wanted.seed)
    if before is not None:
        _require_same(work / PLAN, before, made)
    work.mkdir(parents=True, exist_ok=True)
    fold = start.fit(_material(spoken.training, wanted.seed), whisper.sizes.n_mels, wanted.seed)
    held = io.BytesIO()
    np.savez(held, allow_pickle=False, **start.tensors(whisper, shape, fold, wanted.seed))
    write_whole(work / START, held.getvalue())
    write_whole(work / PLAN, json.dumps(made.as_json(), indent=1).encode())
    return Prepared(made, spoken.summary(), fold.explained)


def read_whisper(source: Path, allow_pickle: bool) -> Weights:
    """Read a Whisper whose encoder can be trained here.

    Raises:
        ArtifactError: It is none, or wider than Whisper small.
    """
    whisper: Weights
    if (source / "model.bin").is_file():
        whisper = whisper_ctranslate2.read(source)
    elif not (source / "config.json").is_file():
        raise ArtifactError(
            f"{source} is no Whisper: it has neither model.bin (CTranslate2) nor config.json "
            "(Hugging Face)"
        )
    else:
        whisper = whisper_checkpoint.read(source, allow_pickle)
    width = whisper.sizes.n_audio_state
    if width > _WIDEST:
        raise ArtifactError(
            f"{source}: its encoder is {width} wide; up to {_WIDEST} (Whisper small) can be "
            "made to stream"
        )
    return whisper


def _alphabet(wanted: Wanted, texts: Sequence[str], before: Plan | None) -> Alphabet:
    letters = alphabet.of(wanted.letters or alphabet.letters_of(texts)).letters
    if len(letters) < _FEWEST_LETTERS:
        raise ExportError(
            f"the transcripts have {len(letters)} different letters that occur 20 times or more; "
            "more speech is needed, or its letters (option letters)"
        )
    if mistaken := alphabet.taken_for_bytes(letters):
        raise ConfigError(
            f"with {mistaken} as the last of its letters in Unicode, sherpa-onnx takes an alphabet "
            f"for one of bytes; add another to --letters, as {letters}ə"
        )
    if not wanted.pieces:
        return alphabet.of(letters)
    if before is not None:
        begun = Alphabet(before.shape.tokens)
        # More speech would make others of them.
        if len(begun.tokens) == wanted.pieces and begun.letters == letters and not begun.between:
            return begun
    return pieces.learn(texts, letters, wanted.pieces)


def _material(clips: Sequence[Clip], seed: int) -> list[Float32]:
    random = np.random.default_rng([seed, 0x6D])
    chosen = random.choice(len(clips), min(_FITTED_CLIPS, len(clips)), replace=False)
    return [to_float32(clips[i].samples()) for i in chosen]


def _before(path: Path) -> Plan | None:
    if not path.is_file():
        return None
    return plan.from_json(json.loads(path.read_text(encoding="utf-8")))


def _require_same(path: Path, before: Plan, made: Plan) -> None:
    """Refuse a folder with another training; more speech may have brought another letter."""
    if before == made:
        return
    why = "its shape, stages or seed differs"
    if before == replace(made, shape=replace(made.shape, tokens=before.shape.tokens)):
        there, wanted = (Alphabet(p.shape.tokens).summary() for p in (before, made))
        why = f"its alphabet differs: {there} there, {wanted} now"
    raise ConfigError(f"{path} is of another training ({why}); choose another folder")
