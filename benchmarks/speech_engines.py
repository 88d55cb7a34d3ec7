"""Piper in onnxruntime and in sherpa-onnx, float and int8, and whether int8 is still understood.

    python benchmarks/speech_engines.py FP32_FOLDER INT8_FOLDER [--recogniser FOLDER] [--json]
        [--busy PROCESSES]

`onnx` decodes in stretches, `whole` is the same engine with the graph in one piece. With `--busy`
that many processes count in a loop beside it, as a language model does that decodes meanwhile.
Peak memory (VmHWM) is that of a fresh process that loads one variant and says a long sentence.

The two folders are what the exporter's `piper` kind writes with scheme fp32 and int8. Runs are
interleaved: each round says the same sentence with every variant, in a random order, and what is
compared is the median of the ratios to the baseline of the same round, so that a slow spell of
the machine hits all alike. With a recogniser (a Whisper artifact's folder) the variants also say
sentences of an assistant, which are read back, for a round-trip word error rate.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from edgevoice import host, manifest
from edgevoice.engines import piper
from edgevoice.engines.speech import load_speech
from edgevoice.export.words import spelled, word_errors
from edgevoice.settings import SpeechSettings
from edgevoice.stages import Speech

SENTENCES = (
    "The capital of France is Paris.", "There are seven days in a week.",
    "The blue whale is the largest animal on earth.", "Sure, I can help you with that.",
    "Water boils at one hundred degrees.", "It is going to rain this afternoon.",
    "Your next meeting starts in twenty minutes.", "The train leaves from platform nine.",
    "I have set a timer for ten minutes.", "The kitchen light is now off.",
    "Mount Everest is the highest mountain in the world.", "You have two new messages.",
    "I am sorry, I did not understand the question.", "The shop closes at six in the evening.",
    "Plants need light, water and air to grow.", "The meeting was moved to Thursday morning.",
    "A year has twelve months.", "Turn left at the next corner, then go straight.",
    "The moon goes around the earth in about a month.", "Add a cup of sugar and two eggs.",
    "Honey never spoils if it is stored well.", "The museum is closed on Mondays.",
    "Please check that the door is locked.", "The battery is almost empty.",
    "Dinner will be ready in half an hour.", "She wrote her first book in the summer.",
    "The fastest land animal is the cheetah.", "Would you like me to read the news?",
    "The answer to your question is forty two.", "Good night, and sleep well.",
)  # fmt: skip
LONG = (
    "The old lighthouse at the end of the harbour was built more than two hundred years ago by "
    "sailors who had lost their way home"
)
ENGINES = ("onnx", "whole", "sherpa")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fp32", type=Path)
    parser.add_argument("int8", type=Path)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--recogniser", type=Path)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--busy", type=int, default=0)
    parser.add_argument("--peak", choices=ENGINES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        print(peak_mb(load(arguments.peak, arguments.int8, arguments.threads[0])))
        return
    folders = {"fp32": arguments.fp32, "int8": arguments.int8}
    voices = {
        (engine, scheme, threads): load(engine, folder, threads)
        for engine in ENGINES
        for scheme, folder in folders.items()
        for threads in arguments.threads
    }
    result: dict[str, Any] = {"cores": os.cpu_count(), "busy": arguments.busy}
    with busy(arguments.busy):
        result["speed"] = speed(voices, arguments.rounds)
    result["peak_mb"] = memory(folders)
    result["load_average"] = os.getloadavg()
    if arguments.recogniser:
        named = {scheme: voices["onnx", scheme, arguments.threads[-1]] for scheme in folders}
        result["round_trip"] = round_trip(named, arguments.recogniser)
    print(json.dumps(result, indent=2) if arguments.json else table(result))


def load(engine: str, folder: Path, threads: int) -> Speech:
    if engine == "whole":
        return piper.load(folder, threads=threads)
    if engine == "onnx" and "decoder" not in manifest.read(folder).engine:
        raise SystemExit(f"{folder}: the graph is not in halves; pull it again with --force")
    return load_speech(folder, SpeechSettings(engine=engine, threads=threads))


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Keep that many cores busy meanwhile."""
    started = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)
    ]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def memory(folders: dict[str, Path]) -> dict[str, float]:
    """Peak memory of each variant in a process of its own, MB."""
    peaks = {}
    for scheme, folder in folders.items():
        for engine in ENGINES:
            command = [sys.executable, __file__, str(folder), str(folder), "--peak", engine]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            peaks[f"{engine} {scheme}"] = float(done.stdout)
    return peaks


