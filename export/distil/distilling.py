"""From a Whisper and speech to a streaming pack: prepare, train, write the graph, compare.

Owns the order of the steps and the folder of a training, in which each step finds what the one
before it left: the same request goes on where it was. What comes out is a float pack in WeNet's
layout, which the family `wenet-ctc` quantises, judges and publishes like any other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgevoice.engines import lexicon
from edgevoice.engines.recogniser import load_recogniser, load_unguarded
from edgevoice.errors import ConfigError, ExportError
from edgevoice.export import words
from edgevoice.export.distil import (
    graph,
    lexicon_making,
    material,
    plan,
    preparing,
    shards,
    torch_side,
)
from edgevoice.export.distil.alphabet import Alphabet
from edgevoice.export.distil.files import HEARD, WEIGHTS
from edgevoice.export.distil.labels import DEFAULT_BOUNDS, Bounds, Labeller
from edgevoice.export.distil.plan import FRAME_MS, Plan, Stage
from edgevoice.export.distil.preparing import Wanted
from edgevoice.export.families import pack_search
from edgevoice.frames import to_float32
from edgevoice.manifest import FILE_NAME
from edgevoice.progress import Meter
from edgevoice.settings import RecogniserSettings

FAMILY = "wenet-ctc"
PACK = "pack"
_MOST_DIFFERING = 0.02
"""Of the words that torch reads and the pack reads otherwise: rounding may turn a letter."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked for.

    Attributes:
        whisper: Folder of a Whisper.
        speech: Folders of recordings or shards.
        work: The training's folder.
        judge: Folders of recordings that it is judged by while training.
        label_with: Folders of installed recognisers, one or two, to write down what nobody did.
        believed: Of what they write.
        chunk_ms: What is decoded at once; a multiple of :data:`~.plan.FRAME_MS`.
        left_ms: What is seen before it.
        letters: What it is to write; "" for what the transcripts have.
        pieces: Of words, the blank counted, that it is to write; 0 for letters.
        frozen_steps: Of the new layers alone.
        steps: Of all layers.
        device: torch's name, "" for what there is.
        python: Interpreter with torch, "" for one made for it.
        graph_texts: Texts that it learns words from, and their weights; none for no lexicon.
        graph_words: List of words to know beside those of the texts; None for none.
    """

    whisper: Path
    speech: Sequence[Path]
    work: Path
    judge: Sequence[Path] = ()
    label_with: Sequence[Path] = ()
    believed: Bounds = DEFAULT_BOUNDS
    chunk_ms: float = 640.0
    left_ms: float = 3840.0
    letters: str = ""
    pieces: int = 0
    new_layers: int = 1
    frozen_steps: int = 1200
    steps: int = 12_000
    batch_frames: int = 7500
    checkpoint_s: float = 300.0
    device: str = ""
    python: str = ""
    threads: int = 2
    seed: int = 0
    allow_pickle: bool = False
    graph_texts: Sequence[tuple[str, float]] = ()
    graph_words: Path | None = None


@dataclass(frozen=True, slots=True)
class Distiller:
    """What distilling works with: a meter for what takes a while, and a taker of lines."""

    meter: Meter
    say: Callable[[str], object]

    def run(self, request: Request) -> Path:
        """Return the folder of the float pack.

        Raises:
            ConfigError: The request or the speech cannot be used.
            ArtifactError: The source is no Whisper that can stream.
            ExportError: Training failed, or the pack reads otherwise than torch does.
            MissingDependencyError: torch cannot be installed.
        """
        stages = stages_of(request)
        preparing.read_whisper(request.whisper, request.allow_pickle)
        python = torch_side.interpreter(request.python, self.meter)
        speech = [self._shards(request, f, f"speech-{n}") for n, f in enumerate(request.speech)]
        judge = [self._shards(request, f, f"judge-{n}") for n, f in enumerate(request.judge)]
        wanted = Wanted(
            whisper=request.whisper,
            speech=speech,
            chunk=frames(request.chunk_ms),
            left=frames(request.left_ms),
            letters=request.letters,
            pieces=request.pieces,
            new_layers=request.new_layers,
            stages=stages,
            batch_frames=request.batch_frames,
            seed=request.seed,
            allow_pickle=request.allow_pickle,
        )
        with self.meter("prepare the training", None):
            prepared = preparing.prepare(wanted, request.work)
        self.say(f"writes {Alphabet(prepared.plan.shape.tokens).summary()}")
        self.say(f"features fit: {100 * prepared.explained:.1f} % of the variance explained")
        arguments = [f"--speech={folder.resolve()}" for folder in speech]
        arguments += [f"--evaluate={f.name}={f.resolve()}" for f in judge]
        arguments += [f"--checkpoint-s={request.checkpoint_s:g}"]
        arguments += [f"--device={request.device}"] if request.device else []
        torch_side.train(python, request.work, arguments, threads=request.threads, say=self.say)
        return self._pack(request, prepared.plan, [*speech, *judge])

    def _shards(self, request: Request, folder: Path, name: str) -> Path:
        out = request.work / name
        if (out / material.LEFT_OUT).is_file():
            return out
        labeller = None
        if request.label_with and not any(folder.glob("*.pcm")):
            settings = RecogniserSettings(threads=request.threads)
            models = [load_recogniser(path, settings) for path in request.label_with]
            labeller = Labeller(models, request.believed)
        with self.meter(f"read {folder.name}", None):
            return material.as_shards(folder, out, labeller=labeller, say=self.say)

    def _pack(self, request: Request, made: Plan, speech: Sequence[Path]) -> Path:
        folder = request.work / PACK
        folder.mkdir(exist_ok=True)
        # torch is compared with what is heard, which a lexicon would make words of.
        (folder / lexicon.FILE).unlink(missing_ok=True)
        with np.load(request.work / WEIGHTS) as stored:
            tensors = {name: stored[name] for name in stored.files}
        comment = f"encoder of {request.whisper.name}, made to stream by edgevoice"
        graph.write(tensors, made.shape, folder, comment)
        differing = disagreement(folder, made, request.work, speech)
        self.say(f"the pack writes {100 * differing:.1f} % of the words otherwise than torch")
        if differing > _MOST_DIFFERING:
            raise ExportError(
                f"{folder}: {100 * differing:.1f} % of the words are not torch's, at most "
                f"{100 * _MOST_DIFFERING:g} % may be; please report it with this folder"
            )
        if request.graph_texts:
            self._lexicon(request, made, folder / lexicon.FILE)
        return folder

    def _lexicon(self, request: Request, made: Plan, path: Path) -> None:
        wanted = lexicon_making.Request(request.graph_texts, request.graph_words)
        with self.meter("count words", None):
            found = lexicon_making.make(wanted, made.shape.tokens)
        lexicon.write(found.lexicon, path)
        self.say(found.summary(path))


def stages_of(request: Request) -> tuple[Stage, ...]:
    """Return the stages that ``request`` asks for.

    Raises:
        ConfigError: It asks for no steps, or for chunks that are no whole frames.
    """
    for name, value in (("--frozen-steps", request.frozen_steps), ("--steps", request.steps)):
        if value < 1:
            raise ConfigError(f"{name} {value}: 1 or more are needed")
    return plan.default_stages(frames(request.chunk_ms), request.frozen_steps, request.steps)


def frames(milliseconds: float) -> int:
    """Return how many output frames ``milliseconds`` are.

    Raises:
        ConfigError: They are no whole frames.
    """
    found = round(milliseconds / FRAME_MS)
    if found < 1 or found * FRAME_MS != milliseconds:
        raise ConfigError(f"{milliseconds:g} ms: a multiple of {FRAME_MS:g} ms is needed")
    return found


def disagreement(folder: Path, made: Plan, work: Path, speech: Sequence[Path]) -> float:
    """Return the share of the words that torch read in held-out clips, streamed, and the pack
    reads otherwise."""
    engine = {
        "sample_rate_hz": 16_000,
        "chunk_size": made.shape.chunk,
        "num_left_chunks": made.shape.left // made.shape.chunk,
        "subsampling": 2,
    }
    pack_search.describe(folder, FAMILY, engine)
    model = load_unguarded(folder)
    recogniser = model.open()
    read = {tuple(key): text for *key, text in json.loads((work / HEARD).read_text("utf-8"))}
    wrong = total = 0
    for clip in (clip for folder in speech for clip in shards.clips(folder)):
        expected = read.get((str(clip.file.resolve()), clip.line.start))
        if expected is None:
            continue
        samples = to_float32(clip.samples())
        for piece in np.array_split(samples, max(1, len(samples) // 1600)):
            recogniser.accept(piece)
        found = recogniser.conclude().text.split()
        recogniser.reset()
        wrong += words.word_errors(expected.split(), found)
        total += len(expected.split())
    model.close()
    # It was described for the engine alone; the exporter describes what it publishes.
    (folder / FILE_NAME).unlink()
    return wrong / max(total, 1)
