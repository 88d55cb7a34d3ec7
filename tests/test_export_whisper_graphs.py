"""The Whisper graphs against a plain numpy forward pass."""

import numpy as np
import pytest
from ctranslate2_file import AUDIO, HEADS, LAYERS, MELS, STATE, write_small_whisper
from whisper_reference import (
    Reference,
    convert,
    cross_attention,
    mel_of,
    session,
    steps,
    with_silence,
)

from edgevoice.export.families import (
    whisper_ctranslate2,
    whisper_decoder,
    whisper_encoder,
    whisper_silence,
)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_small_whisper(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def weights(source):
    return whisper_ctranslate2.read(source)


@pytest.fixture(scope="module")
def checkpoint(weights):
    return weights.checkpoint


@pytest.fixture(scope="module")
def converted(source, tmp_path_factory):
    return convert(source, tmp_path_factory.mktemp("converted"))


@pytest.mark.parametrize("frames", [7, 40, 2 * AUDIO])
def test_encoder_gives_the_keys_and_values_of_audio_then_silence(
    weights, checkpoint, converted, frames
):
    mel = mel_of(frames)
    heard = Reference(checkpoint).encode(mel)
    wanted = cross_attention(checkpoint, with_silence(weights, heard)[0])
    got = session(converted["fp32"] / "encoder.onnx").run(None, {"mel": mel[None]})
    for a, b in zip(got, wanted, strict=True):
        rows = (frames + 1) // 2 + whisper_silence.SAMPLED_SILENCE + whisper_silence.EDGE_SILENCE
        assert a.shape == (LAYERS, HEADS, rows, STATE // HEADS)
        np.testing.assert_allclose(a, b, atol=2e-4)


def test_frames_of_zeros_are_silence_as_whisper_normalises_it(weights, checkpoint, converted):
    encoder = session(converted["fp32"] / "encoder.onnx")
    for loudest in (1.0, -0.9):  # the floor is the maximum less 2, but not under -1.5
        mel = np.minimum(mel_of(20), loudest).astype(np.float32)
        padded = np.concatenate([mel, np.zeros((MELS, 10), np.float32)], 1)
        quiet = padded.copy()
        quiet[:, 20:] = max(-1.5, mel.max() - 2)
        for a, b in zip(
            encoder.run(None, {"mel": padded[None]}),
            encoder.run(None, {"mel": quiet[None]}),
            strict=True,
        ):
            np.testing.assert_allclose(a, b, atol=1e-5)


def test_silence_is_what_the_reference_encodes(weights, checkpoint):
    silence = whisper_encoder.encoded_silence(weights)
    wanted = Reference(checkpoint).encode(np.full((MELS, 2 * AUDIO), -1.5))
    assert silence.shape == (AUDIO, STATE)
    np.testing.assert_allclose(silence, wanted, atol=4e-3)  # stored in float16


@pytest.mark.parametrize("frames", [30, 2 * AUDIO - 20])
def test_decoder_steps_equal_the_whole_sequence(weights, checkpoint, converted, frames):
    mel, tokens = mel_of(frames), [257, 265, 40, 7, 99, 200]
    states = Reference(checkpoint).encode(mel)
    wanted = Reference(checkpoint).decode(tokens, *with_silence(weights, states))[2:]
    np.testing.assert_allclose(steps(converted["fp32"], "", mel, tokens), wanted, atol=1e-3)
    rounded = steps(converted["int8"], ".int8", mel, tokens)
    assert 0 < np.abs(rounded - wanted).max() < 0.1 * np.abs(wanted).max()


def test_sampled_silence_stands_for_all_of_it(weights, checkpoint, converted):
    mel, tokens = mel_of(30), [257, 265, 40, 7]
    states = Reference(checkpoint).encode(mel)
    silence = whisper_encoder.encoded_silence(weights)[len(states) :]
    wanted = Reference(checkpoint).decode(tokens, np.concatenate([states, silence]))[2:]
    got = steps(converted["fp32"], "", mel, tokens)
    assert np.abs(got - wanted).max() < 0.01 * np.abs(wanted).max()


def test_balancing_changes_no_product_and_evens_out_an_outlier():
    random = np.random.default_rng(5)
    table = random.standard_normal((50, 8)).astype(np.float32)
    table[:, 3] *= 64.0
    gamma, beta = np.ones(8, np.float32), np.zeros(8, np.float32)
    balance = whisper_decoder.balance_channels(table, gamma, beta)
    assert np.array_equal(balance, np.exp2(np.rint(np.log2(balance))))
    assert balance[3] == balance.min() < balance.max()
    x = random.standard_normal(8).astype(np.float32)
    np.testing.assert_array_equal((x / balance) * (table * balance), x * table)
