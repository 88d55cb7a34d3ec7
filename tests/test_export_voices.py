"""Families of voices on graphs made here, and which engine a voice's manifest asks for."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgevoice import manifest, store
from edgevoice.engines import kokoro as engine
from edgevoice.engines.recogniser import load_end_of_turn
from edgevoice.engines.speech import load_speech, runner_of
from edgevoice.errors import ArtifactError, ConfigError
from edgevoice.export import family as families
from edgevoice.export.calibration import Calibration
from edgevoice.export.family import Family, Job
from edgevoice.manifest import Manifest
from edgevoice.quant import scheme as schemes
from edgevoice.quant.recipe import by_type
from edgevoice.settings import EndOfTurnSettings, SpeechSettings


def graph_of(path: Path, inputs: tuple[str, ...], metadata: dict[str, str]) -> None:
    """A graph with a voice's inputs: a convolution over the symbols' embeddings."""
    rng = np.random.default_rng(0)
    floats = TensorProto.FLOAT
    nodes = [
        helper.make_node("Gather", ["emb", inputs[0]], ["rows"]),
        helper.make_node("Transpose", ["rows"], ["columns"], perm=[0, 2, 1]),
        helper.make_node("Conv", ["columns", "w"], ["sound"], pads=[2, 2]),
        helper.make_node("ReduceMean", ["style"], ["mean"], keepdims=0),
        helper.make_node("Add", ["sound", "mean"], ["moved"]),
        helper.make_node("Mul", ["moved", "speed"], ["scaled"]),
        helper.make_node("Tanh", ["scaled"], ["audio"]),
    ]
    graph = helper.make_graph(
        nodes,
        "voice",
        [
            helper.make_tensor_value_info(inputs[0], TensorProto.INT64, [1, "n"]),
            helper.make_tensor_value_info("style", floats, [1, 256]),
            helper.make_tensor_value_info("speed", floats, [1]),
        ],
        [helper.make_tensor_value_info("audio", floats, [1, "c", "m"])],
        [
            numpy_helper.from_array(rng.normal(size=(178, 64)).astype(np.float32), "emb"),
            numpy_helper.from_array(rng.normal(size=(600, 64, 5)).astype(np.float32) / 20, "w"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, str(path))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "kokoro"
    (folder / "voices").mkdir(parents=True)
    graph_of(folder / "kokoro-v1.0.onnx", ("tokens",), {})
    for name in ("am_adam", "af_heart"):
        np.zeros((510, 256), "<f4").tofile(folder / "voices" / f"{name}.bin")
    return folder


def converted(family: Family, source: Path, out: Path) -> Job:
    out.mkdir()
    job = Job(work=out.parent, calibration=Calibration(), options={"sentences": "2"})
    family.convert(source, out, job)
    return job


@pytest.mark.parametrize("scheme", ["fp16", "int8", "int8-mixed", "int8-static"])
def test_kokoro_in_every_scheme(source: Path, tmp_path: Path, scheme: str) -> None:
    family = families.load("kokoro")
    assert family.recognises(source)
    assert "am_adam" in family.inspect(source).detail["voices"]
    job = converted(family, source, tmp_path / "float")
    out = tmp_path / "out"
    out.mkdir()
    written = family.quantise(
        tmp_path / "float", schemes.find(scheme), family.recipe(scheme), out, job
    )
    sizes = by_type(written.tensors)
    assert ("int8" in sizes) == (scheme != "fp16")
    assert ("float16" in sizes) == (scheme != "int8")
    heard = [
        np.concatenate(list(engine.load(folder, threads=1).synthesise("Hello there.")))
        for folder in (tmp_path / "float", out)
    ]
    assert len(heard[0]) == len(heard[1])
    assert 0 < np.abs(heard[0] - heard[1]).max() < 0.05
    assert (out / "voices.bin").stat().st_size == 2 * 510 * 256 * 4
    assert "a 43\n" in (out / "tokens.txt").read_text(encoding="utf-8")


def test_the_same_inputs_give_the_same_bytes(source: Path, tmp_path: Path) -> None:
    family = families.load("kokoro")
    job = converted(family, source, tmp_path / "float")
    for scheme in ("int8-mixed", "int8-static"):
        made = []
        for name in ("a", "b"):
            out = tmp_path / f"{scheme}-{name}"
            out.mkdir()
            chosen = schemes.find(scheme)
            family.quantise(tmp_path / "float", chosen, family.recipe(scheme), out, job)
            made.append((out / "model.onnx").read_bytes())
        assert made[0] == made[1]


def test_a_quantised_source_is_refused(source: Path, tmp_path: Path) -> None:
    family = families.load("kokoro")
    job = converted(family, source, tmp_path / "float")
    again = tmp_path / "again"
    again.mkdir()
    family.quantise(tmp_path / "float", schemes.find("int8"), family.recipe("int8"), again, job)
    (tmp_path / "out").mkdir()
    with pytest.raises(ArtifactError, match="quantised already"):
        family.convert(again, tmp_path / "out", job)


def test_options_of_a_voice(source: Path, tmp_path: Path) -> None:
    family = families.load("kokoro")
    job = converted(family, source, tmp_path / "float")
    for scheme, options, message in (
        ("int8", {"products": "fast"}, "unknown products"),
        ("int8-static", {"calibration": "luck"}, "unknown calibration"),
        ("int8-static", {"sentences": "none"}, "a number from 1"),
    ):
        out = tmp_path / message.replace(" ", "-")
        out.mkdir()
        with pytest.raises(ConfigError, match=message):
            family.quantise(
                tmp_path / "float",
                schemes.find(scheme),
                family.recipe(scheme),
                out,
                dataclasses.replace(job, options=options),
            )


def test_bad_kokoro_sources(source: Path, tmp_path: Path) -> None:
    family = families.load("kokoro")
    (tmp_path / "out").mkdir()
    job = Job(work=tmp_path, calibration=Calibration())
    (source / "voices" / "am_adam.bin").write_bytes(bytes(1000))
    with pytest.raises(ArtifactError, match="1000 bytes are not rows"):
        family.convert(source, tmp_path / "out", job)
    (source / "voices" / "am_adam.bin").unlink()
    model = source / "kokoro-v1.0.onnx"
    model.write_bytes(model.read_bytes()[:5000])
    with pytest.raises(ArtifactError, match="not a whole ONNX model") as caught:
        family.convert(source, tmp_path / "out", job)
    assert "\n" not in str(caught.value)
    model.unlink()
    with pytest.raises(ArtifactError, match=r"0 \.onnx files"):
        family.convert(source, tmp_path / "out", job)


@pytest.mark.parametrize("name", ["kitten", "matcha"])
def test_packs_are_checked_and_passed_through(tmp_path: Path, name: str) -> None:
    family = families.load(name)
    source = tmp_path / "pack"
    source.mkdir()
    keys = {"sample_rate": "24000", "n_speakers": "1", "style_dim": "1,256", "pad_id": "0",
            "has_espeak": "1", "voice": "en-us"}  # fmt: skip
    graph_of(source / "model.fp32.onnx", ("tokens",), keys)
    companion = source / ("voices.bin" if name == "kitten" else "vocos-22khz.onnx")
    assert not family.recognises(source)
    if name == "kitten":
        companion.write_bytes(bytes(1024))
    else:
        shutil.copyfile(source / "model.fp32.onnx", companion)
    (source / "tokens.txt").write_text("$ 0\n  1\na 2\n")
    (source / "espeak-ng-data").mkdir()
    assert family.recognises(source)
    job = converted(family, source, tmp_path / "float")
    kept = {p.name for p in source.iterdir()} - {"espeak-ng-data"}
    assert {p.name for p in (tmp_path / "float").iterdir()} == kept
    out = tmp_path / "out"
    out.mkdir()
    written = family.quantise(
        tmp_path / "float", schemes.find("int8-mixed"), family.recipe("int8-mixed"), out, job
    )
    assert written.engine == {"sample_rate_hz": 24000, "espeak_voice": "en-us"}
    assert {p.name for p in out.iterdir()} == kept
    assert (out / "model.fp32.onnx").stat().st_size < 0.4 * (
        source / "model.fp32.onnx"
    ).stat().st_size
    carried = onnx.load(str(out / "model.fp32.onnx")).metadata_props
    assert {p.key: p.value for p in carried} == keys
    (source / "tokens.txt").write_text("a b\n")
    (tmp_path / "no").mkdir()
    with pytest.raises(ArtifactError, match="line 1: 'a b'"):
        family.convert(source, tmp_path / "no", job)
    (source / "tokens.txt").write_text("a 1\n")
    graph_of(source / "model.fp32.onnx", ("tokens",), {})
    with pytest.raises(ArtifactError, match="lacks sherpa-onnx's metadata sample_rate"):
        family.convert(source, tmp_path / "no", job)


def described(**more: object) -> Manifest:
    fields = {"name": "v", "stage": "speech", "family": "piper", "format": "onnx", "scheme": "int8",
              "licence": "", "source": "", "files": ()}  # fmt: skip
    return Manifest(**{**fields, **more})  # type: ignore[arg-type]


def test_the_manifest_names_the_engine_that_won() -> None:
    assert runner_of(described()) == "onnx"
    assert runner_of(described(family="matcha")) == "sherpa"
    assert runner_of(described(engine={"runner": "sherpa"})) == "sherpa"
    assert runner_of(described(engine={"runner": "sherpa"}), "onnx") == "onnx"
    with pytest.raises(ArtifactError, match="unknown runner 'tflite'"):
        runner_of(described(engine={"runner": "tflite"}))
    with pytest.raises(ConfigError, match="engine = 'onnx' cannot run"):
        runner_of(described(family="matcha"), "onnx")


def test_a_model_that_aborts_is_found_out_in_a_child(
    artifact: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEVOICE_HOME", str(tmp_path / "home"))
    loaders = []
    monkeypatch.setattr(
        "edgevoice.engines.speech.ensure_loadable", lambda _, name: loaders.append(name)
    )
    monkeypatch.setattr(
        "edgevoice.engines.recogniser.ensure_loadable", lambda _, name: loaders.append(name)
    )
    voice = artifact(SpeechSettings().model)
    load_speech(voice, SpeechSettings()).close()
    load_speech(voice, SpeechSettings(engine="sherpa")).close()
    load_end_of_turn(artifact("smart-turn-v3.2"), EndOfTurnSettings())
    assert loaders == [
        "edgevoice.engines.speech:load_onnx",
        "edgevoice.engines.speech:load_sherpa",
        "edgevoice.engines.recogniser:load_end_of_turn_unguarded",
    ]


def test_a_voice_is_described_as_written(source: Path, tmp_path: Path) -> None:
    converted(families.load("kokoro"), source, tmp_path / "float")
    files = store.describe(tmp_path / "float")
    manifest.write(described(family="kokoro", files=files), tmp_path / "float")
    voice = load_speech(tmp_path / "float", SpeechSettings())
    assert voice.sample_rate_hz == 24_000
    assert list(voice.synthesise("Hello."))
