import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgevoice.engines import piper as engine
from edgevoice.engines.sherpa_speech import SherpaSpeech, configure
from edgevoice.errors import ArtifactError, ConfigError
from edgevoice.export.families import piper, piper_cut

SETTINGS = {
    "audio": {"sample_rate": 16000},
    "espeak": {"voice": "de"},
    "language": {"name_english": "German"},
    "num_speakers": 3,
    "phoneme_id_map": {"_": [0], "^": [1], "$": [2], " ": [3], "a": [4, 9]},
}


def tiny_voice(folder: Path) -> Path:
    """A graph with a voice's inputs and outputs that hums, and its settings."""
    folder.mkdir()
    nodes = [
        helper.make_node("Cast", ["input"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["x", "axis"], ["y"]),
        helper.make_node("Conv", ["y", "w"], ["z"], kernel_shape=[3], pads=[1, 1]),
        helper.make_node("Tanh", ["z"], ["output"]),
    ]
    weights = np.random.default_rng(0).normal(size=(1, 1, 3)).astype(np.float32)
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info("input", TensorProto.INT64, [1, "n"]),
            helper.make_tensor_value_info("input_lengths", TensorProto.INT64, [1]),
            helper.make_tensor_value_info("scales", TensorProto.FLOAT, [3]),
            helper.make_tensor_value_info("sid", TensorProto.INT64, [1]),
        ],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 1, "n"])],
        [
            numpy_helper.from_array(np.array([1]), "axis"),
            numpy_helper.from_array(weights, "w"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    onnx.save(model, str(folder / "tiny.onnx"))
    (folder / "tiny.onnx.json").write_text(json.dumps(SETTINGS))
    return folder


def decoding_voice(folder: Path, first_layer: str = "dec.conv_pre.weight") -> Path:
    """Like :func:`tiny_voice`, with a decoder: 2 samples a frame, a speaker, 2 frames of overlap.

    A frame's samples depend on one more on each side by `conv_pre` and on one more by `up`.
    """
    tiny_voice(folder)
    model = onnx.load(str(folder / "tiny.onnx"))
    rng = np.random.default_rng(1)
    weights = {
        "emb": rng.normal(size=(3, 1)), first_layer: rng.normal(size=(1, 1, 3)),
        "dec.cond.weight": rng.normal(size=(1, 1, 1)), "dec.up.weight": rng.normal(size=(1, 1, 4)),
        "small": np.array(0.1),
    }  # fmt: skip
    del model.graph.node[2:]
    model.graph.node.extend(
        [
            helper.make_node("Conv", ["y", "w"], ["mean"], kernel_shape=[3], pads=[1, 1]),
            helper.make_node("Mul", ["mean", "small"], ["latent"]),
            helper.make_node("Gather", ["emb", "sid"], ["g0"]),
            helper.make_node("Unsqueeze", ["g0", "last"], ["g"]),
            helper.make_node("Conv", ["latent", first_layer], ["pre"], pads=[1, 1]),
            helper.make_node("Conv", ["g", "dec.cond.weight"], ["cond"]),
            helper.make_node("Add", ["pre", "cond"], ["x1"]),
            helper.make_node(
                "ConvTranspose", ["x1", "dec.up.weight"], ["x2"], strides=[2], pads=[1, 1]
            ),
            helper.make_node("Tanh", ["x2"], ["output"]),
        ]
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array([2]), "last"))
    model.graph.initializer.extend(
        numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()
    )
    onnx.save(model, str(folder / "tiny.onnx"))
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def test_metadata_and_tokens(tmp_path: Path, out: Path) -> None:
    prepared = piper.prepare(tiny_voice(tmp_path / "in"), out, {})
    assert sorted(p.name for p in out.iterdir()) == ["tiny.onnx", "tiny.onnx.json", "tokens.txt"]
    model = onnx.load(str(out / "tiny.onnx"))
    assert {p.key: p.value for p in model.metadata_props} == {
        "model_type": "vits",
        "comment": "piper",
        "language": "German",
        "voice": "de",
        "has_espeak": "1",
        "n_speakers": "3",
        "sample_rate": "16000",
    }
    assert (out / "tokens.txt").read_text() == "_ 0\n^ 1\n$ 2\n  3\na 4\n"
    assert (prepared.format, prepared.scheme) == ("onnx", "fp32")
    assert prepared.engine == {"sample_rate_hz": 16000, "espeak_voice": "de", "speakers": 3}


def test_a_speaker_is_chosen(tmp_path: Path, out: Path) -> None:
    piper.prepare(tiny_voice(tmp_path / "in"), out, {})
    voice = engine.load(out, threads=1, speaker=2)
    (samples,) = voice.run("a a")
    assert len(samples) == 11  # one an id: ^ _ a a _ space _ a a _ $
    with pytest.raises(ConfigError, match="allowed: 0 to 2"):
        engine.load(out, threads=1, speaker=3)


def test_the_halves_say_what_the_whole_says(tmp_path: Path, out: Path) -> None:
    prepared = piper.prepare(decoding_voice(tmp_path / "in"), out, {})
    assert prepared.engine["decoder_overlap_frames"] == 2
    assert prepared.engine["samples_per_frame"] == 2
    assert 0 <= prepared.checks["halves_max_error"] <= piper_cut.MAX_ERROR
    heard = []
    for speaker in range(3):
        (whole,) = engine.load(out, threads=1, speaker=speaker).run("a " * 5000)
        halves = engine.load(out, threads=1, speaker=speaker, engine=prepared.engine)
        parts = list(halves.run("a " * 5000))
        assert len(parts) > 3
        np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-5)
        heard.append(whole)
    assert np.abs(heard[0] - heard[1]).max() > 0.01
    assert np.abs(heard[1] - heard[2]).max() > 0.01


