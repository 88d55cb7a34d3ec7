"""The Whisper graphs against a plain numpy forward pass, and the real bundle in sherpa-onnx."""

import base64
import wave
from math import erf
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import sherpa_onnx
from ctranslate2_file import (
    AUDIO,
    HEADS,
    LAYERS,
    MELS,
    STATE,
    TEXT,
    small_vocabulary,
    write_small_whisper,
)

from edgevoice import manifest
from edgevoice.errors import ArtifactError, ConfigError
from edgevoice.export.calibration import Calibration
from edgevoice.export.families import (
    whisper,
    whisper_ctranslate2,
    whisper_decoder,
    whisper_encoder,
    whisper_silence,
    whisper_vocabulary,
)
from edgevoice.export.families.whisper_weights import Sizes
from edgevoice.export.family import Job
from edgevoice.export.prepare import prepare
from edgevoice.quant.scheme import find

LIBRIVOX = Path("/usr/share/pocketsphinx/test/data/librivox")
# What the fp32 graphs write with 30 s of padding.
FLOAT_TEXT = {
    "0870": "And Mr. John Dashwood had then leisure to consider how much there might be prudently "
    "in his power to do for them.",
    "0880": "He was not an old-sposed young man.",
    "0890": "Unless to be rather cold-hearted and rather selfish is to be ill-disposed.",
    "0920": "Had he married a more amiable woman, he might have been made still more respectable "
    "than he was.",
    "0930": "He might even have been made amiable himself.",
}


class Reference:
    """Whisper as openai/whisper's model.py has it, for one sequence, in float64."""

    def __init__(self, checkpoint):
        self.checkpoint = checkpoint

    def __getitem__(self, name):
        return self.checkpoint.floats(name).astype(np.float64)

    def linear(self, x, name):
        return x @ self[f"{name}/weight"].T + self[f"{name}/bias"]

    def norm(self, x, name):
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return scaled * self[f"{name}/gamma"] + self[f"{name}/beta"]

    @staticmethod
    def gelu(x):
        return 0.5 * x * (1 + np.vectorize(erf)(x / np.sqrt(2)))

    @staticmethod
    def attend(q, k, v, causal=False, bias=0.0):
        outputs = []
        size = q.shape[1] // HEADS
        for head in range(HEADS):
            part = slice(head * size, (head + 1) * size)
            scores = q[:, part] @ k[:, part].T / np.sqrt(size) + bias
            if causal:
                scores = np.where(np.tri(*scores.shape, dtype=bool), scores, -np.inf)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            outputs.append(weights / weights.sum(-1, keepdims=True) @ v[:, part])
        return np.concatenate(outputs, axis=1)

    def convolve(self, x, name, stride):
        weight = self[f"{name}/weight"]
        padded = np.pad(x, ((0, 0), (1, 1)))
        columns = range(0, x.shape[1], stride)
        out = np.stack([np.tensordot(weight, padded[:, t : t + 3], 2) for t in columns], 1)
        return self.gelu(out + self[f"{name}/bias"][:, None])

    def feed_forward(self, x, name):
        hidden = self.gelu(self.linear(self.norm(x, f"{name}/layer_norm"), f"{name}/linear_0"))
        return x + self.linear(hidden, f"{name}/linear_1")

    def self_attention(self, x, name, causal):
        qkv = self.linear(self.norm(x, f"{name}/layer_norm"), f"{name}/linear_0")
        return x + self.linear(self.attend(*np.split(qkv, 3, 1), causal), f"{name}/linear_1")

    def encode(self, mel):
        x = self.convolve(self.convolve(mel, "encoder/conv1", 1), "encoder/conv2", 2).T
        x = x + self["encoder/position_encodings/encodings"][: len(x)]
        for i in range(LAYERS):
            x = self.self_attention(x, f"encoder/layer_{i}/self_attention", causal=False)
            x = self.feed_forward(x, f"encoder/layer_{i}/ffn")
        return self.norm(x, "encoder/layer_norm")

    def decode(self, tokens, audio, bias=0.0):
        table = self["decoder/embeddings/weight"]
        x = table[tokens] + self["decoder/position_encodings/encodings"][: len(tokens)]
        for i in range(LAYERS):
            layer = f"decoder/layer_{i}"
            x = self.self_attention(x, f"{layer}/self_attention", causal=True)
            name = f"{layer}/attention"
            q = self.linear(self.norm(x, f"{name}/layer_norm"), f"{name}/linear_0")
            k, v = np.split(self.linear(audio, f"{name}/linear_1"), 2, 1)
            x = x + self.linear(self.attend(q, k, v, bias=bias), f"{name}/linear_2")
            x = self.feed_forward(x, f"{layer}/ffn")
        return self.norm(x, "decoder/layer_norm") @ table.T


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
    folders = {scheme: tmp_path_factory.mktemp(scheme) for scheme in ("fp32", "int8")}
    for scheme, folder in folders.items():
        prepare("whisper", source, folder, {"scheme": scheme})
    return folders


