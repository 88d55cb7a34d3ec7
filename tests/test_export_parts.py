"""The exporter's parts by themselves: headers, pickles, sound weights, children, the front."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import math
import pickle
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny_family
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgevoice.errors import ArtifactError, ConfigError
from edgevoice.export import front_chart, gates, pickles, safetensors_header, soundness
from edgevoice.export.candidates import Candidate
from edgevoice.export.summary import Point
from edgevoice.quant import scheme as schemes

# --- safetensors ----------------------------------------------------------------------------------


def safetensors(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def entry(dtype: str = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_a_header_names_types_shapes_and_places(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    header = {
        "__metadata__": {"format": "pt"},
        "b": entry("BF16", (2, 2), (8, 16)),
        "a": entry(),
    }
    safetensors(path, header, bytes(16))
    read = safetensors_header.read_header(path)
    begin = path.stat().st_size - 16
    assert read.metadata == {"format": "pt"}
    assert read.parameters == 6
    assert (read.tensors["b"].start, read.tensors["b"].end) == (begin + 8, begin + 16)
    assert safetensors_header.check(tmp_path) == 6


@pytest.mark.parametrize(
    ("header", "data", "said"),
    [
        ({"a": entry()}, bytes(7), "is truncated"),
        ({"a": entry()}, bytes(9), "has bytes after its last tensor"),
        ({"a": entry(offsets=(0, 4))}, bytes(4), "needs 8 bytes, 4 are announced"),
        ({"a": entry(), "b": entry(offsets=(12, 20))}, bytes(20), "begins at byte"),
        ({"a": entry(), "b": entry(offsets=(4, 12))}, bytes(12), "begins at byte"),
        ({"a": entry(offsets=(8, 0))}, bytes(8), "bytes 8 to 0"),
        ({"a": {"dtype": "F32"}}, b"", "not a safetensors file"),
        ([1], b"", "an object is needed"),
        (b"{", b"", "not a safetensors file"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path: Path, header: Any, data: bytes, said: str) -> None:
    path = safetensors(tmp_path / "a.safetensors", header, data)
    with pytest.raises(ArtifactError, match=said) as raised:
        safetensors_header.read_header(path)
    assert "\n" not in str(raised.value)


def test_a_header_that_is_no_header(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"abc")
    with pytest.raises(ArtifactError, match="3 bytes, a header has at least 8"):
        safetensors_header.read_header(path)
    safetensors(path, b"{}", length=500)
    with pytest.raises(ArtifactError, match="truncated inside its header"):
        safetensors_header.read_header(path)
    safetensors(path, b"{}", length=1 << 40)
    with pytest.raises(ArtifactError, match="is not a safetensors file"):
        safetensors_header.read_header(path)


@given(content=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    path.write_bytes(content)
    with contextlib.suppress(ArtifactError):
        safetensors_header.read_header(path)


# --- pickles --------------------------------------------------------------------------------------


def test_pickles_are_told_by_their_bytes(tmp_path: Path) -> None:
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / f"p{protocol}.pt").write_bytes(pickle.dumps({"a": 1}, protocol))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as torch_file:
        torch_file.writestr("archive/data.pkl", b"")
    (tmp_path / "zip.bin").write_bytes(archive.getvalue())
    (tmp_path / "cut.pth").write_bytes(archive.getvalue()[:40])
    (tmp_path / "ctranslate2.bin").write_bytes(struct.pack("<I", 6) + b"\x0c\x00")
    (tmp_path / "text.bin").write_bytes(b"x")
    (tmp_path / "readme.md").write_bytes(b"\x80\x04")
    found = {p.name for p in pickles.find(tmp_path)}
    assert found == {"p2.pt", "p3.pt", "p4.pt", "p5.pt", "zip.bin", "cut.pth"}
    assert pickles.find(tmp_path / "zip.bin") == (tmp_path / "zip.bin",)
    pickles.refuse(tmp_path, pickles.find(tmp_path))  # ctranslate2.bin can be read


def test_a_view_has_everything_but_the_pickles(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "inner").mkdir(parents=True)
    (source / "inner" / "a.json").write_text("{}")
    (source / "bad.pt").write_bytes(pickle.dumps(1, 2))
    view = pickles.view_without(source, pickles.find(source), tmp_path / "view")
    assert [p.name for p in sorted(view.rglob("*"))] == ["inner", "a.json"]
    assert (view / "inner" / "a.json").read_text() == "{}"


# --- sound weights --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "sound"),
    [
        ([0.0, 1.0], True),
        ([0.0, -np.inf, 0.0], True),  # an additive mask
        ([-np.inf], True),
        ([1.0, -np.inf], False),
        ([0.0, np.nan], False),
    ],
)
def test_infinity_is_sound_in_a_mask_alone(values: list[float], sound: bool) -> None:
    assert soundness.is_sound(np.array(values, np.float32)) is sound


def test_tensors_are_found_wherever_a_graph_keeps_them(tmp_path: Path) -> None:
    bad = numpy_helper.from_array(np.array([1.0, np.nan], np.float16), "in a constant")
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["y"], value=bad)],
        "inner",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, [2])],
    )
    graph = helper.make_graph(
        [helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner)],
        "outer",
        [helper.make_tensor_value_info("c", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT16, [2])],
        [numpy_helper.from_array(np.array([np.inf, 2.0], np.float32), "outside")],
    )
    model = helper.make_model(graph)
    helper.set_model_props(model, {"vocabulary": "5"})
    onnx.save(model, str(tmp_path / "m.onnx"))
    found = soundness.scan(tmp_path)
    assert found["non_finite"] == ["m.onnx:outside", *["m.onnx:in a constant"] * 2]
    assert found["metadata"] == ["vocabulary"]
    (tmp_path / "m.onnx").write_bytes((tmp_path / "m.onnx").read_bytes()[:40])
    with pytest.raises(ArtifactError, match="not a whole ONNX model"):
        soundness.scan(tmp_path)


def test_bfloat16_is_looked_through(tmp_path: Path) -> None:
    header = {"a": entry("BF16", (2,), (0, 4))}
    path = safetensors(tmp_path / "a.safetensors", header, struct.pack("<2H", 0x3F80, 0x0000))
    assert soundness.scan(tmp_path)["non_finite"] == []
    safetensors(path, header, struct.pack("<2H", 0x3F80, 0xFF80))
    assert soundness.scan(path)["non_finite"] == ["a.safetensors:a"]


def gguf(path: Path, kind: int, data: bytes, elements: int) -> Path:
    text = b"general.architecture"
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 1)
    head += struct.pack("<Q", len(text)) + text + struct.pack("<IQ", 8, 4) + b"tiny"
    head += struct.pack("<Q", 1) + b"w" + struct.pack("<IQIQ", 1, elements, kind, 0)
    path.write_bytes(head + bytes(-len(head) % 32) + data)
    return path


@pytest.mark.parametrize(
    ("kind", "block", "at", "elements"),
    [
        (0, 4, 0, 1),
        (1, 2, 0, 1),
        (2, 18, 0, 32),
        (8, 34, 0, 32),
        (12, 144, 2, 256),
        (13, 176, 0, 256),
        (14, 210, 208, 256),
        (20, 18, 0, 32),
    ],
)
def test_the_scales_of_a_gguf_are_looked_through(
    tmp_path: Path, kind: int, block: int, at: int, elements: int
) -> None:
    path = gguf(tmp_path / "m.gguf", kind, bytes(2 * block), 2 * elements)
    found = soundness.scan(path)
    assert found == {"non_finite": [], "metadata": ["general.architecture"]}
    data = bytearray(2 * block)
    infinity = struct.pack("<f", np.inf) if kind == 0 else struct.pack("<e", np.inf)
    data[block + at : block + at + len(infinity)] = infinity
    gguf(path, kind, bytes(data), 2 * elements)
    assert soundness.scan(path)["non_finite"] == ["m.gguf:w"]


# --- children -------------------------------------------------------------------------------------


def test_better_than_float_is_no_loss() -> None:
    scheme = schemes.find("int8")
    for stage, figure, value, loss in (
        ("recogniser", "wer_points", 0.5, 0.5),
        ("recogniser", "wer_points", -0.5, 0.0),
        ("vad", "agreement", 0.75, 0.25),
        ("vad", "agreement", 1.0, 0.0),
    ):
        assert Candidate(scheme, scheme, figures={figure: value}).quality_loss(stage) == loss
    assert math.isnan(Candidate(scheme, scheme).quality_loss("vad"))


# --- bounds and the front -------------------------------------------------------------------------


def test_a_bound_on_both_sides_moves_on_the_nearer_one() -> None:
    bounds = gates.all_bounds("speech", {"duration_ratio": 1.3, "memory_ratio": 2.0})
    assert [(b.relation, b.value) for b in bounds if b.figure == "duration_ratio"] == [
        ("at most", 1.3),
        ("at least", 0.9),
    ]
    assert next(b for b in bounds if b.figure == "memory_ratio").value == 2.0
    with pytest.raises(ConfigError, match="unknown bound 'memory'"):
        gates.all_bounds("speech", {"memory": 2.0})


def test_every_stage_has_a_quality_figure_that_is_bounded() -> None:
    for stage, (figure, _) in gates.QUALITY.items():
        assert figure in {b.figure for b in gates.BOUNDS[stage]}


def test_the_drawing_has_every_point_and_no_name_over_another() -> None:
    points = [
        Point("float", 100_000_000, 0.0, 1.0, True, True),
        Point("int8", 30_000_000, 0.5, 0.9, True, True),
        Point("int8-weights", 30_500_000, 0.52, 1.1, True),
        Point("int<4>", 17_000_000, 7.0, 0.8, False),
        Point("unmeasured", 17_000_000, float("nan"), 0.8, False),
    ]
    drawn = front_chart.draw(points, [p.loss for p in points], "wer_points", 1.0)
    assert drawn.count("<circle") == 4
    assert 'class="missed"' in drawn and "int&lt;4&gt;" in drawn and "unmeasured" not in drawn
    assert "allowed 1" in drawn
    found = re.findall(r'class="name" x="([\d.]+)" y="([\d.]+)">([^<]+)<', drawn)
    boxes = [(float(x), float(x) + 6 * len(name), float(y)) for x, y, name in found]
    for one, other in itertools.combinations(boxes, 2):
        apart = one[1] <= other[0] or other[1] <= one[0] or abs(one[2] - other[2]) >= 10
        assert apart, f"{one} lies over {other}"


def test_the_tiny_family_writes_what_the_reader_reads(tmp_path: Path) -> None:
    tiny_family.write_source(tmp_path)
    assert safetensors_header.check(tmp_path) == 80 * 256 + 256
