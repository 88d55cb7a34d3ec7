"""Compiles for Snapdragon's HTP and runs in its emulator; needs onnxruntime-qnn, not edgevoice.

    python qnn_program.py compile MODEL OUT --soc-model 57
    python qnn_program.py run MODEL FEEDS RESULTS --soc-model 57

A program of its own: it imports nothing of edgevoice and is imported by nothing, so that native
code which aborts takes no one with it. ``compile`` writes the ONNX wrapper with the context binary
inside. ``run`` takes a context wrapper, or a model that it compiles first, and answers every
``FEEDS/NAME.npz`` with ``RESULTS/NAME.npz`` (the outputs, and ``seconds``); results that are there
stay, so an interrupted run goes on. Each result appears whole: it is renamed into place.
The last line of the output is JSON: what was done, or ``error`` and the ``operators`` that the HTP
does not take.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PROVIDER = "QNNExecutionProvider"
# "Unsupported nodes in QNN EP: { name: node_Erf_3, type: Erf }{ name: ... }", one line.
_UNSUPPORTED = re.compile(r"\{ name: (.*?), type: (.*?) \}")
_ERROR = 3  # onnxruntime's severity; the unsupported nodes are logged with it


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("compile", "run"))
    parser.add_argument("model", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--soc-model", required=True)
    chosen = parser.parse_args()
    if chosen.action == "compile":
        (target,) = chosen.folders
        said = _guarded(lambda: compile_model(chosen.model, target, chosen.soc_model))
    else:
        feeds, results = chosen.folders
        said = _guarded(lambda: run(chosen.model, feeds, results, chosen.soc_model))
    print(json.dumps(said))
    return 1 if "error" in said else 0


def compile_model(model: Path, target: Path, soc_model: str) -> dict[str, Any]:
    """Write ``target``: ``model`` as one context binary, wholly on the HTP."""
    import onnxruntime_qnn

    part = target.with_suffix(".part.onnx")
    part.unlink(missing_ok=True)
    entries = {
        "ep.context_enable": "1",
        "ep.context_file_path": str(part),
        "ep.context_embed_mode": "1",
    }
    began = time.monotonic()
    try:
        _session(model, soc_model, entries)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)  # a failed compilation leaves half of one
    return {
        "seconds": time.monotonic() - began,
        "bytes": target.stat().st_size,
        "qnn_version": onnxruntime_qnn.build_and_package_info.qnn_version,
    }


def run(model: Path, feeds: Path, results: Path, soc_model: str) -> dict[str, Any]:
    """Answer every feed that has no result yet."""
    import numpy as np

    results.mkdir(parents=True, exist_ok=True)
    waiting = [path for path in sorted(feeds.glob("*.npz")) if not (results / path.name).exists()]
    if not waiting:
        return {"done": 0}
    session = _session(model, soc_model, {})
    names = [output.name for output in session.get_outputs()]
    for path in waiting:
        began = time.monotonic()
        with np.load(path) as arrays:
            outputs = session.run(None, dict(arrays))
        seconds = time.monotonic() - began
        part = results / f"{path.stem}.part"
        with part.open("wb") as file:
            np.savez(file, seconds=seconds, **dict(zip(names, outputs, strict=True)))
        os.replace(part, results / path.name)
        print(f"{path.stem} {seconds:.1f} s", flush=True)
    return {"done": len(waiting)}


def _session(model: Path, soc_model: str, entries: dict[str, str]) -> Any:
    import onnxruntime as ort
    import onnxruntime_qnn

    ort.register_execution_provider_library(PROVIDER, onnxruntime_qnn.get_library_path())
    devices = [device for device in ort.get_ep_devices() if device.ep_name == PROVIDER]
    options = ort.SessionOptions()
    options.log_severity_level = _ERROR
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    options.add_provider_for_devices(
        devices[:1], {"backend_path": onnxruntime_qnn.get_qnn_htp_path(), "soc_model": soc_model}
    )
    return ort.InferenceSession(str(model), options)


def _guarded(act: Any) -> dict[str, Any]:
    """Do ``act``; on failure return its reason and the operators that native code complained of."""
    with tempfile.TemporaryFile() as heard:
        kept = os.dup(2)
        os.dup2(heard.fileno(), 2)
        try:
            return dict(act())
        except Exception as error:
            heard.seek(0)
            log = heard.read().decode("utf-8", "replace")
            return {"error": str(error), "operators": unsupported(log), "log": log[-4000:]}
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def unsupported(log: str) -> list[list[str]]:
    """Return name and type of each node that the provider's log says it does not take."""
    found = {
        (name, kind): None
        for line in log.splitlines()
        if "Unsupported nodes" in line
        for name, kind in _UNSUPPORTED.findall(line)
    }
    return [list(node) for node in found]


if __name__ == "__main__":
    sys.exit(main())
