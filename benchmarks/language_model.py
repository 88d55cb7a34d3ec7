"""Speed and memory of a GGUF language model, and what the kept prefix saves.

    python benchmarks/language_model.py [--model NAME] [--threads N] [--json FILE]

A conversation of eight turns is answered twice: by one context that keeps what it has read, and
by a context that starts empty at each turn. Times are medians; memory is this process's VmRSS.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import statistics
import time
from pathlib import Path

from edgevoice.engines import gguf
from edgevoice.settings import LanguageModelSettings
from edgevoice.stages import Message
from edgevoice.store import Store

QUESTIONS = (
    "What is the capital of France?",
    "How many days are there in a week?",
    "Who wrote Romeo and Juliet?",
    "What colour is the sky?",
    "Where does the sun rise?",
    "What is the name of our planet?",
    "How are you today?",
    "What is the capital of Spain?",
)


def resident_mb() -> float:
    status = Path("/proc/self/status").read_text()
    (kilobytes,) = re.findall(r"VmRSS:\s+(\d+) kB", status)
    return int(kilobytes) / 1024


def measure(settings: LanguageModelSettings) -> dict[str, float]:
    artifact = Store.default().path(settings.model)
    before_mb = resident_mb()
    begun = time.perf_counter()
    model = gguf.load(artifact, settings)
    load_ms = (time.perf_counter() - begun) * 1000
    weights_mb = resident_mb()
    kept = model.open()
    list(kept.generate([Message("user", "Hello.")]))
    first_mb = resident_mb()
    spare = model.open()
    list(spare.generate([Message("user", "Hello.")]))
    second_mb = resident_mb()
    spare.close()

    history = [Message("system", settings.system_prompt)]
    prefill: list[float] = []
    decode: list[float] = []
    first_kept: list[float] = []
    first_empty: list[float] = []
    for question in QUESTIONS:
        history.append(Message("user", question))
        begun = time.perf_counter()
        pieces = kept.generate(history)
        answer = next(pieces, "")
        first_kept.append((time.perf_counter() - begun) * 1000)
        begun = time.perf_counter()
        rest = list(pieces)
        if len(rest) > 4:
            decode.append(len(rest) / (time.perf_counter() - begun))
        empty = model.open()
        begun = time.perf_counter()
        evaluated = empty.prefill(history)
        prefill.append(evaluated / (time.perf_counter() - begun))
        next(empty.generate(history), "")
        first_empty.append((time.perf_counter() - begun) * 1000)
        empty.close()
        history.append(Message("assistant", answer + "".join(rest)))
    last_tokens = kept.count_tokens(history)
    kept.close()
    model.close()
    return {
        "load_ms": load_ms,
        "prefill_tokens_per_s": statistics.median(prefill),
        "decode_tokens_per_s": statistics.median(decode),
        "first_token_kept_ms": statistics.median(first_kept[1:]),
        "first_token_empty_ms": statistics.median(first_empty[1:]),
        "kept_to_empty_ratio": statistics.median(first_kept[1:])
        / statistics.median(first_empty[1:]),
        "last_turn_kept_to_empty_ratio": first_kept[-1] / first_empty[-1],
        "conversation_tokens": last_tokens,
        "weights_mb": weights_mb - before_mb,
        "first_context_mb": first_mb - weights_mb,
        "second_context_mb": second_mb - first_mb,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    defaults = LanguageModelSettings()
    parser.add_argument("--model", default=defaults.model)
    parser.add_argument("--threads", type=int, default=defaults.threads)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    settings = dataclasses.replace(
        defaults, model=options.model, threads=options.threads, max_answer_tokens=32
    )
    figures = measure(settings)
    print(f"| {options.model}, {options.threads} threads | |\n| --- | ---: |")
    for name, value in figures.items():
        print(f"| {name} | {value:.2f} |")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
