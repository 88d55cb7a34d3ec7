"""The loaded weights that all sessions of a process share.

:mod:`edgevoice.loading` makes them from the configuration; tests make them from fakes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from edgevoice.engines import providers
from edgevoice.engines.edges import SpeechEdges
from edgevoice.engines.providers import Ran
from edgevoice.stages import EndOfTurn, LanguageModelModel, RecogniserModel, Speech, Vad


class VadModel(Protocol):
    """Loaded VAD weights."""

    def open(self) -> Vad:
        """Start a VAD for one conversation."""
        ...

    def open_edges(self) -> SpeechEdges:
        """Start the edge detector that belongs to it."""
        ...


@dataclass(frozen=True, slots=True)
class Engines:
    """The loaded weights that all sessions of a process share."""

    vad: VadModel
    recogniser: RecogniserModel
    end_of_turn: EndOfTurn | None
    language_model: LanguageModelModel
    speech: Speech

    def providers(self) -> Mapping[str, Ran]:
        """Return what each stage that onnxruntime runs is on, by stage, as a turn meets them."""
        stages = {
            "vad": self.vad,
            "first-pass": getattr(self.recogniser, "first", None),
            "recogniser": self.recogniser,
            "end-of-turn": self.end_of_turn,
            "language-model": self.language_model,
            "speech": self.speech,
        }
        return {stage: ran for stage, engine in stages.items() if (ran := providers.of(engine))}

    def close(self) -> None:
        """Free the weights; no session may use them any more."""
        self.recogniser.close()
        self.language_model.close()
        self.speech.close()
