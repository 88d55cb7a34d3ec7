"""The streaming graph of a distilled recogniser, beside whole clips, and in sherpa-onnx."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from distil_reference import scores, small_shape, small_tensors

from edgevoice.errors import ArtifactError
from edgevoice.export.distil import graph
from edgevoice.export.distil.alphabet import Alphabet
from edgevoice.export.distil.fbank import FLOOR, fbank


def streamed(folder: Path, features: np.ndarray, chunk: int, left: int) -> np.ndarray:
    """What the graph says of `features`, fed as sherpa-onnx feeds them."""
    session = ort.InferenceSession(folder / graph.MODEL)
    size = {i.name: i.shape for i in session.get_inputs()}
    attention = np.zeros(size["attn_cache"], np.float32)
    convolution = np.zeros(size["conv_cache"], np.float32)
    said = []
    for number in range((len(features) - 3) // (2 * chunk)):
        feed = {
            "chunk": features[None, 2 * chunk * number : 2 * chunk * (number + 1) + 3],
            "offset": np.array([left + number * chunk]),
            "required_cache_size": np.array([left]),
            "attn_cache": attention,
            "conv_cache": convolution,
            "attn_mask": np.arange(left + chunk)[None, None] >= left - number * chunk,
        }
        found, attention, convolution = session.run(None, feed)
        said.append(found[0])
    return np.concatenate(said)


@pytest.mark.parametrize(("chunk", "left"), [(4, 8), (2, 8), (5, 5)])
def test_streaming_equals_the_whole_clip_under_the_mask(
    tmp_path: Path, chunk: int, left: int
) -> None:
    shape = small_shape(chunk, left)
    tensors = small_tensors(shape)
    graph.write(tensors, shape, tmp_path, "made by the tests")
    # Beyond the left context and, with chunks of 4 and 5, past the last position.
    features = np.random.default_rng(1).normal(10, 4, (2 * 12 * chunk + 3, 80)).astype(np.float32)
    whole = scores(tensors, shape, features)
    assert np.abs(streamed(tmp_path, features, chunk, left) - whole).max() < 5e-4
    # The mask matters: with more context the scores are others.
    wider = scores(tensors, small_shape(chunk, 4 * left), features)
    assert np.abs(wider - whole).max() > 0.01


def test_sherpa_writes_what_the_reference_writes(tmp_path: Path) -> None:
    import sherpa_onnx

    shape = small_shape(4, 8, "abcdefgh")
    tensors = small_tensors(shape, seed=3)
    graph.write(tensors, shape, tmp_path, "made by the tests")
    sound = np.random.default_rng(2).normal(0, 0.05, 32_000).astype(np.float32)
    recognizer = sherpa_onnx.OnlineRecognizer.from_wenet_ctc(
        tokens=str(tmp_path / graph.TOKENS),
        model=str(tmp_path / graph.MODEL),
        chunk_size=4,
        num_left_chunks=2,
    )
    stream = recognizer.create_stream()
    for piece in np.array_split(sound, 20):
        stream.accept_waveform(16_000, piece)
        while recognizer.is_ready(stream):
            recognizer.decode_stream(stream)
    stream.input_finished()
    while recognizer.is_ready(stream):
        recognizer.decode_stream(stream)
    features = np.maximum(fbank(sound), FLOOR)
    best = scores(tensors, shape, features[: len(features) - (len(features) - 3) % 8]).argmax(-1)
    expected = Alphabet(shape.tokens).decode(int(number) for number in best)
    assert len(expected) > 10
    assert recognizer.get_result(stream).strip() == expected


def test_tensors_that_do_not_fit_are_named(tmp_path: Path) -> None:
    shape = small_shape()
    tensors = small_tensors(shape)
    with pytest.raises(ArtifactError, match=r"'head.bias' is missing; \(5,\) was expected"):
        graph.write({k: v for k, v in tensors.items() if k != "head.bias"}, shape, tmp_path, "")
    with pytest.raises(ArtifactError, match=r"'conv1.bias' is of shape \(3,\)"):
        graph.write(tensors | {"conv1.bias": np.zeros(3, np.float32)}, shape, tmp_path, "")
    tensors["norm.bias"][2] = np.nan
    with pytest.raises(ArtifactError, match="not finite"):
        graph.write(tensors, shape, tmp_path, "")
