"""A checkpoint of SmolLM2-135M in every GGUF scheme: bytes, divergence from F16, speed beside F16.

    python benchmarks/export_language_model.py [--threads N] [--json FILE] [--only NAME,...]

The checkpoint is rebuilt from the bundle (smollm2_checkpoint.py), converted as `edgevoice export`
does it, and every candidate is measured by the gate's own checker on text that no calibration has
seen. "stock" is llama.cpp's recipe without an importance matrix. The checkpoint's weights were
Q4_1 once (the embeddings Q8_0), so by accident these types lose next to nothing here, nor does
Q5_1 with an importance matrix (most of Q5_K_M), and Q4_K loses little. The search is shown without
and with Q4_1 and Q5_1. Ratios are run times over F16's, both models in turn.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from smollm2_checkpoint import ARTIFACT, write_checkpoint

from edgevoice import manifest
from edgevoice.export import family
from edgevoice.export.calibration import Calibration
from edgevoice.export.candidates import artifact
from edgevoice.export.checks import language_model
from edgevoice.export.family import Job
from edgevoice.progress import meter_for_stderr, say
from edgevoice.quant.recipe import Recipe, by_type
from edgevoice.quant.scheme import find
from edgevoice.store import Store


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    scheme: str
    options: dict[str, str]


OFF = {"imatrix": "off"}
ROWS = (
    Row("q8_0", "q8_0", {}),
    Row("q6_k", "q6_k", {}),
    Row("q5_k_m stock", "q5_k_m", OFF),
    Row("q5_k_m", "q5_k_m", {}),
    Row("q4_k_m stock", "q4_k_m", OFF),
    Row("q4_k_m", "q4_k_m", {}),
    Row("q4_0 stock", "q4_0", OFF),
    Row("q4_0", "q4_0", {}),
    Row("iq4_nl", "iq4_nl", {}),
    Row("q4-searched", "q4-searched", {}),
    Row(
        "q4-searched with Q4_1",
        "q4-searched",
        {"types": "Q4_0,Q4_1,IQ4_NL,Q4_K,Q5_0,Q5_1,Q5_K,Q6_K,Q8_0"},
    ),
)
COLUMNS = (
    ("bytes", "MB", 1e-6, 1),
    ("kl_divergence", "KL", 1, 4),
    ("same_top_token", "same top", 100, 1),
    ("perplexity_ratio", "perplexity", 1, 3),
    ("prefill_ratio", "prefill", 1, 2),
    ("decode_ratio", "decode", 1, 2),
    ("seconds", "made in s", 1, 1),
    ("measured_s", "measured in s", 1, 1),
)


def run(folder: Path, threads: int, only: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    gguf = family.load("gguf")
    weights = Store.default().path(ARTIFACT)
    begun = time.perf_counter()
    checkpoint = folder / "checkpoint"
    write_checkpoint(weights / manifest.read(weights).file(".gguf").path, checkpoint)
    say(f"the checkpoint was rebuilt in {time.perf_counter() - begun:.1f} s")

    job = Job(folder / "work", Calibration(), threads, meter=meter_for_stderr(), say=say)
    job.work.mkdir()
    reference = folder / "reference"
    reference.mkdir()
    begun = time.perf_counter()
    written = gguf.convert(checkpoint, reference, job)
    convert_s = time.perf_counter() - begun
    manifest.write(artifact(gguf, "f16", "f16", reference, written), reference)
    size = (reference / "model.gguf").stat().st_size
    rows: dict[str, dict[str, Any]] = {"f16": {"bytes": size, "seconds": convert_s}}
    for row in ROWS:
        if only and row.name not in only:
            continue
        out = folder / row.name.replace(" ", "-").replace(",", "")
        out.mkdir()
        begun = time.perf_counter()
        written = gguf.quantise(
            reference, find(row.scheme), Recipe(), out, replace(job, options=row.options)
        )
        made = time.perf_counter()
        manifest.write(artifact(gguf, "candidate", row.scheme, out, written), out)
        figures = dict(language_model.measure(reference, out, None, threads))
        rows[row.name] = {
            "bytes": (out / "model.gguf").stat().st_size,
            **figures,
            "seconds": made - begun,
            "measured_s": time.perf_counter() - made,
            "types": by_type(written.tensors),
            "notes": written.notes,
        }
        say(f"{row.name}: " + json.dumps(rows[row.name]))
    return rows


def table(rows: dict[str, dict[str, Any]]) -> str:
    lines = [
        "| scheme | " + " | ".join(title for _, title, _, _ in COLUMNS) + " |",
        "| --- |" + " ---: |" * len(COLUMNS),
    ]
    for name, row in rows.items():
        cells = (
            f"{row[key] * scale:.{digits}f}" if key in row else ""
            for key, _, scale, digits in COLUMNS
        )
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="names of rows, with commas")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    only = tuple(filter(None, options.only.split(",")))
    with tempfile.TemporaryDirectory() as scratch:
        rows = run(Path(scratch), options.threads, only)
    print(table(rows))
    if {"q4_k_m stock", "q4-searched"} <= set(rows):
        stock, searched = rows["q4_k_m stock"], rows["q4-searched"]
        print(
            f"\nq4-searched over stock q4_k_m: KL {searched['kl_divergence']:.4f} / "
            f"{stock['kl_divergence']:.4f} = "
            f"{searched['kl_divergence'] / stock['kl_divergence']:.2f}, bytes "
            f"{searched['bytes']} / {stock['bytes']}"
        )
    if {"q4_k_m"} <= set(rows):
        whole = rows["f16"]["seconds"] + rows["q4_k_m"]["seconds"] + rows["q4_k_m"]["measured_s"]
        print(f"checkpoint to F16 to Q4_K_M with importance matrix and gates: {whole:.0f} s")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
