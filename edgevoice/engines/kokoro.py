"""Kokoro voices (StyleTTS 2, 82M) straight on onnxruntime.

Owns the graph, Kokoro's symbol table and the choice of a style vector. The folder holds one
`.onnx` with inputs ``input_ids`` (or ``tokens``) [1, n] int64, ``style`` [1, 256] float32 and
``speed`` [1], and `voices/NAME.bin`: float32, 510 rows of 256, one row for each number of symbols.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edgevoice.engines.ort import chunks, open_on, run_cancellable, sound
from edgevoice.engines.phonemes import phonemise
from edgevoice.engines.piper import bounded
from edgevoice.engines.providers import ON_CPU, Wanted
from edgevoice.engines.speakable import speakable
from edgevoice.errors import ArtifactError, ConfigError
from edgevoice.frames import Float32
from edgevoice.stages import Cancelled, never

SAMPLE_RATE_HZ = 24_000
STYLE_SIZE = 256
DEFAULT_VOICE = "af_heart"

# `vocab` of the model's config.json (hexgrad/Kokoro-82M).
_SYMBOL_RUNS = {
    1: ";:,.!?", 9: "—…\"()“” \u0303ʣʥʦʨᵝ\uab67AI", 31: "O", 33: "Q", 35: "ST", 39: "W", 41: "Yᵊ",
    43: "abcdef", 50: "hijklmnopqrstuvwxyzɑɐɒæ", 75: "βɔɕç", 80: "ɖðʤə", 85: "ɚɛɜ", 90: "ɟ",
    92: "ɡ", 99: "ɥ", 101: "ɨɪʝ", 110: "ɯɰŋɳɲɴø", 118: "ɸθœ", 123: "ɹ", 125: "ɾɻ", 128: "ʁɽʂʃʈʧ",
    135: "ʊʋ", 138: "ʌɣɤ", 142: "χʎ", 147: "ʒʔ", 156: "ˈˌː", 162: "ʰ", 164: "ʲ", 169: "↓",
    171: "→↗↘", 177: "ᵻ",
}  # fmt: skip
SYMBOL_IDS = {s: first + i for first, run in _SYMBOL_RUNS.items() for i, s in enumerate(run)}
# What espeak-ng writes and Kokoro was not trained on (the replacements of kokoro-js).
_REPLACED = (("c\u0327", "ç"), ("ʲ", "j"), ("r", "ɹ"), ("x", "k"), ("\u026c", "l"))
# A voice's name begins with its language.
_ESPEAK_VOICES = {"a": "en-us", "b": "en-gb", "e": "es", "f": "fr-fr", "h": "hi", "i": "it",
                  "p": "pt-br"}  # fmt: skip


def symbol_ids(phonemes: str) -> list[int]:
    """Return the ids of ``phonemes`` (NFD), padding not included; unknown symbols are left out."""
    for old, new in _REPLACED:
        phonemes = phonemes.replace(old, new)
    return [SYMBOL_IDS[symbol] for symbol in phonemes if symbol in SYMBOL_IDS]


class KokoroSpeech:
    """One Kokoro voice. Implements :class:`edgevoice.stages.Speech`.

    Args:
        model: The graph.
        styles: float32, [rows, 256], from `voices/NAME.bin`.
        espeak_voice: espeak-ng's voice of the language.
        threads: Threads of one run.
        speed: Above 1 is faster.
        wanted: Execution providers.
    """

    def __init__(
        self,
        model: Path,
        styles: Float32,
        *,
        espeak_voice: str,
        threads: int,
        speed: float,
        wanted: Wanted = ON_CPU,
    ) -> None:
        self._session, self.provider = open_on(model, threads, wanted)
        inputs = {i.name: i.type for i in self._session.get_inputs()}
        ids_name = next((n for n in ("input_ids", "tokens") if n in inputs), None)
        if ids_name is None or "style" not in inputs or "speed" not in inputs:
            raise ArtifactError(f"{model}: not a Kokoro model: its inputs are {', '.join(inputs)}")
        self._ids_name = ids_name
        self._styles = styles
        self._espeak_voice = espeak_voice
        speed_type = np.float32 if "float" in inputs["speed"] else np.int32
        self._speed = np.array([speed], dtype=speed_type)

    @property
    def sample_rate_hz(self) -> int:
        """24 kHz, for every Kokoro voice."""
        return SAMPLE_RATE_HZ

    def synthesise(self, text: str, cancelled: Cancelled = never) -> Iterator[Float32]:
        """Yield 100 ms chunks; a cancel also ends a run of the graph that is under way."""
        spoken = speakable(text, self._espeak_voice)
        if not spoken:
            return
        for sentence in phonemise(spoken, self._espeak_voice):
            for part in bounded(sentence):
                ids = symbol_ids(part)
                if not ids or cancelled():
                    continue
                feed = {
                    self._ids_name: np.array([[0, *ids, 0]], dtype=np.int64),
                    "style": self._styles[min(len(ids), len(self._styles) - 1)][np.newaxis],
                    "speed": self._speed,
                }
                outputs = run_cancellable(self._session, feed, cancelled)
                if outputs is None:
                    return
                yield from chunks(sound(outputs[0]), SAMPLE_RATE_HZ, cancelled)

    def close(self) -> None:
        """Free the weights; the voice cannot be used any more."""
        del self._session


def load(
    folder: Path,
    *,
    threads: int,
    speaker: int = 0,
    speed: float = 1.0,
    wanted: Wanted = ON_CPU,
) -> KokoroSpeech:
    """Load a voice of the Kokoro pack in ``folder``.

    Args:
        folder: Holds the graph and `voices/*.bin`.
        threads: Threads of one run.
        speaker: 0 is :data:`DEFAULT_VOICE` where it is there; n is the n-th voice by name.
        speed: Above 1 is faster.
        wanted: Execution providers.

    Raises:
        ArtifactError: A file is missing, truncated, or not Kokoro's.
        EngineError: A provider is required and cannot run it.
        ConfigError: There is no such speaker, or espeak-ng cannot phonemise its language.
    """
    models = sorted(folder.glob("*.onnx"))
    voices = sorted((folder / "voices").glob("*.bin"))
    if len(models) != 1 or not voices:
        raise ArtifactError(
            f"{folder} has {len(models)} .onnx files and {len(voices)} in voices/*.bin; a Kokoro "
            "pack has one model and its voices"
        )
    voices.sort(key=lambda path: (path.stem != DEFAULT_VOICE, path.stem))
    if not 0 <= speaker < len(voices):
        raise ConfigError(
            f"speaker {speaker}: {folder.name} has {len(voices)}; allowed: 0 to {len(voices) - 1}"
        )
    chosen = voices[speaker]
    espeak_voice = _ESPEAK_VOICES.get(chosen.stem[:1])
    if espeak_voice is None:
        raise ConfigError(
            f"speaker {speaker} ({chosen.stem}) needs phonemes that espeak-ng does not make; "
            f"languages that work: {', '.join(_ESPEAK_VOICES.values())}"
        )
    size = chosen.stat().st_size
    if size == 0 or size % (STYLE_SIZE * 4):
        raise ArtifactError(f"{chosen}: {size} bytes are not rows of {STYLE_SIZE} float32")
    styles = np.fromfile(chosen, dtype="<f4").astype(np.float32).reshape(-1, STYLE_SIZE)
    return KokoroSpeech(
        models[0],
        styles,
        espeak_voice=espeak_voice,
        threads=threads,
        speed=speed,
        wanted=wanted,
    )
