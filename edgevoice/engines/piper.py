"""Piper voices (VITS) straight on onnxruntime.

Owns the voice's settings and its symbol table. Phonemes come from
:mod:`edgevoice.engines.phonemes`; :mod:`edgevoice.engines.vits_graph` runs the graph, stretch by
stretch where the artifact has it in halves. The format is piper's: `voice.onnx` with inputs
``input`` [1, n] int64, ``input_lengths`` [1], ``scales`` [noise, length, noise_w] and, with several
speakers, ``sid`` [1]; beside it `voice.onnx.json` with the symbol ids and the scales.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from edgevoice.engines.ort import chunks
from edgevoice.engines.phonemes import phonemise
from edgevoice.engines.providers import ON_CPU, Files, Wanted
from edgevoice.engines.speakable import speakable
from edgevoice.engines.vits_graph import CutGraph, VitsGraph, WholeGraph, read_cut
from edgevoice.errors import ArtifactError, ConfigError
from edgevoice.frames import Float32
from edgevoice.stages import Cancelled, never

_log = logging.getLogger(__name__)

PAD, START, END = "_", "^", "$"
MAX_SYMBOLS = 120
"""Phonemes in one run of a whole graph, about 6 s; a longer sentence is cut at a clause mark or a
space.

Peak memory of a process with the int8 joe voice alone: 253 MB so, 419 MB with 250.
"""
MAX_SYMBOLS_IN_HALVES = 200
"""The same for a graph in halves, about 10 s: 130 MB. The first sound waits for the front half,
which takes time as the part is long, so it is not more."""


@dataclass(frozen=True, slots=True)
class VoiceConfig:
    """What `voice.onnx.json` says.

    Attributes:
        symbol_ids: Ids of each symbol (one code point) of the phoneme alphabet.
        espeak_voice: espeak-ng's voice that the phonemes come from.
        speakers: Number of speakers, 1 for most voices.
        noise_scale: Variance of the sound; ``noise_w``: of the durations (VITS's names).
        length_scale: Above 1 is slower.
    """

    sample_rate_hz: int
    espeak_voice: str
    symbol_ids: Mapping[str, tuple[int, ...]]
    speakers: int
    noise_scale: float
    length_scale: float
    noise_w: float


def read_config(path: Path) -> VoiceConfig:
    """Read a voice's `.onnx.json`.

    Raises:
        ArtifactError: It is missing, not JSON, or not a Piper voice's.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        inference = data.get("inference", {})
        config = VoiceConfig(
            sample_rate_hz=int(data["audio"]["sample_rate"]),
            espeak_voice=str(data["espeak"]["voice"]),
            symbol_ids={k: tuple(map(int, v)) for k, v in data["phoneme_id_map"].items()},
            speakers=int(data.get("num_speakers", 1)),
            noise_scale=float(inference.get("noise_scale", 0.667)),
            length_scale=float(inference.get("length_scale", 1.0)),
            noise_w=float(inference.get("noise_w", 0.8)),
        )
    except FileNotFoundError as error:
        raise ArtifactError(
            f"{path} is missing; a Piper voice is an .onnx and an .onnx.json file"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path}: not a Piper voice's settings: {error!r}") from error
    if phonemes := {"espeak"} - {data.get("phoneme_type", "espeak")}:
        raise ArtifactError(
            f"{path}: phoneme_type {data['phoneme_type']!r}; only {phonemes.pop()!r} voices load"
        )
    if missing := [s for s in (PAD, START, END) if s not in config.symbol_ids]:
        raise ArtifactError(f"{path}: phoneme_id_map lacks {', '.join(map(repr, missing))}")
    return config


class SymbolTable:
    """Turns phonemes into a voice's ids; a phoneme that the voice lacks is logged once."""

    def __init__(self, symbol_ids: Mapping[str, tuple[int, ...]]) -> None:
        self._ids = symbol_ids
        self._reported: set[str] = set()

    def ids(self, phonemes: str) -> list[int]:
        """Return start, pad, then every symbol followed by a pad, then end (piper's layout)."""
        pad = self._ids[PAD]
        ids = [*self._ids[START], *pad]
        for symbol in phonemes:
            known = self._ids.get(symbol)
            if known is None:
                if symbol not in self._reported:
                    self._reported.add(symbol)
                    _log.warning("the voice has no symbol for %r; it is left out", symbol)
                continue
            ids += [*known, *pad]
        return [*ids, *self._ids[END]]


def bounded(phonemes: str, limit: int = MAX_SYMBOLS) -> Iterator[str]:
    """Yield ``phonemes`` in parts of at most ``limit``, cut at a clause mark or a space."""
    rest = phonemes
    while len(rest) > limit:
        cut = max(rest.rfind(mark, limit // 2, limit) for mark in (", ", "; ", ": "))
        if cut < 0:
            cut = rest.rfind(" ", 1, limit)
        cut = cut + 1 if cut > 0 else limit
        yield rest[:cut].strip()
        rest = rest[cut:].strip()
    if rest:
        yield rest


class PiperSpeech:
    """A Piper voice. Implements :class:`edgevoice.stages.Speech`."""

    def __init__(
        self,
        name: str,
        graph: VitsGraph,
        config: VoiceConfig,
        *,
        speaker: int,
        speed: float,
        noise: float,
        max_symbols: int,
    ) -> None:
        if not 0 <= speaker < max(config.speakers, 1):
            raise ConfigError(
                f"speaker {speaker}: {name} has {config.speakers}; "
                f"allowed: 0 to {max(config.speakers, 1) - 1}"
            )
        self.config = config
        self._symbols = SymbolTable(config.symbol_ids)
        self._graph = graph
        self.provider = graph.provider
        self._max_symbols = max_symbols
        self._speaker = speaker
        self._scales = np.array(
            [config.noise_scale * noise, config.length_scale / speed, config.noise_w * noise],
            dtype=np.float32,
        )
        if needed := {"input", "input_lengths", "scales"} - graph.inputs:
            raise ArtifactError(f"{name}: not a Piper voice: it lacks {', '.join(sorted(needed))}")

    @property
    def sample_rate_hz(self) -> int:
        """Rate of the samples, from the voice's settings."""
        return self.config.sample_rate_hz

    def synthesise(self, text: str, cancelled: Cancelled = never) -> Iterator[Float32]:
        """Yield 100 ms chunks; a cancel also ends a run of the graph that is under way."""
        spoken = speakable(text, self.config.espeak_voice)
        if not spoken:
            return
        for sentence in phonemise(spoken, self.config.espeak_voice):
            for part in bounded(sentence, self._max_symbols):
                if cancelled():
                    return
                for samples in self.run(part, cancelled):
                    yield from chunks(samples, self.sample_rate_hz, cancelled)

    def run(self, phonemes: str, cancelled: Cancelled = never) -> Iterator[Float32]:
        """Return the sound of one sentence's phonemes as it is made, less when cancelled."""
        ids = np.array([self._symbols.ids(phonemes)], dtype=np.int64)
        feed: dict[str, Any] = {
            "input": ids,
            "input_lengths": np.array([ids.shape[1]], dtype=np.int64),
            "scales": self._scales,
        }
        if "sid" in self._graph.inputs:
            feed["sid"] = np.array([self._speaker], dtype=np.int64)
        return self._graph.run(feed, cancelled)

    def close(self) -> None:
        """Free the weights; the voice cannot be used any more."""
        del self._graph


def find_files(folder: Path) -> tuple[Path, Path]:
    """Return the graph and the settings of the Piper voice in ``folder``.

    Raises:
        ArtifactError: There is not exactly one voice.
    """
    models = sorted(folder.glob("*.onnx"))
    if len(models) != 1:
        raise ArtifactError(
            f"{folder} has {len(models)} .onnx files; a Piper voice's folder has one"
        )
    return models[0], models[0].with_name(models[0].name + ".json")


def load(
    folder: Path,
    *,
    threads: int,
    speaker: int = 0,
    speed: float = 1.0,
    noise: float = 1.0,
    engine: Mapping[str, Any] = MappingProxyType({}),
    wanted: Wanted = ON_CPU,
    first_ms: float = 350.0,
    files: Callable[[Path], Files] = Files,
) -> PiperSpeech:
    """Load the Piper voice in ``folder``.

    Args:
        folder: Holds `NAME.onnx` and `NAME.onnx.json`.
        threads: Threads of one run.
        speaker: Number of the speaker, from 0.
        speed: Above 1 is faster.
        noise: Times the voice's own; with 0 it says the same each time.
        engine: The manifest's table; with the halves of the graph in it these are loaded, and
            otherwise the whole graph, which is silent until a sentence is done.
        wanted: Execution providers.
        first_ms: Sound that the halves of the graph make first.
        files: What the artifact has of a graph for each provider, by the graph for the CPU.

    Raises:
        ArtifactError: A file is missing, truncated, or not a Piper voice's.
        EngineError: A provider is required and cannot run it.
        ConfigError: The voice has no such speaker.
    """
    model, settings = find_files(folder)
    config = read_config(settings)
    cut = read_cut(folder, engine)
    graph: VitsGraph
    if cut is None:
        graph, max_symbols = WholeGraph(model, threads, wanted), MAX_SYMBOLS
    else:
        graph = CutGraph(
            cut,
            threads,
            config.sample_rate_hz,
            wanted,
            first_ms=first_ms,
            decoder=files(cut.decoder),
        )
        max_symbols = MAX_SYMBOLS_IN_HALVES
    return PiperSpeech(
        model.name,
        graph,
        config,
        speaker=speaker,
        speed=speed,
        noise=noise,
        max_symbols=max_symbols,
    )
