"""Makes training speech: sentences from a recipe's texts said by its voices, shard after shard.

    python -m edgevoice.export.distil.generate RECIPE.toml OUT [--seed N] [--most-gb N]

Sentence i of shard n is drawn from the seed and these two numbers, so that a run that was stopped,
however roughly, goes on with the first shard that is missing and draws what it would have drawn.
(The voices' own noise is not drawn so: the same sentence by the same speaker differs a little.)
Owns the recipe and the loop. The recipe is TOML:

    [[text]]
    kind = "requests"                # the project's own sentences; also "nods" and "replies"
    share = 0.5
    [[text]]
    kind = "book"                    # or "words": a list of words
    path = "emma.txt"
    source = "Emma, Jane Austen"
    licence = "public domain"
    share = 0.5
    [[voice]]
    kind = "kokoro"                  # or "piper", each with a path; or "flite", "espeak-ng"
    path = "kokoro"
    licence = "Apache-2.0"
    share = 1.0
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from edgevoice.errors import ConfigError, EdgevoiceError
from edgevoice.export.distil import sentences, shards, voices
from edgevoice.export.distil.shards import Line
from edgevoice.frames import SAMPLE_RATE_HZ, Int16
from edgevoice.progress import say
from edgevoice.strict_table import Table, read

SHARD_SENTENCES = 25
PEAK = 0.7
"""Of full scale, so that a shard's 16 bits are used; levels are for the training to vary."""
_SECONDS_PER_LETTER = (0.03, 0.25)
"""Speech outside this has been cut off, or the voice has got stuck."""
FLITE_VOICES = ("slt", "rms", "awb", "kal16")

Drawn = TypeVar("Drawn")


@dataclass(frozen=True, slots=True)
class Share(Generic[Drawn]):
    """A text or a voice of a recipe.

    Attributes:
        what: Draws sentences, or says them.
        share: How often it is drawn, relative to the others.
        source: Its name in the tables.
        licence: What it may be used under.
    """

    what: Drawn
    share: float
    source: str
    licence: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is said, and who says it."""

    texts: Sequence[Share[sentences.Source]]
    voices: Sequence[Share[voices.Voice]]


def read_recipe(path: Path, threads: int) -> Recipe:
    """Read a recipe; paths in it are relative to its folder. Loads the voices.

    Raises:
        ConfigError: It is not as the module says, or a text of it cannot be used.
        ArtifactError: A voice cannot be loaded.
    """
    top = Table(read(path), str(path), ("text", "voice"))
    texts = [_text(part, path) for part in top.get("text", list)]
    speakers = [_voice(part, path, threads) for part in top.get("voice", list)]
    if not texts or not speakers:
        raise ConfigError(f"{path}: at least one [[text]] and one [[voice]] are needed")
    return Recipe(texts, speakers)


def draw(recipe: Recipe, seed: int, shard: int, number: int) -> tuple[Int16, Line] | None:
    """Return sentence ``number`` of a shard, said; None where the voice said it wrong."""
    random = np.random.default_rng([seed, shard, number])
    text, voice = _drawn(recipe.texts, random), _drawn(recipe.voices, random)
    sentence = text.what.draw(random)
    try:
        said = voice.what.speak(sentence, random)
    except subprocess.SubprocessError as error:
        say(f"{voice.source}: {sentence!r}: {error}; left out")
        return None
    letters = len(sentences.transcript(sentence))
    low, high = (letters * seconds for seconds in _SECONDS_PER_LETTER)
    loudest = float(np.abs(said.samples).max(initial=0.0))
    if loudest < 1e-3 or not low < len(said.samples) / SAMPLE_RATE_HZ < high + 1.5:
        return None
    samples: Int16 = np.round(said.samples * (PEAK * 32767 / loudest)).astype(np.int16)
    licence = f"text {text.licence}; voice {voice.licence}"
    return samples, Line(0, 0, sentence, said.speaker, text.source, licence)


def generate(
    recipe: Recipe, out: Path, *, seed: int, most_bytes: int, report: Callable[[str], object]
) -> None:
    """Add shards to ``out`` until it holds ``most_bytes``."""
    out.mkdir(parents=True, exist_ok=True)
    held = sum(file.stat().st_size for file in out.iterdir() if file.is_file())
    shard = 0
    while held < most_bytes:
        if shards.exists(out, shard):
            shard += 1
            continue
        began = time.monotonic()
        drawn = (draw(recipe, seed, shard, number) for number in range(SHARD_SENTENCES))
        samples = shards.write(out, shard, (said for said in drawn if said is not None))
        held += 2 * samples
        hours = held / 2 / SAMPLE_RATE_HZ / 3600
        speed = samples / SAMPLE_RATE_HZ / (time.monotonic() - began)
        report(f"shard {shard}: {speed:.1f} times real time; {hours:.2f} hours in all")
        shard += 1


def _text(part: object, recipe: Path) -> Share[sentences.Source]:
    table = Table(part, f"{recipe}: [[text]]", ("kind", "share"), ("path", "source", "licence"))
    kind = table.choice("kind", (*sentences.OWN, "book", "words"))
    share = table.number("share", 0.0, 1e6)
    if kind in sentences.OWN:
        return Share(sentences.own(kind), share, "edgevoice's own sentences", "Apache-2.0")
    path, licence = _file(table, recipe)
    reader = sentences.read_book if kind == "book" else sentences.read_words
    return Share(reader(path), share, str(table.get("source", str, path.name)), licence)


def _voice(part: object, recipe: Path, threads: int) -> Share[voices.Voice]:
    table = Table(part, f"{recipe}: [[voice]]", ("kind", "share"), ("path", "licence"))
    kind = table.choice("kind", ("kokoro", "piper", "flite", "espeak-ng"))
    share = table.number("share", 0.0, 1e6)
    made: voices.Voice
    if kind == "flite":
        made = voices.Speakers([voices.flite(name) for name in FLITE_VOICES])
        return Share(made, share, kind, "flite's (BSD-like)")
    if kind == "espeak-ng":
        return Share(voices.Speakers([voices.espeak]), share, kind, "not covered by GPL-3.0")
    path, licence = _file(table, recipe)
    loader = voices.KokoroMixtures if kind == "kokoro" else voices.PiperVoice
    return Share(loader(path, threads), share, kind, licence)


def _file(table: Table, recipe: Path) -> tuple[Path, str]:
    for key in ("path", "licence"):
        if key not in table.data:
            raise ConfigError(f"{table.where}: {key!r} is missing")
    return recipe.parent / str(table.get("path", str)), str(table.get("licence", str))


def _drawn(shares: Sequence[Share[Drawn]], random: np.random.Generator) -> Share[Drawn]:
    weights = np.array([share.share for share in shares])
    return shares[random.choice(len(shares), p=weights / weights.sum())]


def main() -> int:
    """Run the generator."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most-gb", type=float, default=15.0)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    try:
        recipe = read_recipe(chosen.recipe, chosen.threads)
        most_bytes = int(chosen.most_gb * 1e9)
        generate(recipe, chosen.out, seed=chosen.seed, most_bytes=most_bytes, report=say)
    except EdgevoiceError as error:
        print(f"generate: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
