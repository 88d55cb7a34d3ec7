"""The reader of model.bin: what it returns, and one clear line for every kind of damage."""

import json

import numpy as np
import pytest
from ctranslate2_file import encode, small_vocabulary, write_small_whisper

from edgevoice.errors import ArtifactError
from edgevoice.export import ctranslate2

VARIABLES = {
    "a/weight": np.arange(6, dtype=np.float16).reshape(2, 3),
    "b/weight": np.array([[10, -20], [30, 127]], np.int8),
    "b/weight_scale": np.array([10.0, 2.0], np.float32),
    "count": np.int16(-7),
    "encoder/layer_0/x": np.zeros(0, np.float32),
    "encoder/layer_1/x": np.ones(1, np.int32),
}


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.bin"
    path.write_bytes(encode(VARIABLES, [("alias", "a/weight")]))
    return path


def test_reads_every_variable_in_its_own_type(model):
    checkpoint = ctranslate2.read(model)
    assert checkpoint.specification == "WhisperSpec"
    for name, array in VARIABLES.items():
        assert checkpoint.variables[name].dtype == np.asarray(array).dtype
        np.testing.assert_array_equal(checkpoint.variables[name], array)
    np.testing.assert_array_equal(checkpoint.variables["alias"], VARIABLES["a/weight"])
    assert checkpoint.layers("encoder") == 2
    assert checkpoint.integer("count") == -7
    assert checkpoint.shape("a/weight", 2) == (2, 3)


def test_int8_is_divided_by_its_row_scale(model):
    floats = ctranslate2.read(model).floats("b/weight")
    np.testing.assert_allclose(floats, [[1, -2], [15, 63.5]])


def test_every_truncation_is_one_line(tmp_path, model):
    data = model.read_bytes()
    cut = tmp_path / "cut.bin"
    for length in range(len(data)):
        cut.write_bytes(data[:length])
        with pytest.raises(ArtifactError, match=r"cut\.bin") as caught:
            ctranslate2.read(cut)
        assert "\n" not in str(caught.value)


def damaged(data, name, offset, value):
    at = data.index(name) + len(name) + offset
    return data[:at] + bytes([value]) + data[at + 1 :]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: encode(VARIABLES, version=5), "binary version 5, only 6 is read"),
        (lambda d: b"GGUF" + d[4:], "binary version"),
        (lambda d: damaged(d, b"count\0", 1, 9), "'count' is of type 9; known: 0 .float32."),
        (lambda d: damaged(d, b"count\0", 2, 3), "'count' has 3 bytes"),
        (lambda d: d + b"x", "1 bytes after the last alias"),
        (lambda d: encode(VARIABLES, [("alias", "nowhere")]), "points to 'nowhere'"),
        (lambda d: damaged(d, b"a/weigh", 0, 0xFF), "is not text"),
    ],
)
def test_damage_is_named(model, change, message):
    model.write_bytes(change(model.read_bytes()))
    with pytest.raises(ArtifactError, match=message):
        ctranslate2.read(model)


def test_missing_file(tmp_path):
    with pytest.raises(ArtifactError, match=r"none\.bin"):
        ctranslate2.read(tmp_path / "none.bin")


def test_wrong_questions_of_a_good_file(model):
    checkpoint = ctranslate2.read(model)
    with pytest.raises(ArtifactError, match="no variable 'nowhere'"):
        checkpoint.floats("nowhere")
    with pytest.raises(ArtifactError, match="int16 without a scale"):
        checkpoint.floats("count")
    with pytest.raises(ArtifactError, match="not one integer"):
        checkpoint.integer("a/weight")
    with pytest.raises(ArtifactError, match="has rank 2, not 3"):
        checkpoint.shape("a/weight", 3)


def test_vocabulary_in_both_forms(tmp_path):
    write_small_whisper(tmp_path)
    assert ctranslate2.read_vocabulary(tmp_path) == small_vocabulary()
    (tmp_path / "vocabulary.json").write_text(json.dumps(["a", "b"]))
    assert ctranslate2.read_vocabulary(tmp_path) == ["a", "b"]
    (tmp_path / "vocabulary.json").write_text('{"a": 1}')
    with pytest.raises(ArtifactError, match="not a list of strings"):
        ctranslate2.read_vocabulary(tmp_path)
    with pytest.raises(ArtifactError, match="no vocabulary"):
        ctranslate2.read_vocabulary(tmp_path / "elsewhere")
