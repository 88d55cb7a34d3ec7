"""What an earlier text of an utterance saves Whisper, against sherpa-onnx on the same artifact.

    python benchmarks/drafted_whisper.py [--artifact NAME] [--speech DIR] [--cut-ms 500]
                                         [--json FILE]

Each recording ends where its sound does, as at the end of a turn. It is decoded by sherpa-onnx, by
our engine without a draft, and by our engine with what that wrote of it `--cut-ms` earlier for a
draft; in turn, so that other work on the machine meets all three. Times are processor time of one
thread. DIR has a `transcripts.tsv` (file, tab, text). Needs flite and the default bundle.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from recordings import QUESTIONS, VOICES, Recording, from_folder, librivox, read_speech, speak

from edgevoice import manifest
from edgevoice.engines import whisper_drafted
from edgevoice.engines.providers import Ran
from edgevoice.engines.sherpa_offline_packs import load_offline
from edgevoice.export.words import normalise, word_errors
from edgevoice.frames import SAMPLE_RATE_HZ, Float32, ms_to_samples
from edgevoice.settings import RecogniserSettings
from edgevoice.store import Store

WAYS = ("sherpa-onnx", "no draft", "draft")


@dataclass
class Tally:
    """What one way of decoding came to on one kind of speech."""

    wrong: int = 0
    took_ms: list[float] = field(default_factory=list)


def heard(path: Path) -> Float32:
    """Return the recording, 40 ms of quiet left at either end."""
    samples = read_speech(path)
    loud = np.flatnonzero(np.abs(samples) > 0.03 * np.abs(samples).max())
    margin = ms_to_samples(40.0)
    return np.ascontiguousarray(samples[max(0, loud[0] - margin) : loud[-1] + margin])


def measure(
    decoders: dict[str, Any], recordings: Sequence[Recording], cut: int
) -> dict[str, dict[str, Any]]:
    tallies = {way: Tally() for way in WAYS}
    words = otherwise = 0
    seconds = 0.0
    for recording in recordings:
        sound = heard(recording.path)
        said = normalise(recording.text)
        words += len(said)
        seconds += sound.size / SAMPLE_RATE_HZ
        earlier = sound[: max(0, sound.size - cut)]
        draft = decoders["draft"].decode(earlier).tokens if earlier.size else ()
        texts = {}
        for way in WAYS:
            began_s = time.process_time()
            written = decoders[way].decode(sound, draft if way == "draft" else ())
            tallies[way].took_ms.append((time.process_time() - began_s) * 1000.0)
            texts[way] = normalise(written.text)
            tallies[way].wrong += word_errors(said, texts[way])
        otherwise += texts["draft"] != texts["no draft"]
    theirs = float(np.mean(tallies[WAYS[0]].took_ms))
    return {
        way: {
            "recordings": len(recordings),
            "mean length, s": round(seconds / len(recordings), 2),
            "word error rate, %": round(100.0 * tally.wrong / words, 2),
            "mean time, ms": round(float(np.mean(tally.took_ms)), 1),
            "against sherpa-onnx": round(float(np.mean(tally.took_ms)) / theirs, 3),
            **({"other words than without": otherwise} if way == "draft" else {}),
        }
        for way, tally in tallies.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--artifact", default="whisper-tiny.en-int8")
    parser.add_argument("--speech", type=Path)
    parser.add_argument("--cut-ms", type=float, default=500.0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    folder = Store.default().path(arguments.artifact)
    described, settings = manifest.read(folder), RecogniserSettings(threads=1)
    ours = whisper_drafted.load(folder, described, settings, Ran()).decoder
    theirs = load_offline(folder, described, settings).decoder
    decoders = {"sherpa-onnx": theirs, "no draft": ours, "draft": ours}
    with tempfile.TemporaryDirectory() as scratch:
        spoken = [
            Recording(f"{number}-{voice}", path, text, human=False)
            for number, text in enumerate(QUESTIONS)
            for voice in VOICES
            for path in [speak(text, voice, Path(scratch) / f"{number}-{voice}.wav")]
        ]
        sets = {"flite": spoken, "LibriVox": librivox()}
        if arguments.speech is not None:
            sets["folder"] = from_folder(arguments.speech, Path(scratch))
        found = {
            name: measure(decoders, recordings, ms_to_samples(arguments.cut_ms))
            for name, recordings in sets.items()
            if recordings
        }
    for name, rows in found.items():
        for way, row in rows.items():
            print(f"{name}, {way}: " + ", ".join(f"{key} {value}" for key, value in row.items()))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
