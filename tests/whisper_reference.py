"""Whisper in plain numpy, and how tests run the graphs that have to equal it."""

from math import erf

import numpy as np
import onnxruntime
from ctranslate2_file import AUDIO, HEADS, LAYERS, MELS, STATE, TEXT, small_vocabulary

from edgevoice.export.families import whisper_encoder, whisper_silence
from edgevoice.export.prepare import prepare


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


def convert(source, folder):
    """Return the folder of each scheme's artifact, made of ``source``."""
    folders = {scheme: folder / scheme for scheme in ("fp32", "int8")}
    for scheme, made in folders.items():
        made.mkdir()
        prepare("whisper", source, made, {"scheme": scheme})
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
        assert logits.shape == (1, len(chunk), len(small_vocabulary()))
        rows.append(logits[0, -1])
    return np.array(rows)
