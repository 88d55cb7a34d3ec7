"""What a context binary decides and hears in the HTP's emulator, beside the CPU.

    python benchmarks/npu.py turns smart-turn-v3.2-sm8650 --results DIR [--recordings FOLDER]
    python benchmarks/npu.py words whisper-tiny.en-fp32-sm8650 --results DIR --recordings FOLDER

``turns``: every recording whole and cut off in its middle, judged by the artifact's graph on the
CPU without the rounding of activations (``cpu``), as it is published (``published``), and by its
binary (``npu``). ``words``: the encoder in float, and the binary, each with the same
decoder. The emulator takes tens of seconds an inference: what is done lies in DIR (``clips.jsonl``
has a line a clip), and the same command goes on. It is for the numbers; its time says nothing.
FOLDER has *.wav, and for ``words`` transcripts.tsv.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgevoice import manifest
from edgevoice.devices import socs
from edgevoice.engines import providers
from edgevoice.engines.artifact_files import onnx_file
from edgevoice.engines.whisper_greedy import GreedyWhisper
from edgevoice.export import htp, npu
from edgevoice.export.calibration import Calibration, Clip, recordings
from edgevoice.export.checks.recordings import librivox, spoken_questions
from edgevoice.export.npu_families import smart_turn, whisper
from edgevoice.export.words import normalise, word_errors
from edgevoice.frames import SAMPLE_RATE_HZ
from edgevoice.settings import EndOfTurnSettings
from edgevoice.store import Store

CUT = 0.55
SILENCE = np.zeros(SAMPLE_RATE_HZ // 5, np.float32)
LONGEST_S = 8.0
Feed = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """One inference: its name, its input, and what both sides' outputs become."""

    name: str
    feed: Feed
    line: Callable[[Feed, Feed], dict[str, Any]]


def turn_cases(published: onnx.ModelProto, clips: list[Clip]) -> Iterator[Case]:
    threshold = EndOfTurnSettings().threshold

    def judged(published_one: float, wanted: Feed, got: Feed) -> dict[str, Any]:
        found = {
            "cpu": float(wanted["logits"].item()),
            "npu": float(got["logits"].item()),
            "published": published_one,
        }
        ended = {side: probability >= threshold for side, probability in found.items()}
        return {
            **{side: round(probability, 4) for side, probability in found.items()},
            "alike": ended["cpu"] == ended["npu"],
            "as_published": ended["published"] == ended["npu"],
        }

    for clip in clips:
        stem = Path(clip.name).stem
        cut = clip.samples[: int(CUT * len(clip.samples))]
        for kind, samples in (("cut", cut), ("whole", clip.samples)):
            feed = dict(smart_turn.features(np.concatenate([samples, SILENCE])))

            def line(wanted: Feed, got: Feed, feed: Feed = feed) -> dict[str, Any]:
                (one,) = npu.outputs(published, [feed])
                return judged(float(one["logits"].item()), wanted, got)

            yield Case(f"{stem}-{kind}", feed, line)


def word_cases(
    name: str, decoder: GreedyWhisper, silence: Any, clips: list[Clip]
) -> Iterator[Case]:
    for clip in clips:
        said = normalise(clip.text)

        def line(wanted: Feed, got: Feed, said: tuple[str, ...] = said) -> dict[str, Any]:
            found: dict[str, Any] = {"words": len(said)}
            for side, outputs in (("cpu", wanted), ("npu", got)):
                text = decoder.write(*whisper.whole(outputs, silence)).text
                found |= {side: text, f"{side}_errors": word_errors(said, normalise(text))}
            return found

        yield Case(Path(clip.name).stem, {name: whisper.log_mel_of(clip.samples)}, line)


def summary(kind: str, lines: list[dict[str, Any]]) -> str:
    seconds = statistics.median(line["seconds"] for line in lines)
    if kind == "turns":
        apart = [abs(line["cpu"] - line["npu"]) for line in lines]
        said = f"{sum(line['alike'] for line in lines)} of {len(lines)} turns judged alike, "
        said += f"probability apart by {statistics.mean(apart):.3f}, at most {max(apart):.3f}; "
        said += f"{sum(line['as_published'] for line in lines)} as the published graph"
    else:
        words = sum(line["words"] for line in lines)
        rates = {s: 100 * sum(x[f"{s}_errors"] for x in lines) / words for s in ("cpu", "npu")}
        said = f"{len(lines)} clips, {words} words: WER {rates['cpu']:.2f}% in float on the CPU, "
        said += f"{rates['npu']:.2f}% in the emulator"
    return f"{said}; {seconds:.0f} s an inference in the emulator (no speed of any device)"


def measure(options: argparse.Namespace) -> None:
    folder = Store.default().path(options.artifact)
    described = manifest.read(folder)
    facts = described.engine["npu"]
    part = "encoder" if options.kind == "words" else ""
    path = Path(onnx_file(folder, described, part))
    binary = providers.files_of(folder, described, path).context
    assert binary is not None
    clips = list(recordings(options.recordings)) if options.recordings else []
    clips = clips or [*librivox(), *spoken_questions()]
    clips = [clip for clip in clips if len(clip.samples) <= LONGEST_S * SAMPLE_RATE_HZ]
    model = onnx.load(str(path))
    if options.kind == "words":
        model, silence = whisper.encoder(model, int(facts["frames"]))
        decoder = GreedyWhisper(folder, threads=1)
        cases = list(word_cases(facts["input"], decoder, silence, clips))
    else:
        cases = list(turn_cases(model, clips))
        model = smart_turn.graph_of(folder, described, Calibration(None)).model
    work: Path = options.results
    work.mkdir(parents=True, exist_ok=True)
    log = work / "clips.jsonl"
    lines = [json.loads(text) for text in log.read_text().splitlines()] if log.exists() else []
    done = {line["clip"] for line in lines}
    python = htp.interpreter(options.python)
    for case in [case for case in cases[: options.most] if case.name not in done]:
        soc = socs.find(facts["soc"])
        came = htp.emulate(binary, [case.feed], soc, python, work=work / case.name)
        with np.load(work / case.name / "results" / "0000.npz") as arrays:
            seconds = round(float(arrays["seconds"]), 1)
        wanted = npu.outputs(model, [case.feed])
        line = {"clip": case.name, "seconds": seconds, **case.line(wanted[0], came[0])}
        lines.append(line)
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
        print(json.dumps(line, ensure_ascii=False), flush=True)
    print(summary(options.kind, lines))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=("turns", "words"))
    parser.add_argument("artifact")
    parser.add_argument("--results", type=Path, required=True, metavar="DIR")
    parser.add_argument("--recordings", type=Path, metavar="FOLDER")
    parser.add_argument("--most", type=int, default=40, metavar="N")
    parser.add_argument("--python", default="", help="interpreter that has onnxruntime-qnn")
    os.nice(19)
    measure(parser.parse_args())


if __name__ == "__main__":
    main()
