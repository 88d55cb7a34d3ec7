"""A family of the tests' own: a two-layer end-of-turn model that the real engine loads.

Its source is a safetensors file of 80 x 256 and 256 x 1 weights. The option ``fault=SCHEME:KIND``
plants a fault in that scheme's candidate.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgevoice.engines.smart_turn import load_smart_turn
from edgevoice.errors import ArtifactError
from edgevoice.export import family, pickles, safetensors_header
from edgevoice.export.family import Family, Job, SourceFacts, Written
from edgevoice.quant import float16, int8
from edgevoice.quant.recipe import Override, Recipe, TensorChoice
from edgevoice.quant.scheme import Scheme
from edgevoice.settings import EndOfTurnSettings

WEIGHTS = "tiny.safetensors"
MODEL = "tiny.onnx"
CLIPS = 5  # Smart Turn's features take most of the time of a measurement


def write_source(folder: Path, seed: int = 0, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    tensors = {
        "hidden": draw.normal(0, 0.05, (80, 256)).astype(np.float32),
        "out": draw.normal(0, 0.5, (256, 1)).astype(np.float32),
        **changes,
    }
    write_safetensors(folder / WEIGHTS, tensors)
    (folder / "tokens.txt").write_text("complete 1\n", encoding="ascii")
    return folder


def write_safetensors(path: Path, tensors: Mapping[str, Any]) -> None:
    """Write float32 tensors."""
    header: dict[str, Any] = {}
    data = b""
    for name, values in tensors.items():
        raw = np.ascontiguousarray(values, np.float32).tobytes()
        header[name] = {
            "dtype": "F32",
            "shape": list(values.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def recognises(source: Path) -> bool:
    return (source / WEIGHTS).is_file() or (source / "tiny.bin").is_file()


def inspect(source: Path) -> SourceFacts:
    if not (source / WEIGHTS).is_file():
        raise ArtifactError(f"{source}: {WEIGHTS} is missing")
    header = safetensors_header.read_header(source / WEIGHTS)
    if set(header.tensors) != {"hidden", "out"}:
        raise ArtifactError(f"{source}: architecture {sorted(header.tensors)} is not a tiny one")
    return SourceFacts(
        "a tiny end of turn", header.parameters, 80_000, 1 << 20, {"layers": len(header.tensors)}
    )


def convert(source: Path, out: Path, job: Job) -> Written:
    assert job.work.is_dir() and not list(job.work.iterdir())
    assert job.allow_pickle or not pickles.find(source)
    job.say("converting the tiny model")
    header = safetensors_header.read_header(source / WEIGHTS)
    arrays = {
        name: np.fromfile(source / WEIGHTS, "<f4", t.elements, offset=t.start).reshape(t.shape)
        for name, t in header.tensors.items()
    }
    if os.environ.get("TINY_OVERFLOW"):
        arrays["out"][0] = np.inf
        arrays["out"][1] = 1.0
    nodes = [
        helper.make_node("ReduceMean", ["input_features", "axes"], ["mean"], "mean", keepdims=0),
        helper.make_node("MatMul", ["mean", "hidden"], ["h"], "first"),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("MatMul", ["r", "out"], ["s"], "second"),
        helper.make_node("Sigmoid", ["s"], ["logits"], "sigmoid"),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input_features", TensorProto.FLOAT, ["batch", 80, 800])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1])],
        [
            numpy_helper.from_array(np.array([2], np.int64), "axes"),
            *(numpy_helper.from_array(a, name) for name, a in arrays.items()),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {"sample_rate": "16000"})
    onnx.save(model, str(out / MODEL))
    shutil.copyfile(source / "tokens.txt", out / "tokens.txt")
    choices = tuple(TensorChoice(n, "float32", a.size, a.nbytes) for n, a in arrays.items())
    return Written({"from": "tiny", "threshold": 0.5}, choices)


def quantise(reference: Path, scheme: Scheme, recipe: Recipe, out: Path, job: Job) -> Written:
    wait("quantise")
    fault = dict(pair.split(":") for pair in job.options.get("fault", "").split(",") if pair)
    kind = fault.get(scheme.name, "")
    if kind == "refuse":
        raise ArtifactError("this graph cannot be rounded")
    if kind == "raise":
        raise RuntimeError("a library\nraised")
    model = onnx.load(str(reference / MODEL))
    keep = [o.pattern for o in recipe.overrides]
    if scheme.method == "dynamic":
        int8.quantise(model, keep, scheme.largest)
    else:
        float16.store_exact(model)
    for tensor in model.graph.initializer:
        if tensor.name == "hidden_scale" and kind in ("zero", "nan"):
            values = numpy_helper.to_array(tensor).copy()
            values[:] = 0.0 if kind == "zero" else np.nan
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    if kind in ("slow", "abort", "hang"):
        helper.set_model_props(model, {"sample_rate": "16000", kind: "1"})
    if kind == "unlabelled":
        del model.metadata_props[:]
    onnx.save(model, str(out / MODEL))
    if kind == "grown":
        (out / "ballast.bin").write_bytes(bytes(200_000))
    if kind == "damaged":
        (out / MODEL).write_bytes((out / MODEL).read_bytes()[:5000])
    if kind != "lost":
        shutil.copyfile(reference / "tokens.txt", out / "tokens.txt")
    choices = tuple(
        TensorChoice(t.name, numpy_helper.to_array(t).dtype.name, int(np.prod(t.dims)), 0)
        for t in model.graph.initializer
    )
    return Written({"rounded": True}, choices, (f"kept {keep} in float",))


def measure(
    reference: Path, candidate: Path, material: Path | None, threads: int
) -> Mapping[str, Any]:
    """Count the judgements that both models make alike; the speed is in the metadata."""
    wait("measure")
    labels = {p.key for p in onnx.load(str(candidate / MODEL)).metadata_props}
    if "abort" in labels:
        print("the native code is about to abort", file=sys.stderr, flush=True)
        os.abort()
    if "hang" in labels:
        time.sleep(60)
    settings = EndOfTurnSettings(threads=threads)
    first, second = load_smart_turn(reference, settings), load_smart_turn(candidate, settings)
    draw = np.random.default_rng(1)
    alike = 0
    for _ in range(CLIPS):
        heard = draw.normal(0, draw.uniform(0.001, 0.3), 16_000).astype(np.float32)
        alike += abs(first.probability(heard) - second.probability(heard)) < 0.05
    speed = 2.0 if "slow" in labels else 0.75
    return {
        "agreement": alike / CLIPS,
        "speed_ratio": np.float32(speed),
        "speed_ratio_low": speed - 0.05,
        "clips": CLIPS if material is None else 2 * CLIPS,
        "engine": {"engine": "onnx", "threads": threads},
    }


def wait(where: str) -> None:
    """Stand still where the environment says, and leave a mark for the test."""
    if os.environ.get("TINY_WAIT") == where:
        Path(os.environ["TINY_MARK"]).touch()
        time.sleep(60)


FAMILY = Family(
    name="tiny",
    artifact_family="smart-turn",
    stage="end-of-turn",
    format="onnx",
    takes="a folder with tiny.safetensors",
    schemes=("fp32", "fp16", "int8", "int8-mixed"),
    default_scheme="int8",
    recognises=recognises,
    inspect=inspect,
    convert=convert,
    quantise=quantise,
    checker=f"{__name__}:measure",
    recipes={"int8-mixed": Recipe((Override("out", "keep", "it is small"),))},
    options={"fault": "SCHEME:KIND,... what to break"},
)


@contextmanager
def registered() -> Iterator[None]:
    """Make it a family of the exporter's, and the only one that is asked."""
    modules = family.MODULES
    assert isinstance(modules, dict)
    before = dict(modules)
    module = f"edgevoice.export.families.{__name__}"
    sys.modules[module] = sys.modules[__name__]
    modules.clear()
    modules["tiny"] = __name__
    try:
        yield
    finally:
        modules.clear()
        modules.update(before)
        del sys.modules[module]
