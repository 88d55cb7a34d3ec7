"""The recogniser gate on real weights: what is whole passes, what is damaged does not."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgevoice import manifest
from edgevoice.errors import ConfigError
from edgevoice.export import gates
from edgevoice.export.calibration import Clip, default_sentences
from edgevoice.export.checks import recogniser, recordings
from edgevoice.export.checks.recogniser import Comparison
from edgevoice.manifest import ArtifactFile
from edgevoice.quant import convolutions, float16, int4, int8, onnx_drift, treatments

WHISPER = "whisper-tiny.en-int8"
ENCODER, DECODER = "encoder.int8.onnx", "decoder.int8.onnx"
QUALITY = ("wer_points", "disagreement", "weight_excess")


def missed(figures: gates.Figures) -> set[str]:
    verdicts = gates.judge(figures, gates.BOUNDS["recogniser"])
    return {v.bound.figure for v in verdicts if not v.passed and v.bound.figure in figures}


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two LibriVox clips as a user's folder."""
    folder = tmp_path_factory.mktemp("material")
    lines = []
    for clip in recordings.librivox()[1:3]:
        shutil.copy(recordings.LIBRIVOX / clip.name, folder)
        lines.append(f"{clip.name}\t{clip.text}\n")
    (folder / "transcripts.tsv").write_text("".join(lines), encoding="utf-8")
    return folder


def damaged(source: Path, out: Path, file: str, damage: Callable[[onnx.ModelProto], None]) -> Path:
    """Copy the artifact ``source`` to ``out``, with ``file`` damaged and its size recorded."""
    shutil.copytree(source, out)
    model = onnx.load(str(out / file))
    damage(model)
    onnx.save(model, str(out / file))
    described = manifest.read(source)
    files = tuple(
        ArtifactFile(f.path, (out / f.path).stat().st_size, f.sha256) for f in described.files
    )
    manifest.write(dataclasses.replace(described, files=files), out)
    return out


