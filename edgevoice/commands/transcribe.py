"""Write down what is said in WAV files, one line a file: the file, a tab, the text.

A file that cannot be read gives one line on standard error; the others are still transcribed,
and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgevoice.commands.printing import warn_of_provider
from edgevoice.devices import defaults
from edgevoice.errors import EXIT_FAILURE, EXIT_OK, AudioError, ConfigError
from edgevoice.settings import RecogniserSettings, Settings

if TYPE_CHECKING:
    from edgevoice.engines.silero_vad import SileroVadModel
    from edgevoice.frames import Float32
    from edgevoice.stages import Recogniser, Transcript

HELP = "speech in WAV files to text"

_PIECE_MS = 100


@dataclass(frozen=True, slots=True)
class Heard:
    """What was made of one file.

    Attributes:
        text: All of it.
        audio_s: Length of the recording.
        decode_ms: Time that VAD and recogniser took.
        partials: (ms of the recording heard, text of the stretch so far, its stable prefix).
    """

    text: str
    audio_s: float
    decode_ms: float
    partials: tuple[tuple[float, str, str], ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the files and the options."""
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="WAV of any rate")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument(
        "--partials", action="store_true", help="also what was understood while it was heard"
    )
    parser.add_argument(
        "--engine", metavar="NAME", help="recogniser artifact (default: recogniser.model)"
    )
    parser.add_argument(
        "--boost",
        action="append",
        default=[],
        metavar="WORD",
        help="a word or name to expect beside recogniser.words; streaming packs with a lexicon",
    )


def run(parsed: argparse.Namespace) -> int:
    """Transcribe the files and return the exit code."""
    from edgevoice.engines.recogniser import load_recogniser
    from edgevoice.engines.silero_vad import load_vad
    from edgevoice.store import Store

    settings = defaults.load()
    chosen = settings.recogniser
    if parsed.engine:
        chosen = replace(chosen, model=parsed.engine)
    store = Store.default()
    if parsed.boost:
        chosen = _boosted(chosen, store.path(chosen.model), parsed.boost)
    vad = load_vad(store.path(settings.vad.model), settings.vad)
    model = load_recogniser(store.path(chosen.model), chosen)
    warn_of_provider("vad", vad)
    warn_of_provider("recogniser", model)
    recogniser = model.open()
    failed = False
    for path in parsed.files:
        try:
            samples = _read(path)
        except AudioError as error:
            print(f"edgevoice: {error}", file=sys.stderr)
            failed = True
            continue
        heard = transcribe(samples, vad, recogniser, settings, partials=parsed.partials)
        _show(path, heard, parsed)
    model.close()
    return EXIT_FAILURE if failed else EXIT_OK


def _boosted(settings: RecogniserSettings, folder: Path, boost: list[str]) -> RecogniserSettings:
    from edgevoice import manifest
    from edgevoice.engines.sherpa_online_packs import takes_words

    if not takes_words(manifest.read(folder)):
        raise ConfigError(
            f"--boost {boost[0]}: {settings.model!r} has no lexicon and takes no words; choose a "
            "streaming pack that has one with --engine"
        )
    return replace(settings, words=(*settings.words, *boost))


def transcribe(
    samples: Float32,
    vad: SileroVadModel,
    recogniser: Recogniser,
    settings: Settings,
    *,
    partials: bool,
) -> Heard:
    """Transcribe float32 samples, shape ``[n]``, 16 kHz, one stretch of speech after another."""
    from edgevoice.engines.segments import cut, pack_spans, speech_spans
    from edgevoice.frames import ms_to_samples, samples_to_ms

    piece = ms_to_samples(_PIECE_MS)
    begun = time.perf_counter()
    spans = pack_spans(
        speech_spans(samples, vad.open(), vad.open_edges()),
        settings.vad.preroll_ms,
        settings.recogniser.max_utterance_s * 1000.0,
    )
    texts: list[str] = []
    seen: list[tuple[float, str, str]] = []
    for span in spans:
        recogniser.reset()
        stretch = cut(samples, span)
        for start in range(0, len(stretch), piece):
            recogniser.accept(stretch[start : start + piece])
            partial: Transcript | None = recogniser.partial() if partials else None
            if partial is not None:
                seen.append((span[0] + partial.audio_ms, partial.text, partial.stable))
        texts.append(recogniser.conclude().text)
    recogniser.reset()
    decode_ms = (time.perf_counter() - begun) * 1000.0
    text = " ".join(filter(None, texts))
    return Heard(text, samples_to_ms(len(samples)) / 1000.0, decode_ms, tuple(seen))


def _read(path: Path) -> Float32:
    from edgevoice.audio.resample import resample
    from edgevoice.audio.wav import read_wav
    from edgevoice.frames import SAMPLE_RATE_HZ

    samples, rate_hz = read_wav(path)
    return resample(samples, rate_hz, SAMPLE_RATE_HZ)


def _show(path: Path, heard: Heard, parsed: argparse.Namespace) -> None:
    if parsed.json:
        row: dict[str, Any] = {
            "file": str(path),
            "text": heard.text,
            "audio_s": round(heard.audio_s, 3),
            "decode_ms": round(heard.decode_ms, 1),
            "real_time_factor": round(heard.decode_ms / 1000.0 / max(heard.audio_s, 1e-9), 4),
        }
        if parsed.partials:
            row["partials"] = [
                {"at_ms": round(at_ms), "text": text, "stable": stable}
                for at_ms, text, stable in heard.partials
            ]
        print(json.dumps(row, ensure_ascii=False), flush=True)
        return
    for at_ms, text, stable in heard.partials:
        print(f"{path}\t{at_ms / 1000.0:.1f}s\t{stable}|{text[len(stable) :]}")
    print(f"{path}\t{heard.text}", flush=True)
