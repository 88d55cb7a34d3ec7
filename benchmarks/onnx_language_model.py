"""SmolLM2-135M as ONNX in every scheme: size, quality and speed beside its float graph.

    python benchmarks/onnx_language_model.py [--python INTERPRETER] [--work FOLDER]

Makes a checkpoint from the bundle's GGUF, exports it, quantises it, and measures every scheme with
the exporter's own checker: KL divergence, first choices and perplexity on held-out text, prefill
and decode in turn with the float graph. `--python` names an interpreter that has torch and
optimum-onnx; without it an environment is made.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from smollm2_checkpoint import ARTIFACT, write_checkpoint

from edgevoice import manifest
from edgevoice.export.calibration import Calibration
from edgevoice.export.candidates import artifact
from edgevoice.export.checks import language_model
from edgevoice.export.families.onnx_llm import FAMILY
from edgevoice.export.family import Job, Written
from edgevoice.quant.scheme import find
from edgevoice.store import Store


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default="", help="interpreter with torch and optimum-onnx")
    parser.add_argument("--work", type=Path, help="keep the artifacts here")
    parser.add_argument("--schemes", nargs="*", default=FAMILY.schemes[1:])
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = chosen.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        options = {"python": chosen.python} if chosen.python else {}
        job = Job(Path(scratch), Calibration(), threads=chosen.threads, options=options)
        reference = work / "fp32"
        if not (reference / manifest.FILE_NAME).exists():
            export(work / "checkpoint", reference, job)
        print("| scheme | MB | KL | same top | perplexity | prefill | decode | decode tok/s |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- |")
        for name in chosen.schemes:
            candidate = work / name
            candidate.mkdir(exist_ok=True)
            written = FAMILY.quantise(reference, find(name), FAMILY.recipe(name), candidate, job)
            whole = Written(manifest.read(reference).engine, written.tensors)
            manifest.write(artifact(FAMILY, name, name, candidate, whole), candidate)
            figures = language_model.measure(reference, candidate, None, chosen.threads)
            size_mb = sum(f.size for f in manifest.read(candidate).files) / 1e6
            print(
                f"| {name} | {size_mb:.0f} | {figures['kl_divergence']:.4f} "
                f"| {figures['same_top_token']:.1%} | x{figures['perplexity_ratio']:.3f} "
                f"| x{figures['prefill_ratio']:.2f} | x{figures['decode_ratio']:.2f} "
                f"| {figures['decode_tokens_per_s']:.0f} |",
                flush=True,
            )
    return 0


def export(checkpoint: Path, reference: Path, job: Job) -> None:
    source = Store.default().path(ARTIFACT)
    gguf = source / manifest.read(source).file(".gguf").path
    write_checkpoint(gguf, checkpoint)
    reference.mkdir(exist_ok=True)
    begun = time.perf_counter()
    written = FAMILY.convert(checkpoint, reference, job)
    manifest.write(artifact(FAMILY, "fp32", "fp32", reference, written), reference)
    print(f"exported in {time.perf_counter() - begun:.0f} s: {'; '.join(written.notes)}\n")


if __name__ == "__main__":
    raise SystemExit(main())