def tensor(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(t for t in model.graph.initializer if t.name == name)


def set_values(model: onnx.ModelProto, name: str, values: np.ndarray) -> None:
    tensor(model, name).CopyFrom(numpy_helper.from_array(values, name))


def no_scale(model: onnx.ModelProto) -> None:
    scale = numpy_helper.to_array(tensor(model, "decoder/embeddings_scale")).copy()
    scale[48_000] = 0.0  # a token that no test says
    set_values(model, "decoder/embeddings_scale", scale)


def no_scales(model: onnx.ModelProto) -> None:
    name = "decoder/layer_0/attention/linear_2/weight_scale"
    set_values(model, name, np.zeros_like(numpy_helper.to_array(tensor(model, name))))


def swapped(model: onnx.ModelProto) -> None:
    for end in ("", "_scale"):
        first, second = (f"encoder/layer_{i}/ffn/linear_0/weight{end}" for i in (1, 2))
        kept = numpy_helper.to_array(tensor(model, first)).copy()
        set_values(model, first, numpy_helper.to_array(tensor(model, second)))
        set_values(model, second, kept)


def one_scale(model: onnx.ModelProto) -> None:
    for found in [t.name for t in model.graph.initializer if t.name.endswith("_scale")]:
        name = found.removesuffix("_scale")
        weight = numpy_helper.to_array(tensor(model, name)) * numpy_helper.to_array(
            tensor(model, found)
        )
        scale = np.float32(np.abs(weight).max() / 127)
        set_values(model, name, np.rint(weight / scale).astype(np.int8))
        set_values(model, found, np.full(weight.shape[1], scale, np.float32))


@pytest.mark.bundle
@pytest.mark.parametrize(
    ("file", "damage"),
    [(DECODER, no_scale), (DECODER, no_scales), (ENCODER, swapped), (DECODER, one_scale)],
)
def test_damage_shows_in_the_weights(
    artifact: Callable[[str], Path],
    tmp_path: Path,
    file: str,
    damage: Callable[[onnx.ModelProto], None],
) -> None:
    whole = artifact(WHISPER)
    broken = damaged(whole, tmp_path / "broken", file, damage)
    excess, compared = onnx_drift.worst([whole / file], [broken / file])
    assert missed({"weight_excess": excess}) == {"weight_excess"}
    assert compared == pytest.approx(1.0)


@pytest.mark.bundle
def test_a_damaged_artifact_is_heard(
    artifact: Callable[[str], Path], material: Path, tmp_path: Path
) -> None:
    def scrambled(model: onnx.ModelProto) -> None:
        name = "decoder/n_layer_cross_k/weight"
        set_values(model, name, numpy_helper.to_array(tensor(model, name))[::-1].copy())

    whole = artifact(WHISPER)
    broken = damaged(whole, tmp_path / "broken", ENCODER, scrambled)
    figures = recogniser.measure(whole, broken, material, 1)
    assert set(QUALITY) <= missed(figures)
    assert (figures["words"], figures["clips"]) == (22, 2)
    assert figures["reference_wer"] < 0.3 < figures["wer"]
    assert figures["rtf"] > 0 and figures["load_s"] > 0
    assert figures["size_ratio"] == pytest.approx(1.0, abs=1e-3)
    assert {b.figure for b in gates.BOUNDS["recogniser"]} <= set(figures)


def test_errors_cancel_in_one_figure_and_not_in_the_other() -> None:
    said = (("a", "b", "c", "d"), None, ("e", "f"))
    reference = (("a", "b", "x", "d"), ("q",), ("e", "f"))
    candidate = (("a", "b", "c", "d"), ("r",), ("e", "g"))
    figures = Comparison(said, reference, candidate).figures()
    assert figures["words"] == 6
    assert figures["wer"] == figures["reference_wer"] == pytest.approx(1 / 6)
    assert figures["wer_points"] == 0
    assert figures["wer_points_high"] == pytest.approx(50.0)
    assert figures["disagreement"] == pytest.approx(3 / 7)


def test_silence_on_both_sides_is_no_division_by_zero() -> None:
    figures = Comparison((("a",),), ((),), ((),)).figures()
    assert (figures["wer"], figures["disagreement"]) == (1.0, 0.0)


def test_the_sample_has_short_and_long_recordings() -> None:
    clips = [Clip(str(s), np.zeros(16_000 * s, np.float32)) for s in (9, 1, 5, 3, 7, 2)]
    taken = [int(c.name) for c in recogniser.sample(clips, 13.0)]
    assert taken == [2, 5, 9]
    assert len(recogniser.sample(clips, 100.0)) == len(clips)


def test_the_default_material_is_held_out_from_calibration() -> None:
    said = set(default_sentences("questions"))
    assert not said & set(default_sentences("calibration"))
    clips = recordings.transcribed(None)
    assert {c.text for c in clips} >= said
    assert all(c.text and c.samples.dtype == np.float32 and len(c.samples) > 8000 for c in clips)


def test_a_folder_without_words_is_refused(material: Path, tmp_path: Path) -> None:
    shutil.copy(next(material.glob("*.wav")), tmp_path)
    with pytest.raises(ConfigError, match=r"has 1 \*.wav and words for none"):
        recordings.transcribed(tmp_path)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_blocks_are_widened_as_the_runtime_does(bits: int, symmetric: bool) -> None:
    float_model, rounded = product(), product()
    int4.quantise(rounded, bits, 32, symmetric)
    (drift,) = onnx_drift.drifts(float_model, rounded)
    assert (drift.name, drift.elements) == ("w", 96 * 64)
    assert 0 < drift.error < (0.15 if bits == 4 else 0.01)
    assert 0.1 < drift.excess < 1.1


def test_a_block_of_four_bits_that_lost_its_scale_is_damage() -> None:
    rounded = product()
    int4.quantise(rounded, 4, 32, True)
    node = next(n for n in rounded.graph.node if n.op_type == "MatMulNBits")
    (scales,) = (t for t in rounded.graph.initializer if t.name.startswith(node.input[2]))
    values = numpy_helper.to_array(scales).copy()
    values.reshape(-1)[7] = 0.0
    scales.CopyFrom(numpy_helper.from_array(values, scales.name))
    (drift,) = onnx_drift.drifts(product(), rounded)
    assert drift.excess == np.inf


def test_columns_are_widened_as_the_runtime_does() -> None:
    float_model, rounded = product(), product()
    int8.quantise(rounded)
    (drift,) = onnx_drift.drifts(float_model, rounded)
    assert 0 < drift.error < 0.02 and 0.5 < drift.excess < 1.5


def turned() -> onnx.ModelProto:
    """A square Gemm whose weight is stored [out, in]."""
    weight = np.random.default_rng(5).standard_normal((96, 96)).astype(np.float32)
    model = product()
    del model.graph.node[:]
    model.graph.node.append(onnx.helper.make_node("Gemm", ["x", "w"], ["y"], "gemm", transB=1))
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w"))
    return model


@pytest.mark.parametrize("treatment", ["int8", "int8-weights", "fp16"])
def test_a_turned_weight_is_compared_as_what_it_multiplies(treatment: str) -> None:
    rounded = turned()
    treatments.round_products(rounded, {"w": treatment})
    float16.store(rounded)
    (drift,) = onnx_drift.drifts(turned(), rounded)
    assert 0 < drift.excess < 1.5


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
def test_a_kernel_is_compared_with_the_product_that_it_became(kind: str) -> None:
    weight = np.random.default_rng(6).standard_normal((16, 24, 5)).astype(np.float32)

    def model() -> onnx.ModelProto:
        node = onnx.helper.make_node(
            kind, ["x", "w"], ["y"], name="c", strides=[2 if kind == "ConvTranspose" else 1]
        )
        made = product()
        del made.graph.node[:]
        made.graph.node.append(node)
        made.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w"))
        return made

    rounded = model()
    assert convolutions.quantise(rounded) == ["w"]
    (drift,) = onnx_drift.drifts(model(), rounded)
    assert (drift.elements, 0 < drift.excess < 1.5) == (weight.size, True)
    scales = next(t for t in rounded.graph.initializer if t.name == "w_scale")
    values = numpy_helper.to_array(scales).copy()
    values[0] = 0.0
    scales.CopyFrom(numpy_helper.from_array(values, "w_scale"))
    (drift,) = onnx_drift.drifts(model(), rounded)
    assert drift.excess > 7


def test_weights_that_are_not_found_have_not_passed(tmp_path: Path) -> None:
    onnx.save(product(), str(tmp_path / "float.onnx"))
    renamed = product()
    renamed.graph.initializer[0].name = renamed.graph.node[0].input[1] = "other"
    onnx.save(renamed, str(tmp_path / "other.onnx"))
    excess, compared = onnx_drift.worst([tmp_path / "float.onnx"], [tmp_path / "other.onnx"])
    assert np.isnan(excess) and compared == 0.0
    (verdict,) = gates.judge(
        {"weight_excess": excess},
        [b for b in gates.BOUNDS["recogniser"] if b.figure == "weight_excess"],
    )
    assert not verdict.passed
    assert str(verdict) == "weight_excess not measured, allowed at most 3: missed"


def test_a_copy_is_compared_whatever_its_format(tmp_path: Path) -> None:
    for name in ("one.ort", "two.ort"):
        (tmp_path / name).write_bytes(b"not to be read by onnx")
    assert onnx_drift.worst([tmp_path / "one.ort"], [tmp_path / "two.ort"]) == (0.0, 1.0)


def product() -> onnx.ModelProto:
    """Two inputs' product with a constant [96, 64]."""
    weight = np.random.default_rng(2).standard_normal((96, 64)).astype(np.float32)
    helper = onnx.helper
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "g",
        [helper.make_tensor_value_info("x", 1, [1, 96])],
        [helper.make_tensor_value_info("y", 1, [1, 64])],
        initializer=[numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