def session(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def mel_of(frames, seed=0):
    return np.random.default_rng(seed).uniform(-1.4, 1.0, (MELS, frames)).astype(np.float32)


def cross_attention(checkpoint, states):
    reference = Reference(checkpoint)
    parts = [
        np.split(reference.linear(states, f"decoder/layer_{i}/attention/linear_1"), 2, 1)
        for i in range(LAYERS)
    ]
    heads = (-1, HEADS, STATE // HEADS)
    return [np.stack([p[n].reshape(heads).swapaxes(0, 1) for p in parts]) for n in range(2)]


def with_silence(weights, heard):
    """What the decoder attends to behind ``heard``, and the logarithm of what each row counts."""
    silence = whisper_encoder.encoded_silence(weights)
    sampled, edge = whisper_silence.SAMPLED_SILENCE, AUDIO - whisper_silence.EDGE_SILENCE
    span = max(edge - len(heard), 0)
    steps = [(2 * i + 1) * span // (2 * sampled) for i in range(sampled)]
    rows = [min(len(heard) + step, edge - 1) for step in steps]
    counts = [1.0] * len(heard) + [max(span, 1e-9) / sampled] * sampled
    counts += [float(row >= len(heard)) for row in range(edge, AUDIO)]
    states = np.concatenate([heard, silence[rows], silence[edge:]])
    return states, np.log(np.maximum(counts, 1e-12))


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


def steps(folder, suffix, mel, tokens):
    """Logits of the last token after the first three, then after each of the others."""
    keys, values = session(folder / f"encoder{suffix}.onnx").run(None, {"mel": mel[None]})
    decoder = session(folder / f"decoder{suffix}.onnx")
    caches = [np.zeros((LAYERS, 1, TEXT, STATE), np.float32)] * 2  # as sherpa-onnx starts
    rows, done = [], 0
    for chunk in (tokens[:3], *([t] for t in tokens[3:])):
        inputs = [np.array([chunk]), *caches, keys, values, np.array([done])]
        names = [i.name for i in decoder.get_inputs()]
        logits, *caches = decoder.run(None, dict(zip(names, inputs, strict=True)))
        done += len(chunk)
        assert caches[0].shape == (LAYERS, HEADS, done, STATE // HEADS)
        assert logits.shape == (1, 1, len(small_vocabulary()))
        rows.append(logits[0, 0])
    return np.array(rows)


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


def test_graphs_are_valid_and_the_same_input_gives_the_same_bytes(source, converted, tmp_path):
    prepare("whisper", source, tmp_path, {"scheme": "int8"})
    written = sorted(p.name for p in tmp_path.iterdir())
    assert written == ["decoder.int8.onnx", "encoder.int8.onnx", "tokens.txt"]
    for name in written:
        assert (tmp_path / name).read_bytes() == (converted["int8"] / name).read_bytes()
    onnx.checker.check_model(str(converted["fp32"] / "encoder.onnx"), full_check=True)


def test_metadata_of_an_english_model(converted):
    model = onnx.load(str(converted["int8"] / "encoder.int8.onnx"))
    found = {p.key: p.value for p in model.metadata_props}
    assert found["sot_sequence"] == found["sot"] == "257"
    assert (found["eot"], found["is_multilingual"], found["blank_id"]) == ("256", "0", "220")
    assert (found["n_mels"], found["n_text_ctx"], found["n_text_state"]) == ("80", "64", "64")


def test_metadata_of_a_multilingual_model():
    codes = ["en", "zh", "de"]
    special = ["endoftext", "startoftranscript", *codes, "translate", "transcribe", "nospeech"]
    vocabulary = ["Ġ", *(f"<|{s}|>" for s in [*special, "notimestamps"])]
    size = Sizes(128, 1500, 1280, 20, 32, 51866, 448, 1280, 20, 4)
    found = whisper_vocabulary.metadata(size, vocabulary)
    assert found["sot_sequence"] == "2,3,7"
    assert found["all_language_codes"] == "en,zh,de"
    assert found["all_language_tokens"] == "3,4,5"
    assert (found["is_multilingual"], found["n_mels"], found["no_speech"]) == (1, 128, 8)


def test_tokens_are_bytes_in_base64(converted):
    lines = (converted["int8"] / "tokens.txt").read_text().splitlines()
    pairs = [line.split(" ") for line in lines]
    assert {base64.b64decode(token) for token, _ in pairs} == {bytes([b]) for b in range(256)}
    assert [int(i) for _, i in pairs] == list(range(256))


@pytest.mark.parametrize(("scheme", "off"), [("fp16", 0.01), ("int8-weights", 0.05), ("int4", 0.4)])
def test_the_exporter_and_pull_write_the_same_bytes(source, converted, tmp_path, scheme, off):
    pulled, exported = tmp_path / "pulled", tmp_path / "exported"
    pulled.mkdir()
    exported.mkdir()
    prepare("whisper", source, pulled, {"scheme": scheme})
    family = whisper.FAMILY
    job = Job(tmp_path, Calibration())
    done = family.quantise(converted["fp32"], find(scheme), family.recipe(scheme), exported, job)
    names = {p.name for p in pulled.iterdir()}
    assert names == {f"encoder.{scheme}.onnx", f"decoder.{scheme}.onnx", "tokens.txt"}
    assert all((pulled / n).read_bytes() == (exported / n).read_bytes() for n in names)
    recorded = {c.name: c.type for c in done.tensors}
    table = f"decoder.{scheme}.onnx:decoder/embeddings"
    kinds = {"fp16": ("_half", "float16"), "int8-weights": ("", "int8"), "int4": ("", "int4")}
    suffix, kind = kinds[scheme]
    assert recorded[table + suffix] == kind
    mel, tokens = mel_of(30), [257, 265, 40, 7, 99, 200]
    wanted = steps(converted["fp32"], "", mel, tokens)
    got = steps(exported, f".{scheme}", mel, tokens)
    difference = np.abs(got - wanted).max()
    assert difference < off * np.abs(wanted).max()
    assert (difference == 0) == (scheme == "fp16")  # the source's weights are float16


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"decoder/activation": np.int8(0)}, "activation 0"),
        ({"encoder/num_heads": np.int16(7)}, "64 channels do not make 7 heads"),
        ({"encoder/conv1/weight": np.zeros((2, 2), np.float16)}, "rank 2, not 3"),
        (
            {"decoder/embeddings/weight": np.zeros((9, STATE), np.float16)},
            "266 tokens, model.bin 9",
        ),
    ],
)
def test_a_source_that_is_not_such_a_model(tmp_path, changed, message):
    write_small_whisper(tmp_path, **changed)
    with pytest.raises(ArtifactError, match=message):
        prepare("whisper", tmp_path, tmp_path, {})


