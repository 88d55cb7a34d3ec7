"""Speech packs of sherpa-onnx: Piper, VITS, Kokoro, Matcha, Kitten, Supertonic, Pocket, ZipVoice.

Owns how a pack's folder becomes an ``OfflineTtsConfig`` and how its callback becomes chunks.
sherpa-onnx 2 has no espeak-ng inside: voices that were trained on its phonemes get them from
:mod:`edgevoice.engines.phonemes` as code points.
"""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any

import numpy as np
import sherpa_onnx

from edgevoice.engines.ort import chunks
from edgevoice.engines.phonemes import phonemise
from edgevoice.engines.piper import bounded
from edgevoice.engines.providers import Ran
from edgevoice.engines.speakable import speakable
from edgevoice.errors import ArtifactError, ConfigError, EngineError, unknown
from edgevoice.frames import Float32
from edgevoice.stages import Cancelled, never

_CPU = Ran()
# Behind the mark: where it is a character of the voice's, it is said with its sentence.
_SENTENCE_END = re.compile(r"(?<=[.:?!])")


class _Pack:
    """The files of a pack: finds one by the patterns that its publishers use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def need(self, *patterns: str) -> str:
        """Return the one file for the first pattern that has any (int8 before float)."""
        for pattern in patterns:
            if found := sorted(self.folder.glob(pattern)):
                return str(min(found, key=lambda path: ("int8" not in path.name, path.name)))
        raise ArtifactError(f"{self.folder} has no {' or '.join(patterns)}; the pack needs one")

    def all(self, *patterns: str) -> str:
        """Return every match, joined by commas as sherpa-onnx reads lists; "" for none."""
        return ",".join(str(f) for pattern in patterns for f in sorted(self.folder.glob(pattern)))

    def maybe(self, name: str) -> str:
        path = self.folder / name
        return str(path) if path.exists() else ""


def _vits(pack: _Pack, model: Any) -> None:
    model.vits = sherpa_onnx.OfflineTtsVitsModelConfig(
        model=pack.need("*.onnx"),
        tokens=pack.need("tokens.txt"),
        lexicon=pack.all("lexicon*.txt"),
        data_dir=pack.maybe("espeak-ng-data"),
        dict_dir=pack.maybe("dict"),
    )


def _kokoro(pack: _Pack, model: Any) -> None:
    model.kokoro = sherpa_onnx.OfflineTtsKokoroModelConfig(
        model=pack.need("model*.onnx"),
        voices=pack.need("voices.bin"),
        tokens=pack.need("tokens.txt"),
        lexicon=pack.all("lexicon*.txt"),
        data_dir=pack.maybe("espeak-ng-data"),
        dict_dir=pack.maybe("dict"),
    )


def _kitten(pack: _Pack, model: Any) -> None:
    model.kitten = sherpa_onnx.OfflineTtsKittenModelConfig(
        model=pack.need("model*.onnx"),
        voices=pack.need("voices.bin"),
        tokens=pack.need("tokens.txt"),
        data_dir=pack.maybe("espeak-ng-data"),
    )


def _matcha(pack: _Pack, model: Any) -> None:
    model.matcha = sherpa_onnx.OfflineTtsMatchaModelConfig(
        acoustic_model=pack.need("model*.onnx"),
        vocoder=pack.need("*vocos*.onnx", "*hifigan*.onnx", "*vocoder*.onnx"),
        tokens=pack.need("tokens.txt"),
        lexicon=pack.all("lexicon*.txt"),
        data_dir=pack.maybe("espeak-ng-data"),
        dict_dir=pack.maybe("dict"),
    )


def _supertonic(pack: _Pack, model: Any) -> None:
    model.supertonic = sherpa_onnx.OfflineTtsSupertonicModelConfig(
        duration_predictor=pack.need("duration_predictor*.onnx"),
        text_encoder=pack.need("text_encoder*.onnx"),
        vector_estimator=pack.need("vector_estimator*.onnx"),
        vocoder=pack.need("vocoder*.onnx"),
        tts_json=pack.need("tts.json"),
        unicode_indexer=pack.need("unicode_indexer*"),
        voice_style=pack.need("voice*.bin", "voice*.json"),
    )


def _pocket(pack: _Pack, model: Any) -> None:
    model.pocket = sherpa_onnx.OfflineTtsPocketModelConfig(
        lm_flow=pack.need("lm_flow*.onnx"),
        lm_main=pack.need("lm_main*.onnx"),
        encoder=pack.need("encoder*.onnx"),
        decoder=pack.need("decoder*.onnx"),
        text_conditioner=pack.need("text_conditioner*.onnx"),
        vocab_json=pack.need("vocab.json"),
        token_scores_json=pack.need("token_scores.json"),
    )


def _zipvoice(pack: _Pack, model: Any) -> None:
    model.zipvoice = sherpa_onnx.OfflineTtsZipvoiceModelConfig(
        tokens=pack.need("tokens.txt"),
        encoder=pack.need("encoder*.onnx", "text_encoder*.onnx"),
        decoder=pack.need("decoder*.onnx", "fm_decoder*.onnx"),
        vocoder=pack.need("*vocos*.onnx", "*vocoder*.onnx"),
        lexicon=pack.all("lexicon*.txt"),
        data_dir=pack.maybe("espeak-ng-data"),
    )


_FAMILIES: Mapping[str, Callable[[_Pack, Any], None]] = {
    "piper": _vits,
    "vits": _vits,
    "kokoro": _kokoro,
    "kitten": _kitten,
    "matcha": _matcha,
    "supertonic": _supertonic,
    "pocket": _pocket,
    "zipvoice": _zipvoice,
}
FAMILIES = tuple(_FAMILIES)
CLONING = ("pocket", "zipvoice")
"""Families that speak like a recording: the pack's manifest names one."""


