"""A graph of Kokoro's shape made here: the real one (92 MB) is not in the default bundle."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgevoice.engines import kokoro
from edgevoice.engines.phonemes import phonemise
from edgevoice.errors import ArtifactError, ConfigError


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """Says 600 samples a symbol, each the mean of the style vector times the speed."""
    nodes = [
        helper.make_node("ReduceMean", ["style"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "speed"], ["level"]),
        helper.make_node("Shape", ["tokens"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["count"]),
        helper.make_node("Mul", ["count", "step"], ["length"]),
        helper.make_node("Expand", ["level", "length"], ["audio"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info("tokens", TensorProto.INT64, [1, "n"]),
            helper.make_tensor_value_info("style", TensorProto.FLOAT, [1, 256]),
            helper.make_tensor_value_info("speed", TensorProto.FLOAT, [1]),
        ],
        [helper.make_tensor_value_info("audio", TensorProto.FLOAT, ["m"])],
        [
            helper.make_tensor("one", TensorProto.INT64, [1], [1]),
            helper.make_tensor("step", TensorProto.INT64, [1], [600]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    onnx.save(model, str(tmp_path / "model.onnx"))
    (tmp_path / "voices").mkdir()
    rows = np.repeat(np.arange(510, dtype="<f4")[:, None] / 1000, 256, axis=1)
    for name in ("am_adam", "af_heart", "bf_emma", "jf_alpha"):
        rows.tofile(tmp_path / "voices" / f"{name}.bin")
    return tmp_path


def test_the_style_row_is_the_number_of_symbols(pack: Path) -> None:
    voice = kokoro.load(pack, threads=1, speed=1.5)
    samples = np.concatenate(list(voice.synthesise("Hello there.")))
    count = len(kokoro.symbol_ids(phonemise("Hello there.")[0]))
    assert voice.sample_rate_hz == 24000
    assert len(samples) == (count + 2) * 600  # a pad on both sides
    assert np.allclose(samples, count / 1000 * 1.5)
    assert list(voice.synthesise("😀")) == []
    assert list(voice.synthesise("Hello.", lambda: True)) == []
    voice.close()


def test_symbols() -> None:
    assert kokoro.symbol_ids("həlˈoʊ.") == [50, 83, 54, 156, 57, 135, 4]
    assert kokoro.symbol_ids("c\u0327ʲr✗") == [78, 52, 123]
    assert len(kokoro.SYMBOL_IDS) == 114


def test_speakers(pack: Path) -> None:
    kokoro.load(pack, threads=1, speaker=2)
    with pytest.raises(ConfigError, match="allowed: 0 to 3"):
        kokoro.load(pack, threads=1, speaker=4)
    with pytest.raises(ConfigError, match="jf_alpha"):
        kokoro.load(pack, threads=1, speaker=3)


def test_bad_packs(pack: Path) -> None:
    (pack / "voices" / "af_heart.bin").write_bytes(bytes(1000))
    with pytest.raises(ArtifactError, match="1000 bytes are not rows"):
        kokoro.load(pack, threads=1)
    (pack / "model.onnx").write_bytes(b"no")
    with pytest.raises(ArtifactError, match="cannot be loaded"):
        kokoro.load(pack, threads=1, speaker=1)
    (pack / "model.onnx").unlink()
    with pytest.raises(ArtifactError, match=r"0 \.onnx files"):
        kokoro.load(pack, threads=1)
