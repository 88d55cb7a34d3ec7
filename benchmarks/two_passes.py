"""What a first pass before Whisper is worth: words over the agent, texts, and who is asked.

    python benchmarks/two_passes.py FIRST_PASS [--part overlap texts sure] [--limit N]
                                    [--speech DIR] [--json FILE]

FIRST_PASS is a streaming recogniser, by name or folder; the second is `recogniser.model`. Nothing
runs in real time: times are processor time, so other work on the machine hardly matters.

- `overlap` asks for the words of speech over the agent as a conversation does, with one recogniser
  and with two, and says what was made of each sound.
- `texts` says how many words each pass gets wrong, and how often both hear the same.
- `sure` asks when the second pass could be spared: sherpa-onnx tells no probabilities of CTC
  models, so they are computed here from the model itself, and the recordings of which the first
  pass is surest keep its text.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from disturbances import disturbances
from overlaps import interruptions
from recordings import QUESTIONS, VOICES, Recording, from_folder, librivox, read_speech, speak

from edgevoice.engines.recogniser import load_passes
from edgevoice.engines.two_passes import TwoPassModel
from edgevoice.events import OverlapHeard
from edgevoice.export.distil.fbank import FLOOR, fbank
from edgevoice.export.words import normalise, word_errors
from edgevoice.frames import SAMPLE_RATE_HZ, Float32, ms_to_samples, samples_to_ms
from edgevoice.overlap import BRIEF_MS, Overlap, Verdict, judge
from edgevoice.settings import Settings
from edgevoice.stages import Expected, Recogniser, RecogniserModel, Transcript
from edgevoice.store import Store
from edgevoice.turn_rules import Rules

AGENT_SAYS = "Elephants live in large herds and remember where the water was."
FIRST_PROBE_MS, PROBE_EVERY_MS = 320.0, 96.0


class Counting:
    """A model whose recognisers count how often they are asked for a whole text."""

    def __init__(self, model: RecogniserModel) -> None:
        self._model = model
        self.asked = 0

    def open(self) -> Recogniser:
        return _Counted(self._model.open(), self)

    def close(self) -> None:
        self._model.close()


class _Counted:
    def __init__(self, recogniser: Recogniser, counting: Counting) -> None:
        self._counting = counting
        self.accept = recogniser.accept
        self.partial = recogniser.partial
        self.endpoint = recogniser.endpoint
        self.reset = recogniser.reset
        self.draft = recogniser.draft
        self._conclude = recogniser.conclude

    def conclude(self, expected: Expected = "turn") -> Transcript:
        self._counting.asked += 1
        return self._conclude(expected)

    def glance(self) -> Transcript:
        return self.conclude("interjection")


@dataclass
class Tally:
    """What one way of listening made of one kind of sound."""

    sounds: int = 0
    interruptions: int = 0
    after_ms: list[float] = field(default_factory=list)
    probes: int = 0
    second_asked: int = 0
    cpu_ms: float = 0.0

    def row(self) -> dict[str, Any]:
        return {
            "sounds": self.sounds,
            "taken for an interruption": self.interruptions,
            "after, p50 ms": round(float(np.median(self.after_ms))) if self.after_ms else "-",
            "probes": self.probes,
            "of them by Whisper": self.second_asked,
            "processor time, ms a sound": round(self.cpu_ms / max(1, self.sounds), 1),
        }


def overlap(passes: TwoPassModel, folder: Path, limit: int) -> dict[str, Any]:
    sounds = [(case.kind, case.name, case.samples) for case in disturbances()]
    sounds += [("interruption", case.name, case.over) for case in interruptions(folder)]
    found: dict[str, dict[str, Tally]] = {"one pass": {}, "two passes": {}}
    differ = []
    for kind, name, samples in sounds[:: max(1, len(sounds) // limit)]:
        made = {}
        for way, tallies in found.items():
            second = Counting(passes.second)
            model = TwoPassModel(passes.first, second, None) if way == "two passes" else second
            made[way] = _hear(model.open(), second, samples, tallies.setdefault(kind, Tally()))
        if made["one pass"] != made["two passes"]:
            differ.append(f"{name}: {made['one pass']} / {made['two passes']}")
    rows = {
        f"{kind}, {way}": tally.row()
        for kind in found["one pass"]
        for way, t in found.items()
        for tally in (t[kind],)
    }
    return {**rows, "differ": differ}


def _hear(recogniser: Recogniser, second: Counting, samples: Float32, tally: Tally) -> str:
    """Ask as :mod:`edgevoice.barge_in` does, and return the verdict that ends it."""
    began_s, asked = time.process_time(), second.asked
    length_ms = samples_to_ms(samples.size)
    fed, at_ms, made = 0, FIRST_PROBE_MS, "too brief"
    recogniser.accept(np.zeros(ms_to_samples(300.0), np.float32))
    tally.sounds += 1
    while True:
        ended = at_ms >= length_ms
        upto = samples.size if ended else ms_to_samples(at_ms)
        recogniser.accept(samples[fed:upto])
        fed = upto
        heard = recogniser.conclude() if ended else recogniser.glance()
        tally.probes += 1
        over = Overlap(0.0, min(at_ms, length_ms), length_ms if ended else None, held=True)
        verdict, _ = judge(over, OverlapHeard(at_ms, 1, heard.text, AGENT_SAYS), Rules())
        made = verdict.value
        if verdict is Verdict.INTERRUPTION or ended:
            break
        at_ms = max(at_ms + PROBE_EVERY_MS, BRIEF_MS)
    if made == Verdict.INTERRUPTION.value:
        tally.interruptions += 1
        tally.after_ms.append(min(at_ms, length_ms))
    tally.second_asked += second.asked - asked
    tally.cpu_ms += (time.process_time() - began_s) * 1000.0
    return made


@dataclass(frozen=True, slots=True)
class Said:
    """What both passes made of one recording: words, and how sure the first one was."""

    reference: list[str]
    first: list[str]
    second: list[str]
    mean: float
    least: float


def texts(passes: TwoPassModel, recordings: Sequence[Recording]) -> dict[str, Any]:
    errors = {"first": 0, "second": 0}
    spent = {"first": 0.0, "second": 0.0}
    spoken = alike = 0
    heard_s = 0.0
    for recording in recordings:
        samples = read_speech(recording.path)
        heard_s += samples.size / SAMPLE_RATE_HZ
        reference = normalise(recording.text)
        spoken += len(reference)
        said = {}
        for name, model in (("first", passes.first), ("second", passes.second)):
            recogniser = model.open()
            began_s = time.process_time()
            recogniser.accept(samples)
            said[name] = normalise(recogniser.conclude().text)
            spent[name] += time.process_time() - began_s
            errors[name] += word_errors(reference, said[name])
        alike += said["first"] == said["second"]
    return {
        name: {
            "recordings": len(recordings),
            "words": spoken,
            "word error rate": round(errors[name] / spoken, 4),
            "processor time over length": round(spent[name] / heard_s, 4),
            "heard the same in both": alike,
        }
        for name in errors
    }


def sure(
    passes: TwoPassModel, recordings: Sequence[Recording], folder: Path
) -> dict[str, dict[str, Any]]:
    """Let the recordings of which the first pass is surest keep its text, more and more of them."""
    session = ort.InferenceSession(next(folder.glob("*.onnx")))
    found = []
    for recording in recordings:
        samples = read_speech(recording.path)
        heard = {}
        for name, model in (("first", passes.first), ("second", passes.second)):
            recogniser = model.open()
            recogniser.accept(samples)
            heard[name] = normalise(recogniser.conclude().text)
        spoken = _log_probabilities(session, samples)
        best = spoken.max(axis=1)[spoken.argmax(axis=1) != 0]
        mean, least = (float(best.mean()), float(best.min())) if best.size else (-9.0, -9.0)
        found.append(Said(normalise(recording.text), heard["first"], heard["second"], mean, least))
    words = sum(len(each.reference) for each in found)
    rows: dict[str, dict[str, Any]] = {}
    for by in ("mean", "least"):
        ordered = sorted(found, key=lambda each: getattr(each, by), reverse=True)
        for share in (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0):
            spared = round(share * len(ordered))
            wrong = sum(word_errors(each.reference, each.first) for each in ordered[:spared])
            wrong += sum(word_errors(each.reference, each.second) for each in ordered[spared:])
            bound = f"{getattr(ordered[spared - 1], by):.3f}" if spared else "-"
            rows[f"{share:.0%} by the {by} log probability"] = {
                "from": bound,
                "word error rate": round(wrong / words, 4),
            }
    return rows


def _log_probabilities(session: Any, samples: Float32) -> Float32:
    """Return what a wenet-ctc model says of ``samples``, shape [frames, vocabulary]."""
    sizes = {each.name: each.shape for each in session.get_inputs()}
    names = [each.name for each in session.get_inputs()]
    chunk_name, offset, required, attention, convolution, mask = names
    taken, cache = sizes[chunk_name][1], sizes[attention][2]
    chunk = sizes[mask][2] - cache
    step = 2 * chunk
    padded = np.concatenate((samples, np.zeros(2 * SAMPLE_RATE_HZ, np.float32)))
    features = np.maximum(fbank(padded), FLOOR)
    state = [np.zeros(sizes[name], np.float32) for name in (attention, convolution)]
    said = []
    for number in range((len(features) - (taken - step)) // step):
        outputs = session.run(
            None,
            {
                chunk_name: features[None, step * number : step * number + taken],
                offset: np.array([cache + number * chunk]),
                required: np.array([cache]),
                attention: state[0],
                convolution: state[1],
                mask: np.arange(cache + chunk)[None, None] >= cache - number * chunk,
            },
        )
        said.append(outputs[0][0])
        state = outputs[1:]
    return np.concatenate(said)


def _recordings(folder: Path, speech: Sequence[Path]) -> list[Recording]:
    """Return every question in every voice, LibriVox's clips, and the user's recordings."""
    asked = [
        Recording(
            f"question-{number:02d}-{voice}",
            speak(text, voice, folder / f"q-{number:02d}-{voice}.wav"),
            text,
            human=False,
        )
        for number, text in enumerate(QUESTIONS)
        for voice in VOICES
    ]
    own = [each for path in speech for each in from_folder(path, folder)]
    return [*own, *librivox(), *asked]


def table(rows: dict[str, Any]) -> str:
    columns = [name for name, row in rows.items() if isinstance(row, dict)]
    keys = list(rows[columns[0]])
    lines = ["| | " + " | ".join(keys) + " |", "| --- |" + " ---: |" * len(keys)]
    lines += [
        f"| {name} | " + " | ".join(str(rows[name][key]) for key in keys) + " |" for name in columns
    ]
    return "\n".join([*lines, *(f"\n{line}" for line in rows.get("differ", []))])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("first_pass")
    parser.add_argument("--part", nargs="+", default=["overlap", "texts", "sure"])
    parser.add_argument("--limit", type=int, default=1000, help="of cases in each part")
    parser.add_argument("--speech", nargs="+", type=Path, default=[], metavar="DIR")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    settings = replace(Settings().recogniser, first_pass=arguments.first_pass)
    store = Store.default()
    folders = {stage: store.path(name) for stage, name in settings.heard_with().items()}
    passes = load_passes(folders, settings, patient=True)
    assert isinstance(passes, TwoPassModel)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        recordings = _recordings(Path(scratch), arguments.speech)[: arguments.limit]
        for part in arguments.part:
            match part:
                case "overlap":
                    results[part] = overlap(passes, Path(scratch), arguments.limit)
                case "texts":
                    results[part] = texts(passes, recordings)
                case _:
                    results[part] = sure(passes, recordings, folders["first-pass"])
            print(f"\n## {part}\n\n{table(results[part])}", flush=True)
            if arguments.json is not None:
                arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