def peak_mb(voice: Speech) -> float:
    """Say a sentence of 7 s three times and return the process's peak memory."""
    for _ in range(3):
        list(voice.synthesise(LONG))
    return host.peak_memory_mb()


def speed(voices: dict[tuple[str, str, int], Speech], rounds: int) -> list[dict[str, Any]]:
    """Time every variant once a round; the baseline is float in onnxruntime, same threads."""
    for voice in voices.values():
        list(voice.synthesise("Warm up."))
    seen: dict[tuple[str, str, int], list[tuple[float, float]]] = {key: [] for key in voices}
    for number in range(rounds):
        order = random.sample(list(voices), len(voices))
        for key in order:
            seen[key].append(once(voices[key], SENTENCES[number % len(SENTENCES)]))
    rows = []
    for key, runs in seen.items():
        base = seen["onnx", "fp32", key[2]]
        ratios = [mine[0] / its[0] for mine, its in zip(runs, base, strict=True)]
        whole = seen["whole", key[1], key[2]]
        to_whole = [
            [mine[i] / its[i] for mine, its in zip(runs, whole, strict=True)] for i in (0, 1)
        ]
        rows.append(
            {
                "engine": key[0],
                "scheme": key[1],
                "threads": key[2],
                "real_time_factor": round(statistics.median(r for r, _ in runs), 4),
                "first_chunk_ms": round(statistics.median(ms for _, ms in runs), 1),
                "ratio_to_onnx_fp32": round(statistics.median(ratios), 3),
                "ratio_to_whole": round(statistics.median(to_whole[0]), 3),
                "first_chunk_ratio_to_whole": round(statistics.median(to_whole[1]), 3),
            }
        )
    return rows


def once(voice: Speech, text: str) -> tuple[float, float]:
    """Return the real-time factor and the time to the first chunk in milliseconds."""
    started = time.perf_counter()
    first = 0.0
    samples = 0
    for chunk in voice.synthesise(text):
        first = first or time.perf_counter() - started
        samples += len(chunk)
    spent = time.perf_counter() - started
    return spent * voice.sample_rate_hz / samples, first * 1000


def round_trip(voices: dict[str, Speech], recogniser: Path) -> dict[str, dict[str, float]]:
    """Word error rate of a recogniser on what each voice says."""
    import sherpa_onnx

    def part(pattern: str) -> str:
        return str(next(recogniser.glob(pattern)))

    model = sherpa_onnx.OfflineRecognizer.from_whisper(
        encoder=part("*encoder*.onnx"), decoder=part("*decoder*.onnx"), tokens=part("*tokens.txt"),
        language="en", num_threads=2, tail_paddings=1000,
    )  # fmt: skip
    errors = dict.fromkeys(voices, 0)
    for text in SENTENCES:
        for scheme, voice in voices.items():
            samples = np.concatenate(list(voice.synthesise(text)))
            stream = model.create_stream()
            stream.accept_waveform(16000, soxr.resample(samples, voice.sample_rate_hz, 16000))
            model.decode_stream(stream)
            errors[scheme] += word_errors(spelled(text), spelled(stream.result.text))
    total = sum(len(spelled(text)) for text in SENTENCES)
    return {
        scheme: {"word_errors": count, "words": total, "wer": round(count / total, 4)}
        for scheme, count in errors.items()
    }


def table(result: dict[str, Any]) -> str:
    lines = [
        f"{result['cores']} cores, {result['busy']} of them busy, "
        f"load average {result['load_average'][0]:.1f}",
        "",
        "| engine | scheme | threads | real-time factor | first chunk, ms | x onnx fp32 | x whole "
        "| first chunk x whole | peak, MB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {r['engine']} | {r['scheme']} | {r['threads']} | {r['real_time_factor']:.3f} "
        f"| {r['first_chunk_ms']:.0f} | {r['ratio_to_onnx_fp32']:.2f} | {r['ratio_to_whole']:.2f} "
        f"| {r['first_chunk_ratio_to_whole']:.2f} "
        f"| {result['peak_mb'][r['engine'] + ' ' + r['scheme']]:.0f} |"
        for r in result["speed"]
    ]
    for scheme, row in result.get("round_trip", {}).items():
        lines += ["", f"round trip {scheme}: {row['word_errors']} errors in {row['words']} words"]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
