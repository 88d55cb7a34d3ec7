"""The work by which the answering stages are measured: a conversation's third turn."""

from __future__ import annotations

import numpy as np

from edgevoice.profiler.workload import NotMeasurable, Sample, Stopwatch, Times
from edgevoice.settings import Settings
from edgevoice.stages import LanguageModel, Message
from edgevoice.store import Store

_DECODED_PIECES = 16
_SENTENCE = "The capital of France is Paris, and about two million people live there."


def history(system_prompt: str) -> list[Message]:
    """Return what was said before the question that is measured."""
    system = [Message("system", system_prompt)] if system_prompt else []
    return [
        *system,
        Message("user", "How many days are there in a week?"),
        Message("assistant", "There are seven days in a week."),
        Message("user", "Where does the sun rise?"),
        Message("assistant", "The sun rises in the east and sets in the west."),
    ]


QUESTION = Message("user", "What is the capital of France, and how many people live there?")


class LanguageModelWork:
    """The same turn twice: by a conversation that has read the turns before, and by a new one."""

    def __init__(self, store: Store, settings: Settings) -> None:
        from edgevoice.engines.language_model import load_language_model

        chosen = settings.language_model
        if chosen.endpoint:
            raise NotMeasurable(f"the language model is a server's ({chosen.endpoint})")
        self._model = load_language_model(store.path(chosen.model), chosen)
        self.engine: object = self._model
        self._before = history(chosen.system_prompt)

    def sample(self) -> Sample:
        """Measure both."""
        conversation = self._model.open()
        try:
            prompt = [*self._before, QUESTION]
            empty = answer(conversation, prompt)
        finally:
            conversation.close()
        kept_conversation = self._model.open()
        try:
            kept_conversation.prefill(self._before)
            kept = answer(kept_conversation, prompt)
        finally:
            kept_conversation.close()
        return {
            **{f"{name}_per_s": rate for name, rate in _rates(empty, "").items()},
            **{f"{name}_per_s": rate for name, rate in _rates(kept, "kept_").items()},
            "first_token_ms": empty.first_token_ms,
            "first_token_kept_ms": kept.first_token_ms,
        }


class Answered:
    """What one answer took."""

    def __init__(self) -> None:
        self.evaluated_tokens = 0
        self.prefill_ms = np.zeros(2)
        self.first_token_ms = np.zeros(2)
        self.decoded_tokens = 0
        self.decode_ms = np.zeros(2)


def answer(conversation: LanguageModel, prompt: list[Message]) -> Answered:
    """Read ``prompt`` and write the beginning of its answer."""
    found = Answered()
    watch = Stopwatch()
    found.evaluated_tokens = conversation.prefill(prompt)
    found.prefill_ms = watch.ms
    pieces = conversation.generate(prompt)
    next(pieces, "")
    found.first_token_ms = watch.ms
    watch = Stopwatch()
    # A piece is a token but where one character takes several.
    for _ in zip(range(_DECODED_PIECES), pieces, strict=False):
        found.decoded_tokens += 1
    found.decode_ms = watch.ms
    return found


def _rates(found: Answered, infix: str) -> Sample:
    rates: dict[str, Times] = {}
    if found.evaluated_tokens and found.prefill_ms.all():
        rates[f"prefill_{infix}tokens"] = found.evaluated_tokens * 1000.0 / found.prefill_ms
    if found.decoded_tokens and found.decode_ms.all():
        rates[f"decode_{infix}tokens"] = found.decoded_tokens * 1000.0 / found.decode_ms
    return rates


class SpeechWork:
    """One sentence of an answer."""

    def __init__(self, store: Store, settings: Settings) -> None:
        from edgevoice.engines.speech import load_speech

        self._speech = load_speech(store.path(settings.speech.model), settings.speech)
        self.engine: object = self._speech

    def sample(self) -> Sample:
        """Measure the sentence to its end."""
        samples = 0
        first_ms: Times | None = None
        unbroken_ms = np.zeros(2)
        watch = Stopwatch()
        for chunk in self._speech.synthesise(_SENTENCE):
            now_ms = watch.ms
            first_ms = now_ms if first_ms is None else first_ms
            # When all before it would have been played, had the sound begun at once.
            played_ms = samples * 1000.0 / self._speech.sample_rate_hz
            unbroken_ms = np.maximum(unbroken_ms, now_ms - played_ms)
            samples += chunk.size
        spent_ms = watch.ms
        if first_ms is None:
            raise NotMeasurable(f"the voice makes no sound of {_SENTENCE!r}")
        sounding_ms = samples * 1000.0 / self._speech.sample_rate_hz
        return {
            "first_sound_ms": first_ms,
            "unbroken_ms": unbroken_ms,
            "real_time_factor": spent_ms / sounding_ms,
        }
