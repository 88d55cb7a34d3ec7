"""Write down what is said in WAV files, one line a file: the file, a tab, the text.

A file that cannot be read gives one line on standard error; the others are still transcribed,
and the exit code is 1. A recording waits: unlike in a conversation, the second pass is given all
the time that it takes.
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
from edgevoice.events import HeardBy
from edgevoice.settings import PASSES, RecogniserSettings, Settings

if TYPE_CHECKING:
    from edgevoice.engines.silero_vad import SileroVadModel
    from edgevoice.frames import Float32
    from edgevoice.stages import Recogniser, Transcript

HELP = "speech in WAV files to text"

_PIECE_MS = 100


@dataclass(frozen=True, slots=True)
class Partial:
    """A growing text: the ms of the recording heard, the stretch's text so far, what of it stays,
    and the pass that heard it."""

    at_ms: float
    text: str
    stable: str
    heard_by: HeardBy


@dataclass(frozen=True, slots=True)
class Stretch:
    """Speech from ``start_ms`` to ``end_ms``, its text, and the pass that heard it.

    ``first_text`` is the first pass's where both listened, "" elsewhere.
    """

    start_ms: float
    end_ms: float
    text: str
    heard_by: HeardBy
    first_text: str = ""


@dataclass(frozen=True, slots=True)
class Heard:
    """What was made of one file.

    Attributes:
        text: All of it.
        audio_s: Length of the recording.
        decode_ms: Time that VAD and recogniser took.
        partials: What was understood while it was heard.
        stretches: Its parts that were heard one after another.
    """

    text: str
    audio_s: float
    decode_ms: float
    partials: tuple[Partial, ...]
    stretches: tuple[Stretch, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the files and the options."""
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="WAV of any rate")
    parser.add_argument(
        "--json",
        action="store_true",
        help="one JSON object a line; `heard_by` says which pass a text is of",
    )
    parser.add_argument(
        "--partials", action="store_true", help="also what was understood while it was heard"
    )
    parser.add_argument(
        "--pass",
        dest="passes",
        choices=PASSES,
        help="first: the streaming recogniser alone; second: the one of whole utterances alone; "
        "both: partials from the first, text from the second (default: recogniser.passes)",
    )
    parser.add_argument(
        "--engine",
        metavar="NAME",
        help="one recogniser artifact alone (default: recogniser.first_pass and recogniser.model)",
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
    from edgevoice.engines.recogniser import load_passes
    from edgevoice.engines.silero_vad import load_vad
    from edgevoice.store import Store

    settings = defaults.load()
    settings = replace(settings, recogniser=_listening(settings.recogniser, parsed))
    store = Store.default()
    folders = {s: store.path(name) for s, name in settings.recogniser.heard_with().items()}
    if parsed.boost:
        boosted = _boosted(settings.recogniser, folders["recogniser"], parsed.boost)
        settings = replace(settings, recogniser=boosted)
    vad = load_vad(store.path(settings.vad.model), settings.vad)
    model = load_passes(folders, settings.recogniser, patient=True)
    warn_of_provider("vad", vad)
    warn_of_provider("recogniser", model)
    alone: HeardBy = "" if parsed.engine else _only_pass(settings.recogniser)
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
        _show(path, heard, parsed, alone)
    model.close()
    return EXIT_FAILURE if failed else EXIT_OK


def _boosted(settings: RecogniserSettings, folder: Path, boost: list[str]) -> RecogniserSettings:
    from edgevoice import manifest
    from edgevoice.engines.sherpa_online_packs import takes_words

    if not takes_words(manifest.read(folder)):
        raise ConfigError(
            f"--boost {boost[0]}: {folder.name!r} writes the text, has no lexicon and takes no "
            "words; choose a streaming pack that has one, with --pass first or --engine"
        )
    return replace(settings, words=(*settings.words, *boost))


def _listening(settings: RecogniserSettings, parsed: argparse.Namespace) -> RecogniserSettings:
    """Return ``settings`` as the options change them.

    Raises:
        ConfigError: The options contradict each other, or ask for a first pass that is not there.
    """
    if parsed.engine and parsed.passes:
        raise ConfigError("--engine names one recogniser and --pass chooses of two; give one")
    if parsed.engine:
        return replace(settings, model=parsed.engine, passes="second")
    if not parsed.passes:
        return settings
    chosen = replace(settings, passes=parsed.passes)
    if parsed.passes != "second" and not settings.first_pass_name():
        raise ConfigError(
            f"--pass {parsed.passes}: there is no first pass for {settings.model!r}; set "
            "recogniser.first_pass to a streaming recogniser (`edgevoice models list`)"
        )
    return chosen


def _only_pass(settings: RecogniserSettings) -> HeardBy:
    """Return the pass that listens alone, "" where both do or there is but one."""
    if not settings.first_pass_name() or settings.passes == "both":
        return ""
    return "first" if settings.passes == "first" else "second"


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
    from edgevoice.engines.two_passes import TwoPassRecogniser
    from edgevoice.frames import ms_to_samples, samples_to_ms

    piece = ms_to_samples(_PIECE_MS)
    begun = time.perf_counter()
    spans = pack_spans(
        speech_spans(samples, vad.open(), vad.open_edges()),
        settings.vad.preroll_ms,
        settings.recogniser.max_utterance_s * 1000.0,
    )
    stretches: list[Stretch] = []
    seen: list[Partial] = []
    for span in spans:
        recogniser.reset()
        stretch = cut(samples, span)
        for start in range(0, len(stretch), piece):
            recogniser.accept(stretch[start : start + piece])
            partial: Transcript | None = recogniser.partial() if partials else None
            if partial is not None:
                at_ms = span[0] + partial.audio_ms
                seen.append(Partial(at_ms, partial.text, partial.stable, partial.heard_by))
        found = recogniser.conclude()
        first_text = ""
        if isinstance(recogniser, TwoPassRecogniser):
            first_text = recogniser.first.conclude().text
        end_ms = span[0] + samples_to_ms(len(stretch))
        stretches.append(Stretch(span[0], end_ms, found.text, found.heard_by, first_text))
        if found.trouble:
            print(f"edgevoice: {found.trouble}", file=sys.stderr)
    recogniser.reset()
    decode_ms = (time.perf_counter() - begun) * 1000.0
    text = " ".join(filter(None, (each.text for each in stretches)))
    audio_s = samples_to_ms(len(samples)) / 1000.0
    return Heard(text, audio_s, decode_ms, tuple(seen), tuple(stretches))


def _read(path: Path) -> Float32:
    from edgevoice.audio.resample import resample
    from edgevoice.audio.wav import read_wav
    from edgevoice.frames import SAMPLE_RATE_HZ

    samples, rate_hz = read_wav(path)
    return resample(samples, rate_hz, SAMPLE_RATE_HZ)


def _show(path: Path, heard: Heard, parsed: argparse.Namespace, alone: HeardBy) -> None:
    if parsed.json:
        print(json.dumps(_row(path, heard, parsed, alone), ensure_ascii=False), flush=True)
        return
    for each in heard.partials:
        told = f"{each.stable}|{each.text[len(each.stable) :]}"
        print(f"{path}\t{each.at_ms / 1000.0:.1f}s\t{told}")
    print(f"{path}\t{heard.text}", flush=True)


def _row(path: Path, heard: Heard, parsed: argparse.Namespace, alone: HeardBy) -> dict[str, Any]:
    row: dict[str, Any] = {
        "file": str(path),
        "text": heard.text,
        "audio_s": round(heard.audio_s, 3),
        "decode_ms": round(heard.decode_ms, 1),
        "real_time_factor": round(heard.decode_ms / 1000.0 / max(heard.audio_s, 1e-9), 4),
        "stretches": [
            {
                "start_ms": round(each.start_ms),
                "end_ms": round(each.end_ms),
                "text": each.text,
                "heard_by": each.heard_by or alone,
                **({"first_text": each.first_text} if each.heard_by else {}),
            }
            for each in heard.stretches
        ],
    }
    if parsed.partials:
        row["partials"] = [
            {
                "at_ms": round(each.at_ms),
                "text": each.text,
                "stable": each.stable,
                "heard_by": each.heard_by or alone,
            }
            for each in heard.partials
        ]
    return row