def test_options_and_kinds_that_are_not_known(source, tmp_path):
    with pytest.raises(ConfigError, match="unknown conversion 'wisper'; did you mean 'whisper'"):
        prepare("wisper", source, tmp_path, {})
    with pytest.raises(ConfigError, match=r"'int5'.*known: fp16, fp32, int4"):
        prepare("whisper", source, tmp_path, {"scheme": "int5"})
    with pytest.raises(ConfigError, match="'schema'; did you mean 'scheme'"):
        prepare("whisper", source, tmp_path, {"schema": "int8"})


@pytest.mark.bundle
def test_int8_writes_the_text_of_the_float_weights(artifact):
    folder = artifact("whisper-tiny.en-int8")
    described = manifest.read(folder)
    recogniser = sherpa_onnx.OfflineRecognizer.from_whisper(
        encoder=str(folder / described.file("encoder.int8.onnx").path),
        decoder=str(folder / described.file("decoder.int8.onnx").path),
        tokens=str(folder / described.file("tokens.txt").path),
        tail_paddings=described.engine["tail_paddings"],
    )
    for clip, text in FLOAT_TEXT.items():
        with wave.open(str(LIBRIVOX / f"sense_and_sensibility_01_austen_64kb-{clip}.wav")) as file:
            samples = np.frombuffer(file.readframes(-1), np.int16) / np.float32(32768)
        stream = recogniser.create_stream()
        stream.accept_waveform(16_000, samples)
        recogniser.decode_stream(stream)
        assert stream.result.text.strip() == text
