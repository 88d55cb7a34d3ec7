"""How many planted faults the gate on weights lets through, over many tensors of real artifacts.

    python benchmarks/planted_faults.py FLOAT=ARTIFACT... [--each 20] [--seed 0] [--json]

FLOAT and ARTIFACT are folders of one model, float and quantised (for a GGUF file: F16). Kinds of
fault, each planted alone into ``--each`` weights drawn at random:

- *scale of one channel (block) zero*, the smallest such fault; *all scales of a weight zero*
- *swapped*: two weights of one shape changed places
- *one scale a tensor*: a weight whose channels' sizes differ by a factor of 4 or more, rounded
  with one scale in all (ONNX only: a GGUF type fixes the size of its blocks). Where they are
  alike, one scale does no harm.

A fault that misses no bound was let through. The other gates (what is heard, said, answered) would
see some of these as well; this one has to see all of them, since it does not depend on a text.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from edgevoice.engines import gguf_file
from edgevoice.errors import ArtifactError
from edgevoice.export import gates
from edgevoice.quant import drift, onnx_drift
from edgevoice.quant.int8 import round_columns
from edgevoice.quant.onnx_nodes import attributes

_UNLIKE = 4.0
BOUND = next(b for b in gates.BOUNDS["speech"] if b.figure == "weight_excess")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", nargs="+", metavar="FLOAT=ARTIFACT")
    parser.add_argument("--each", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = []
    for pair in arguments.pairs:
        float_folder, _, folder = pair.partition("=")
        chance = random.Random(arguments.seed)
        for row in artifact(Path(float_folder), Path(folder), arguments.each, chance):
            rows.append(row)
            if not arguments.json:
                print(
                    f"| {row['artifact']} | {row['fault']} | {row['caught']} of {row['planted']} "
                    f"| {row['missed']} |",
                    flush=True,
                )
    if arguments.json:
        print(json.dumps({"cores": os.cpu_count(), "rows": rows}, indent=2))


def artifact(
    reference: Path, folder: Path, each: int, chance: random.Random
) -> Iterator[dict[str, object]]:
    for graph in sorted(folder.glob("*.gguf")):
        (source,) = reference.glob("*.gguf")
        yield from gguf(source, graph, each, chance)
    for graph in sorted(folder.glob("*.onnx")):
        yield from onnx_graph(partner(reference, graph), graph, each, chance)


def partner(reference: Path, graph: Path) -> Path:
    """Return the float graph whose name begins alike."""
    stem = graph.name.split(".")[0]
    found = [path for path in reference.glob("*.onnx") if path.name.split(".")[0] == stem]
    return found[0] if len(found) == 1 else next(iter(sorted(reference.glob("*.onnx"))))


# ONNX


def onnx_graph(
    source: Path, graph: Path, each: int, chance: random.Random
) -> Iterator[dict[str, object]]:
    reference, whole = onnx.load(str(source)), onnx.load(str(graph))
    faults = OnnxFaults(whole)
    sound = worst(reference, whole)
    assert BOUND.holds(sound), f"{graph}: {sound} without any fault"
    name = f"{graph.parent.name}/{graph.name}"
    kinds: dict[str, tuple[Sequence[str], Callable[[onnx.ModelProto, str], bool]]] = {
        "scale of one channel or block zero": (faults.scaled, faults.zero_one),
        "all scales of a weight zero": (faults.scaled, faults.zero_all),
        "swapped": (faults.twins, faults.swap),
        "one scale a tensor": (faults.bytes, faults.one_scale),
    }
    for kind, (weights, plant) in kinds.items():
        missed, planted = [], 0
        for weight in chance.sample(list(weights), len(weights)):
            if planted == each:
                break
            changed = onnx.ModelProto()
            changed.CopyFrom(whole)
            if not plant(changed, weight):
                continue
            planted += 1
            if BOUND.holds(excess := worst(reference, changed)):
                missed.append(f"{weight} ({excess:.2f})")
        yield verdict(name, kind, planted, missed)


def worst(reference: onnx.ModelProto, candidate: onnx.ModelProto) -> float:
    return float(np.max([d.excess for d in onnx_drift.drifts(reference, candidate)]))


class OnnxFaults:
    """The weights of a graph in 8 or 4 bits, and what can be done to them."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.arrays = {t.name: t for t in model.graph.initializer}
        self.blocks = {
            n.input[1]: (n.input[2], attributes(n)["bits"])
            for n in model.graph.node
            if n.op_type == "MatMulNBits"
        }
        byte_types = (TensorProto.INT8, TensorProto.UINT8)
        stored = [n for n, t in self.arrays.items() if t.data_type in byte_types and t.dims]
        self.bytes = [n for n in stored if self.scale_name(n) and n not in self.blocks]
        self.scaled = [*self.bytes, *self.blocks]
        groups: dict[tuple[object, ...], list[str]] = {}
        for name in self.scaled:
            tensor = self.arrays[name]
            groups.setdefault((tensor.data_type, tuple(tensor.dims)), []).append(name)
        self.partner = {
            name: group[i - 1]
            for group in groups.values()
            if len(group) > 1
            for i, name in enumerate(group)
        }
        self.twins = list(self.partner)

    def scale_name(self, name: str) -> str | None:
        if name in self.blocks:
            found = self.blocks[name][0]
        else:
            found = f"{name.removesuffix('_quantized')}_scale"
        return next((n for n in (found, f"{found}_half") if n in self.arrays), None)

    def zero_one(self, model: onnx.ModelProto, name: str) -> bool:
        def change(scales: NDArray[np.generic]) -> None:
            # The median one: where a channel is all zeros its scale is any, and zero no fault.
            scales.reshape(-1)[int(np.argsort(np.abs(scales), axis=None)[scales.size // 2])] = 0

        return self._change(model, self.scale_name(name), change)

    def zero_all(self, model: onnx.ModelProto, name: str) -> bool:
        return self._change(model, self.scale_name(name), lambda scales: scales.fill(0))

    def swap(self, model: onnx.ModelProto, name: str) -> bool:
        other = self.partner[name]
        for here, there in ((name, other), (self.scale_name(name), self.scale_name(other))):
            tensors = {t.name: t for t in model.graph.initializer}
            assert here is not None and there is not None
            first, second = tensors[here], tensors[there]
            first.raw_data, second.raw_data = second.raw_data, first.raw_data
        return True

    def one_scale(self, model: onnx.ModelProto, name: str) -> bool:
        """Round a matrix in bytes again, with one scale in all."""
        tensors = {t.name: t for t in model.graph.initializer}
        scale_name = self.scale_name(name)
        assert scale_name is not None
        weight = numpy_helper.to_array(tensors[name])
        scales = numpy_helper.to_array(tensors[scale_name])
        if weight.ndim != 2 or weight.dtype != np.int8 or scales.size != weight.shape[1]:
            return False
        wide = weight.astype(np.float32) * scales.astype(np.float32)
        largest = np.abs(wide).max(axis=0)
        # Of channels that do not count the gate says nothing (quant/onnx_drift.py).
        largest = largest[largest > 1e-3 * largest.max()]
        if largest.max() < _UNLIKE * largest.min():
            return False
        rounded, scale = round_columns(wide, per_channel=False)
        same = np.full(scales.shape, scale.reshape(-1)[0], scales.dtype)
        tensors[name].CopyFrom(numpy_helper.from_array(rounded, name))
        tensors[scale_name].CopyFrom(numpy_helper.from_array(same, scale_name))
        return True

    def _change(
        self,
        model: onnx.ModelProto,
        name: str | None,
        change: Callable[[NDArray[np.generic]], None],
    ) -> bool:
        for tensor in model.graph.initializer:
            if tensor.name == name:
                values = numpy_helper.to_array(tensor).copy()
                change(values)
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
                return True
        return False


# GGUF


def gguf(
    source: Path, graph: Path, each: int, chance: random.Random
) -> Iterator[dict[str, object]]:
    drift.check(source, graph)
    table = gguf_file.read_header(graph).table
    blocks = [t for t in table if gguf_file.TYPES[t.type].block > 1]
    twins: dict[tuple[object, ...], list[gguf_file.GgufTensor]] = {}
    for tensor in blocks:
        twins.setdefault((tensor.type, tensor.shape), []).append(tensor)
    pairs = [(group[i - 1], t) for group in twins.values() for i, t in enumerate(group) if i]

    def zero(file: Path, tensor: gguf_file.GgufTensor) -> None:
        kind = gguf_file.TYPES[tensor.type]
        block = chance.randrange(tensor.bytes // kind.block_bytes)
        place = kind.block_bytes - 2 if kind.name == "Q6_K" else 0
        write(file, tensor.offset + block * kind.block_bytes + place, struct.pack("<H", 0))

    def swap(file: Path, pair: tuple[gguf_file.GgufTensor, gguf_file.GgufTensor]) -> None:
        content = [read(graph, tensor) for tensor in pair]
        for tensor, other in zip(pair, reversed(content), strict=True):
            write(file, tensor.offset, other)

    name = f"{graph.parent.name}/{graph.name}"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.gguf"
        for kind, things, plant in (
            ("scale of one channel or block zero", blocks, zero),
            ("swapped", pairs, swap),
        ):
            missed = []
            chosen = chance.sample(things, min(each, len(things)))  # type: ignore[type-var]
            for thing in chosen:
                shutil.copyfile(graph, file)
                plant(file, thing)  # type: ignore[operator]
                try:
                    drift.check(source, file)
                except ArtifactError:
                    continue
                missed.append(thing.name if not isinstance(thing, tuple) else thing[0].name)
            yield verdict(name, kind, len(chosen), missed)


def read(path: Path, tensor: gguf_file.GgufTensor) -> bytes:
    with path.open("rb") as file:
        file.seek(tensor.offset)
        return file.read(tensor.bytes)


def write(path: Path, place: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(content)


def verdict(name: str, kind: str, planted: int, missed: list[str]) -> dict[str, object]:
    return {
        "artifact": name,
        "fault": kind,
        "planted": planted,
        "caught": planted - len(missed),
        "missed": "; ".join(missed),
    }


if __name__ == "__main__":
    main()