def configure(
    folder: Path,
    family: str,
    threads: int,
    noise: tuple[float, float] = (0.667, 0.8),
    provider: str = "cpu",
) -> Any:
    """Return the ``sherpa_onnx.OfflineTtsConfig`` of the pack in ``folder``.

    ``noise`` is VITS's, of the sound and of the durations; other families have none to set.
    ``provider`` is one that sherpa-onnx knows.

    Raises:
        ArtifactError: The family is not known, or the pack lacks a file.
    """
    if family not in _FAMILIES:
        raise ArtifactError(unknown("speech family", family, FAMILIES))
    pack = _Pack(folder)
    model = sherpa_onnx.OfflineTtsModelConfig()
    model.num_threads = threads
    model.provider = provider
    _FAMILIES[family](pack, model)
    model.vits.noise_scale, model.vits.noise_scale_w = noise
    return sherpa_onnx.OfflineTtsConfig(
        model=model, rule_fsts=pack.all("*.fst"), rule_fars=pack.all("*.far")
    )


class SherpaSpeech:
    """A voice that sherpa-onnx runs. Implements :class:`edgevoice.stages.Speech`.

    Args:
        config: From :func:`configure`.
        espeak_voice: espeak-ng's voice that this voice's phonemes come from; "" for packs that
            read text themselves.
        characters: Those that such a pack knows, where it reads one by one and says on stderr
            whatever else it meets; sentences are then made here. "" for every other pack.
        reference: Mono samples and their rate, and the words in them, for the families of
            :data:`CLONING`.
        provider: What ``config`` runs on.
    """

    def __init__(
        self,
        config: Any,
        *,
        espeak_voice: str = "",
        language: str = "en",
        characters: str = "",
        speaker: int = 0,
        speed: float = 1.0,
        reference: tuple[Float32, int, str] | None = None,
        provider: Ran = _CPU,
    ) -> None:
        self.provider = provider
        if not config.validate():
            raise ArtifactError("sherpa-onnx does not take this pack's files; see its log above")
        try:
            self._tts = sherpa_onnx.OfflineTts(config)
        except RuntimeError as error:
            raise ArtifactError(f"sherpa-onnx cannot load the voice: {error}") from error
        if not 0 <= speaker < max(self._tts.num_speakers, 1):
            raise ConfigError(
                f"speaker {speaker}: the voice has {self._tts.num_speakers}; "
                f"allowed: 0 to {max(self._tts.num_speakers, 1) - 1}"
            )
        self._espeak_voice = espeak_voice
        self._language = espeak_voice or language
        self._characters = frozenset(characters)
        self._speaker = speaker
        self._speed = speed
        self._reference = reference

    @property
    def sample_rate_hz(self) -> int:
        """Rate of the samples, from the pack."""
        return int(self._tts.sample_rate)

    def synthesise(self, text: str, cancelled: Cancelled = never) -> Iterator[Float32]:
        """Yield 100 ms chunks. A cancel is seen between chunks and at sherpa-onnx's callback."""
        spoken = speakable(text, self._language)
        if not spoken:
            return
        generation = self._generation(spoken)
        parts = _readable(spoken, self._characters) if self._characters else [spoken]
        if generation is None or not parts:
            return
        made: queue.SimpleQueue[Float32 | BaseException | None] = queue.SimpleQueue()
        abandoned = threading.Event()

        def heard(samples: Any, _progress: float) -> int:
            made.put(np.clip(np.array(samples, dtype=np.float32), -1.0, 1.0))
            return 0 if abandoned.is_set() or cancelled() else 1

        def work() -> None:
            try:
                for part in parts:
                    if abandoned.is_set() or cancelled():
                        break
                    self._tts.generate(part, generation, heard)
            except BaseException as error:
                made.put(error)
            else:
                made.put(None)

        worker = threading.Thread(target=work, name="edgevoice-sherpa-speech", daemon=True)
        worker.start()
        try:
            while True:
                part = _next(made, cancelled)
                if part is None:
                    return
                if isinstance(part, BaseException):
                    raise EngineError(f"the voice failed: {part}") from part
                yield from chunks(part, self.sample_rate_hz, cancelled)
        finally:
            abandoned.set()

    def close(self) -> None:
        """Free the weights; the voice cannot be used any more."""
        del self._tts

    def _generation(self, spoken: str) -> Any | None:
        generation = sherpa_onnx.GenerationConfig()
        generation.sid = self._speaker
        generation.speed = self._speed
        if self._reference is not None:
            samples, rate_hz, words = self._reference
            generation.reference_audio = samples
            generation.reference_sample_rate = rate_hz
            generation.reference_text = words
        if self._espeak_voice:
            sentences = phonemise(spoken, self._espeak_voice)
            parts = [part for sentence in sentences for part in bounded(sentence)]
            if not parts:
                return None
            generation.phoneme_codepoints = [[ord(c) for c in part] for part in parts]
        return generation


def _readable(text: str, characters: Set[str]) -> list[str]:
    """Return the sentences of ``text`` in small letters, without what is not in ``characters``."""
    sentences = _SENTENCE_END.split(text.lower())
    kept = ("".join(c for c in sentence if c in characters).strip() for sentence in sentences)
    return [sentence for sentence in kept if sentence]


def _next(
    made: queue.SimpleQueue[Float32 | BaseException | None], cancelled: Cancelled
) -> Float32 | BaseException | None:
    """Wait for the next part; None at the end or when cancelled."""
    while not cancelled():
        try:
            return made.get(timeout=0.01)
        except queue.Empty:
            continue
    return None