def test_a_voice_in_halves_is_prepared_again(tmp_path: Path, out: Path) -> None:
    first = piper.prepare(decoding_voice(tmp_path / "in"), out, {})
    again = tmp_path / "again"
    again.mkdir()
    assert piper.prepare(out, again, {}).engine == first.engine
    for name in ("front", "decoder"):
        path = f"halves/{name}.onnx"
        assert (again / path).read_bytes() == (out / path).read_bytes()


def test_a_voice_that_cannot_be_cut_stays_whole(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prepared = piper.prepare(decoding_voice(tmp_path / "in", "dec.first.weight"), out, {})
    assert "decoder" not in prepared.engine
    assert not (out / "halves").exists()
    assert "stays whole" in caplog.text
    assert "0 float convolutions named conv_pre" in caplog.text


def test_a_decoder_that_sees_everything_stays_whole(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = decoding_voice(tmp_path / "in")
    model = onnx.load(str(folder / "tiny.onnx"))
    last = model.graph.node[-1]
    last.input[0] = "centred"
    model.graph.node.insert(
        len(model.graph.node) - 1, helper.make_node("Sub", ["x2", "average"], ["centred"])
    )
    model.graph.node.insert(
        len(model.graph.node) - 2, helper.make_node("ReduceMean", ["x2"], ["average"], axes=[2])
    )
    onnx.save(model, str(folder / "tiny.onnx"))
    assert "decoder" not in piper.prepare(folder, out, {}).engine
    assert "no overlap below" in caplog.text


def test_preparing_again_keeps_one_set_of_metadata(tmp_path: Path, out: Path) -> None:
    piper.prepare(tiny_voice(tmp_path / "in"), out, {})
    again = tmp_path / "again"
    again.mkdir()
    (out / "tokens.txt").unlink()
    piper.prepare(out, again, {"scheme": "fp32"})
    assert (again / "tiny.onnx").read_bytes() == (out / "tiny.onnx").read_bytes()


def test_int8_that_saves_nothing_is_refused(tmp_path: Path, out: Path) -> None:
    with pytest.raises(ArtifactError, match="use scheme fp32"):
        piper.prepare(tiny_voice(tmp_path / "in"), out, {"scheme": "int8"})


@pytest.mark.parametrize(
    ("options", "message"),
    [({"scheme": "int9"}, "unknown scheme.*int8"), ({"skeme": "int8"}, "unknown option")],
)
def test_unknown_options(tmp_path: Path, out: Path, options: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        piper.prepare(tiny_voice(tmp_path / "in"), out, options)


def test_bad_input_is_one_line(tmp_path: Path, out: Path) -> None:
    with pytest.raises(ArtifactError, match=r"0 \.onnx files"):
        piper.prepare(tmp_path, out, {})
    folder = tiny_voice(tmp_path / "in")
    (folder / "tiny.onnx").write_bytes((folder / "tiny.onnx").read_bytes()[:200])
    with pytest.raises(ArtifactError, match="not a whole ONNX model") as caught:
        piper.prepare(folder, out, {})
    assert "\n" not in str(caught.value)
    (folder / "tiny.onnx.json").write_text("{}")
    with pytest.raises(ArtifactError, match="not a Piper voice's settings"):
        piper.prepare(folder, out, {})
    (folder / "tiny.onnx.json").unlink()
    with pytest.raises(ArtifactError, match="is missing"):
        piper.prepare(folder, out, {})


def test_the_real_voice_in_both_engines(artifact: Callable[[str], Path], out: Path) -> None:
    folder = artifact("piper-en_US-joe-medium-int8")
    prepared = piper.prepare(folder, out, {"scheme": "fp32"})
    assert prepared.engine["espeak_voice"] == "en-us"
    session = onnxruntime.InferenceSession(str(out / "en_US-joe-medium.onnx"))
    assert session.get_modelmeta().custom_metadata_map["comment"] == "piper"
    voice = SherpaSpeech(configure(out, "piper", 2), espeak_voice="en-us")
    samples = np.concatenate(list(voice.synthesise("Hello there.")))
    assert 0.5 < len(samples) / voice.sample_rate_hz < 2.0
    assert np.abs(samples).max() > 0.1
