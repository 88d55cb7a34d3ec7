"""Loads the weights of every stage that the configuration names, once a process.

Each artifact's first load ever happens in a child process (:mod:`edgevoice.engines.probe`): native
code may abort, and must not take the conversation with it. The stages load side by side, since a
cold start is waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import ParamSpec, TypeVar

from edgevoice import native_memory
from edgevoice.affinity import Pin
from edgevoice.engine_calls import wrapped
from edgevoice.engines.language_model import load_language_model
from edgevoice.engines.recogniser import (
    load_end_of_turn,
    load_passes,
    load_recogniser,
    of_first_pass,
)
from edgevoice.engines.silero_vad import load_vad
from edgevoice.engines.speech import load_speech
from edgevoice.load_governor import Cheaper
from edgevoice.settings import Settings
from edgevoice.stages import EndOfTurn, RecogniserModel
from edgevoice.store import Store
from edgevoice.weights import Engines, VadModel


@dataclass(frozen=True, slots=True)
class Hearing:
    """The weights that decide, without those that answer."""

    vad: VadModel
    recogniser: RecogniserModel
    end_of_turn: EndOfTurn | None


def load_hearing(settings: Settings, store: Store | None = None) -> Hearing:
    """Load what a replay needs.

    Raises:
        ArtifactError: An artifact is missing, broken, or of the wrong kind for its stage.
    """
    native_memory.bound()
    models = store or Store.default()
    judge = settings.end_of_turn
    return Hearing(
        load_vad(models.path(settings.vad.model), settings.vad),
        load_passes(
            {stage: models.path(name) for stage, name in settings.recogniser.heard_with().items()},
            settings.recogniser,
            patient=True,
        ),
        load_end_of_turn(models.path(judge.model), judge) if judge.model else None,
    )


def load_engines(
    settings: Settings, store: Store | None = None, *, patient: bool = False
) -> Engines:
    """Load all stages.

    Args:
        settings: They name the artifacts.
        store: Holds them; the user's own where none is given.
        patient: See :func:`edgevoice.engines.recogniser.load_passes`: for sessions in lock step.

    Raises:
        ArtifactError: An artifact is missing, broken, or of the wrong kind for its stage.
        ConfigError: A stage's cores are no list of cores.
    """
    native_memory.bound()
    models = store or Store.default()
    pins = _pins(settings)
    folders = {stage: models.path(name) for stage, name in settings.artifacts().items()}
    judge = folders.get("end-of-turn")
    with ThreadPoolExecutor(max_workers=5, thread_name_prefix="edgevoice-load") as pool:
        vad = pool.submit(load_vad, folders["vad"], settings.vad)
        recogniser = pool.submit(
            _held,
            pins["recogniser"],
            load_passes,
            folders,
            settings.recogniser,
            patient=patient,
        )
        end_of_turn: Future[EndOfTurn] | None = None
        if judge is not None:
            end_of_turn = pool.submit(
                _held, pins["end-of-turn"], load_end_of_turn, judge, settings.end_of_turn
            )
        language_model = pool.submit(
            _held,
            pins["language-model"],
            load_language_model,
            folders.get("language-model"),
            settings.language_model,
        )
        speech = pool.submit(_held, pins["speech"], load_speech, folders["speech"], settings.speech)
        engines = Engines(
            vad=vad.result(),
            recogniser=recogniser.result(),
            end_of_turn=end_of_turn.result() if end_of_turn is not None else None,
            language_model=language_model.result(),
            speech=speech.result(),
        )
    if not any(pins.values()):
        return engines

    def pinned(stage: str, name: str) -> AbstractContextManager[None]:
        del name
        return pins[stage].held()

    return wrapped(engines, pinned)


Given = ParamSpec("Given")
Made = TypeVar("Made")


def _pins(settings: Settings) -> Mapping[str, Pin]:
    return {
        "first-pass": Pin("recogniser", settings.recogniser.cores),
        "recogniser": Pin("recogniser", settings.recogniser.cores),
        "end-of-turn": Pin("end-of-turn", settings.end_of_turn.cores),
        "language-model": Pin("language-model", settings.language_model.cores),
        "speech": Pin("speech", settings.speech.cores),
    }


def _held(pin: Pin, load: Callable[Given, Made], *given: Given.args, **named: Given.kwargs) -> Made:
    """Load where the stage will run: the threads that a session starts inherit its cores."""
    with pin.held():
        return load(*given, **named)


def cheaper(settings: Settings, store: Store | None = None) -> Cheaper:
    """Return what loads the models that ``settings`` name for a device under load.

    They are loaded when they are wanted, the first time ever in a child process as well.

    Raises:
        ArtifactError: One of them is missing: said now, and not when it is needed.
    """
    models = store or Store.default()
    folders = {stage: models.path(name) for stage, name in settings.cheaper().items()}
    recogniser, language_model = folders.get("recogniser"), folders.get("language-model")
    listens = settings.recogniser
    if not settings.load.recogniser:
        listens = of_first_pass(listens)
    answers = replace(settings.language_model, model=settings.load.language_model)
    return Cheaper(
        recogniser=partial(load_recogniser, recogniser, listens) if recogniser else None,
        language_model=(
            partial(load_language_model, language_model, answers) if language_model else None
        ),
    )
