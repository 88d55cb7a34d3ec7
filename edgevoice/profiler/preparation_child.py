"""Is the process that loads every stage for the first time, and speaks the questions.

So nothing that is measured later waits for a first load's trial, or for a disk: the files are in
the page cache then. First line in: ``{"config", "folder", "began_ns"}``.
Out: ``{"speech": [path]}``.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import numpy as np

from edgevoice import config, native_memory
from edgevoice.audio.resample import resample
from edgevoice.audio.wav import write_wav
from edgevoice.errors import EngineError
from edgevoice.frames import SAMPLE_RATE_HZ, to_int16
from edgevoice.loading import load_engines
from edgevoice.profiler.hearing_work import spoken_part
from edgevoice.profiler.stage_child import Answer, Request, Serve, speak
from edgevoice.settings import Settings
from edgevoice.store import Store

QUESTIONS = {
    "en": ("What is the capital of France?", "How many legs does a spider have?"),
    "de": ("Was ist die Hauptstadt von Frankreich?", "Wie viele Beine hat eine Spinne?"),
    "fr": ("Quelle est la capitale de la France ?", "Combien de pattes a une araignée ?"),
    "es": ("¿Cuál es la capital de Francia?", "¿Cuántas patas tiene una araña?"),
    "it": ("Qual è la capitale della Francia?", "Quante zampe ha un ragno?"),
    "pt": ("Qual é a capital da França?", "Quantas pernas tem uma aranha?"),
    "zh": ("法国的首都是哪里？", "蜘蛛有几条腿？"),
    "ja": ("フランスの首都はどこですか？", "クモの足は何本ですか？"),
}


def say_questions(settings: Settings, folder: Path) -> list[Path]:
    """Let the bundle's own voice ask, without its noise, so that every run hears the same.

    Returns:
        WAV files in ``folder``, 16 kHz, each from its first to its last sound.

    Raises:
        EngineError: The voice cannot speak the language of the settings.
    """
    from edgevoice.engines.speech import load_unguarded

    store = Store.default()
    voice = load_unguarded(store.path(settings.speech.model), settings.speech, noise=0.0)
    paths = []
    for number, text in enumerate(QUESTIONS[settings.turns.language]):
        sound = [*voice.synthesise(text)]
        if not sound:
            raise EngineError(
                f"{settings.speech.model} makes no sound of {text!r}; set turns.language to the "
                "voice's"
            )
        samples = resample(np.concatenate(sound), voice.sample_rate_hz, SAMPLE_RATE_HZ)
        path = folder / f"question-{number}.wav"
        write_wav(path, to_int16(spoken_part(samples)), SAMPLE_RATE_HZ)
        paths.append(path)
    voice.close()
    return paths


def _begin(request: Request) -> tuple[Serve, Answer]:
    native_memory.bound()
    settings = config.parse(tomllib.loads(request["config"]))
    load_engines(settings).close()
    paths = say_questions(settings, Path(request["folder"]))
    return lambda _: {}, {"speech": [str(path) for path in paths]}


def main() -> int:
    """Be the child."""
    return speak(_begin)


if __name__ == "__main__":
    sys.exit(main())
