"""Whisper from a Hugging Face checkpoint: the same graphs as from CTranslate2, and bad sources."""

from __future__ import annotations

import json
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path

import hf_whisper
import numpy as np
import pytest
from ctranslate2_file import (
    AUDIO,
    HEADS,
    STATE,
    small_vocabulary,
    small_whisper,
    write_small_whisper,
)

from edgevoice.errors import ArtifactError
from edgevoice.export.calibration import Calibration
from edgevoice.export.families import whisper, whisper_artifact, whisper_checkpoint
from edgevoice.export.family import Job
from edgevoice.manifest import ArtifactFile

PREFIX = "model."


@pytest.fixture(scope="module")
def variables() -> dict[str, np.ndarray]:
    found = small_whisper()
    for name, values in found.items():
        if name.endswith("self_attention/linear_0/bias"):
            values[len(values) // 3 : 2 * len(values) // 3] = 0  # the keys'
        if name.endswith("/attention/linear_1/bias"):
            values[: len(values) // 2] = 0
    return found


@pytest.fixture
def arrays(variables: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return hf_whisper.tensors(variables)


@pytest.fixture
def checkpoint(tmp_path: Path, arrays: dict[str, np.ndarray]) -> Path:
    folder = tmp_path / "hf"
    folder.mkdir()
    return hf_whisper.write(folder, arrays, HEADS, small_vocabulary())


@pytest.fixture(scope="module")
def wanted(
    variables: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    source, out = tmp_path_factory.mktemp("ct2"), tmp_path_factory.mktemp("wanted")
    write_small_whisper(source, **variables)
    return converted(source, out)


def converted(source: Path, out: Path, allow_pickle: bool = False) -> dict[str, bytes]:
    job = Job(out / "work", Calibration(), allow_pickle=allow_pickle)
    out.mkdir(exist_ok=True)
    written = whisper.convert(source, out, job)
    assert written.engine["language"] == "en"
    assert {t.type for t in written.tensors} >= {"float32"}
    return {p.name: p.read_bytes() for p in out.iterdir()}


def test_the_same_weights_give_the_same_bytes(
    checkpoint: Path, wanted: dict[str, bytes], tmp_path: Path
) -> None:
    assert whisper.recognises(checkpoint)
    assert converted(checkpoint, tmp_path / "out") == wanted
    assert sorted(wanted) == ["decoder.onnx", "encoder.onnx", "tokens.txt"]


def test_shards_without_the_prefix_and_an_older_tokenizer(
    checkpoint: Path, arrays: dict[str, np.ndarray], wanted: dict[str, bytes], tmp_path: Path
) -> None:
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "tokenizer.json").unlink()
    names = [n.removeprefix(PREFIX) for n in arrays]
    halves = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, held in halves.items():
        hf_whisper.save_safetensors(checkpoint / file, {n: arrays[PREFIX + n] for n in held})
    index = {n: file for file, held in halves.items() for n in held}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    tokens = small_vocabulary()
    plain = {t: i for i, t in enumerate(tokens) if not t.startswith("<|")}
    added = {t: i for i, t in enumerate(tokens) if t.startswith("<|")}
    (checkpoint / "vocab.json").write_text(json.dumps(plain), encoding="utf-8")
    (checkpoint / "added_tokens.json").write_text(json.dumps(added), encoding="utf-8")
    assert converted(checkpoint, tmp_path / "out") == wanted
    (checkpoint / "b.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"'b.safetensors', which is not there"):
        whisper_checkpoint.read(checkpoint)


def test_bfloat16_and_float32_are_read(checkpoint: Path, arrays: dict[str, np.ndarray]) -> None:
    name, brain = "model.encoder.conv1.bias", "model.encoder.conv2.bias"
    single = arrays[brain].astype(np.float32)
    cut = (single.view(np.uint32) >> 16).astype(np.uint16)
    changed = arrays | {name: arrays[name].astype(np.float32), brain: cut}
    hf_whisper.save_safetensors(checkpoint / "model.safetensors", changed)
    weights = whisper_checkpoint.read(checkpoint)
    np.testing.assert_array_equal(weights.floats("encoder/conv1/bias"), arrays[name])
    np.testing.assert_allclose(weights.floats("encoder/conv2/bias"), single, rtol=1 / 128)


def test_facts_are_read_from_the_headers(checkpoint: Path) -> None:
    facts = whisper.inspect(checkpoint)
    assert facts.source_bytes == (checkpoint / "model.safetensors").stat().st_size
    stored = whisper_checkpoint.read(checkpoint).checkpoint.shapes.values()
    # The encoder's graph holds the encoded silence beside the weights.
    silence = AUDIO * STATE
    assert facts.parameters - silence == pytest.approx(sum(map(np.prod, stored)), rel=0.05)
    assert facts.peak_memory_bytes > 4 * facts.parameters
    assert facts.detail["languages"] == "English"
    _config(checkpoint, d_model=1280, encoder_layers=32, encoder_attention_heads=20)
    with pytest.raises(ArtifactError, match=r"takes \d.\d GB, an ONNX file holds 2.1"):
        whisper.inspect(checkpoint)


def test_a_source_of_another_kind_is_not_recognised(tmp_path: Path) -> None:
    assert not whisper.recognises(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert not whisper.recognises(tmp_path)
    (tmp_path / "config.json").write_text("{")
    assert not whisper.recognises(tmp_path)
    (tmp_path / "model.bin").write_bytes(b"\x06\x00\x00\x00\x10\x00TransformerSpec")
    assert not whisper.recognises(tmp_path)


def _config(folder: Path, **changed: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


def test_bad_checkpoints_are_one_line(checkpoint: Path, arrays: dict[str, np.ndarray]) -> None:
    whole = (checkpoint / "model.safetensors").read_bytes()
    (checkpoint / "model.safetensors").write_bytes(whole[:-5])
    with pytest.raises(ArtifactError, match="is truncated"):
        whisper_checkpoint.read(checkpoint)
    missing = {n: a for n, a in arrays.items() if "layers.1.fc1" not in n}
    hf_whisper.save_safetensors(checkpoint / "model.safetensors", missing)
    with pytest.raises(ArtifactError, match=r"no tensor 'model.encoder.layers.1.fc1.weight'"):
        list(whisper_artifact.float_graphs(whisper_checkpoint.read(checkpoint)))
    counted = arrays | {"model.encoder.conv1.bias": np.zeros(64, np.int64)}
    hf_whisper.save_safetensors(checkpoint / "model.safetensors", counted)
    with pytest.raises(ArtifactError, match="is I64; read are F64, F32, F16, BF16"):
        whisper_checkpoint.read(checkpoint).floats("encoder/conv1/bias")
    (checkpoint / "model.safetensors").write_bytes(whole)
    _config(checkpoint, num_mel_bins=128)
    with pytest.raises(
        ArtifactError, match=r"shape \(64, 80, 3\), config.json says \(64, 128, 3\)"
    ):
        whisper_checkpoint.read(checkpoint)
    _config(checkpoint, num_mel_bins="80")
    with pytest.raises(ArtifactError, match="num_mel_bins is '80', an integer is needed"):
        whisper_checkpoint.read(checkpoint)
    _config(checkpoint, model_type="wav2vec2")
    with pytest.raises(ArtifactError, match="model_type 'wav2vec2'"):
        whisper_checkpoint.read(checkpoint)


def test_a_tokenizer_has_to_be_there_and_fit(checkpoint: Path) -> None:
    with pytest.raises(ArtifactError, match=r"has id \d+ \(.*\), the model 9 tokens"):
        whisper_checkpoint.read_vocabulary(checkpoint, 9)
    (checkpoint / "tokenizer.json").write_text("[]")
    with pytest.raises(ArtifactError, match="no vocabulary can be read"):
        whisper_checkpoint.read_vocabulary(checkpoint, 266)
    (checkpoint / "tokenizer.json").unlink()
    with pytest.raises(ArtifactError, match=r"no tokenizer.json and no vocab.json"):
        whisper_checkpoint.read_vocabulary(checkpoint, 266)


def save_pickled(path: Path, arrays: dict[str, np.ndarray], extra: object = None) -> None:
    """Write ``arrays`` as ``torch.save`` does, with classes of the names that it writes."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    storage = type("HalfStorage", (), {"__module__": "torch"})

    def rebuild(*_: object) -> None: ...

    rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    torch.HalfStorage, utils._rebuild_tensor_v2 = storage, rebuild  # type: ignore[attr-defined]

    class Tensor:
        def __init__(self, key: str, array: np.ndarray) -> None:
            self.key, self.array = key, array

        def __reduce__(self) -> tuple[object, ...]:
            strides = tuple(s // self.array.itemsize for s in self.array.strides)
            stored = Stored(self.key, self.array.size)
            return rebuild, (stored, 0, self.array.shape, strides, False, OrderedDict())

    class Stored:
        def __init__(self, key: str, size: int) -> None:
            self.key, self.size = key, size

    class Pickler(pickle.Pickler):
        def persistent_id(self, thing: object) -> object:
            if isinstance(thing, Stored):
                return ("storage", storage, thing.key, "cpu", thing.size)
            return None

    before = {name: sys.modules.get(name) for name in ("torch", "torch._utils")}
    sys.modules |= {"torch": torch, "torch._utils": utils}
    try:
        with zipfile.ZipFile(path, "w") as archive:
            state = OrderedDict((n, Tensor(str(i), a)) for i, (n, a) in enumerate(arrays.items()))
            with archive.open("archive/data.pkl", "w") as file:
                Pickler(file, protocol=2).dump(state if extra is None else extra)
            for i, array in enumerate(arrays.values()):
                archive.writestr(f"archive/data/{i}", np.ascontiguousarray(array).tobytes())
    finally:
        for name, module in before.items():
            sys.modules.pop(name) if module is None else sys.modules.update({name: module})


def test_a_pickle_is_read_only_when_allowed_and_runs_nothing(
    checkpoint: Path, arrays: dict[str, np.ndarray], wanted: dict[str, bytes], tmp_path: Path
) -> None:
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(
        ArtifactError, match=r"has no model.safetensors, no .* no pytorch_model.bin"
    ):
        whisper_checkpoint.read(checkpoint)
    plain = {n: np.ascontiguousarray(a) for n, a in arrays.items()}
    save_pickled(checkpoint / "pytorch_model.bin", plain)
    with pytest.raises(ArtifactError, match=r"is a pickle; use a source with model.safetensors"):
        whisper_checkpoint.read(checkpoint)
    assert whisper.inspect(checkpoint).title == "Whisper (pickled checkpoint)"
    assert converted(checkpoint, tmp_path / "out", allow_pickle=True) == wanted
    save_pickled(checkpoint / "pytorch_model.bin", {}, extra=ArtifactFile)
    with pytest.raises(ArtifactError, match=r"names edgevoice.manifest.ArtifactFile, only tensors"):
        whisper_checkpoint.read(checkpoint, allow_pickle=True)
    (checkpoint / "pytorch_model.bin").write_bytes(b"PK\x03\x04")
    with pytest.raises(ArtifactError, match=r"is truncated, or of a torch before 1.6"):
        whisper_checkpoint.read(checkpoint, allow_pickle=True)
