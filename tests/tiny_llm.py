"""A language model of two layers that is built by hand and answers two questions.

Its graph is written as optimum traces one (repeated keys, a mask, a cache that is appended to), so
the exporter's rewriting and the engine that runs the result are both tried without torch. The
weights are made, not trained: each token of an answer calls for the next, and attention over the
whole cache tells which question was asked.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from edgevoice import manifest, store
from edgevoice.export import llm_tidy
from edgevoice.export.llm_graph import Heads, fuse_attention
from edgevoice.export.onnx_graph import Graph

Weights = dict[str, NDArray[np.float32]]

ANSWERS = {
    "ĠFrance": ["The", "Ġcapital", "Ġof", "ĠFrance", "Ġis", "ĠParis", "."],
    "Ġweek": ["There", "Ġare", "Ġseven", "Ġdays", "Ġin", "Ġa", "Ġweek", "."],
}
START, END = "<|im_start|>", "<|im_end|>"
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + "
    "message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LAYERS, QUERIES, KEYS, WIDTH = 2, 2, 1, 32
POSITIONS = 1024
HEADS = Heads(QUERIES, KEYS, (-1,) * LAYERS)


def tokenizer() -> Tokenizer:
    """Byte-level BPE whose merges spell the answers' words, two special tokens."""
    vocabulary = {text: i for i, text in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = []
    for word in dict.fromkeys(word for answer in ANSWERS.values() for word in answer):
        for end in range(2, len(word) + 1):
            if word[:end] not in vocabulary:
                vocabulary[word[:end]] = len(vocabulary)
                merges.append((word[: end - 1], word[end - 1]))
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in (START, END)])
    return made


def answering_weights(words: Tokenizer) -> Weights:
    """One dimension a token, and one for each question."""
    vocabulary = words.get_vocab_size()
    hidden = -(-(vocabulary + len(ANSWERS)) // 32) * 32
    made: Weights = {"embed": np.zeros((vocabulary, hidden), np.float32)}
    made["embed"][:, :vocabulary] = np.eye(vocabulary)
    head = np.zeros((hidden, vocabulary), np.float32)
    for number, (key, answer) in enumerate(ANSWERS.items()):
        ids = [words.token_to_id(text) for text in (*answer, END)]
        made["embed"][words.token_to_id(key), vocabulary + number] = 1.0
        head[vocabulary + number, ids[0]] = 10.0
        for one, following in itertools.pairwise(ids):
            head[one, following] = 60.0
    for layer in range(LAYERS):
        for name, columns in (("q", QUERIES * WIDTH), ("k", KEYS * WIDTH)):
            # Nothing to choose by: attention is the mean over all that was read.
            made[f"{layer}.{name}"] = np.zeros((hidden, columns), np.float32)
        value = np.zeros((hidden, KEYS * WIDTH), np.float32)
        out = np.zeros((QUERIES * WIDTH, hidden), np.float32)
        if layer == 0:
            for number in range(len(ANSWERS)):
                value[vocabulary + number, number] = 1.0
                out[number, vocabulary + number] = 20.0
        made[f"{layer}.v"], made[f"{layer}.o"] = value, out
    made["head"] = head
    return made


def random_weights(vocabulary: int = 96, hidden: int = 64, seed: int = 0) -> Weights:
    """Weights that make every part of the graph matter."""
    rng = np.random.default_rng(seed)
    shapes = {"embed": (vocabulary, hidden), "head": (hidden, vocabulary)}
    for layer in range(LAYERS):
        shapes |= {
            f"{layer}.q": (hidden, QUERIES * WIDTH),
            f"{layer}.k": (hidden, KEYS * WIDTH),
            f"{layer}.v": (hidden, KEYS * WIDTH),
            f"{layer}.o": (QUERIES * WIDTH, hidden),
        }
    return {
        name: (rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32) * 2
        for name, shape in shapes.items()
    }


def traced(weights: Weights) -> onnx.ModelProto:
    """Return the graph as optimum writes it, after onnxruntime's optimisation."""
    graph = Graph("traced")
    vocabulary = weights["embed"].shape[0]
    ids = graph.input("input_ids", np.int64, ["batch", "new"])
    positions = graph.input("position_ids", np.int64, ["batch", "new"])
    mask = graph.input("mask", np.float32, ["new", "total"])
    caches = [
        tuple(
            graph.input(f"past_key_values.{n}.{kind}", np.float32, ["batch", KEYS, "past", WIDTH])
            for kind in ("key", "value")
        )
        for n in range(LAYERS)
    ]
    cosines, sines = _angles(graph, positions)
    x = graph.op("Gather", graph.weight("embed", weights["embed"]), ids, axis=0)
    for layer, cache in enumerate(caches):
        turned = {}
        for name in ("q", "k", "v"):
            product = graph.op(
                "MatMul", x, graph.weight(f"{layer}.{name}", weights[f"{layer}.{name}"])
            )
            parted = graph.op("Reshape", product, graph.constant([0, 0, -1, WIDTH]))
            turned[name] = graph.op("Transpose", parted, perm=[0, 2, 1, 3])
        query = _rotated(graph, turned["q"], cosines, sines)
        key = _rotated(graph, turned["k"], cosines, sines)
        shape = ["batch", KEYS, "total", WIDTH]
        for kind, old, new in zip(("key", "value"), cache, (key, turned["v"]), strict=True):
            name = f"present.{layer}.{kind}"
            graph.nodes.append(
                onnx.helper.make_node("Concat", [old, new], [name], name=name, axis=-2)
            )
            graph.outputs.append(
                onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
            )
        keys, values = (_repeated(graph, f"present.{layer}.{k}") for k in ("key", "value"))
        scores = graph.op(
            "com.microsoft:FusedMatMul", query, keys, transB=1, alpha=float(WIDTH**-0.5)
        )
        shares = graph.op("Softmax", graph.op("Add", scores, mask), axis=-1)
        heads = graph.op("Transpose", graph.op("MatMul", shares, values), perm=[0, 2, 1, 3])
        joined = graph.op("Reshape", heads, graph.constant([0, 0, -1]))
        out = graph.op("MatMul", joined, graph.weight(f"{layer}.o", weights[f"{layer}.o"]))
        x = graph.op("Add", x, out)
    head = graph.weight("head", weights["head"])
    graph.nodes.append(onnx.helper.make_node("MatMul", [x, head], ["logits"], name="/head/MatMul"))
    graph.outputs.append(
        onnx.helper.make_tensor_value_info(
            "logits", onnx.TensorProto.FLOAT, ["batch", "new", vocabulary]
        )
    )
    return graph.model({})


def fused(weights: Weights) -> onnx.ModelProto:
    """Return the graph that the engine runs."""
    model = traced(weights)
    fuse_attention(model, HEADS, POSITIONS)
    return model


def publish_answering(folder: Path) -> Path:
    """Write the artifact that answers two questions."""
    words = tokenizer()
    return publish(fused(answering_weights(words)), words, folder)


def publish(model: onnx.ModelProto, words: Tokenizer, folder: Path, **engine: Any) -> Path:
    """Write an artifact that the runtime loads."""
    folder.mkdir(parents=True, exist_ok=True)
    llm_tidy.save(model, folder / "model.onnx")
    words.save(str(folder / "tokenizer.json"))
    known = {
        "chat_template": TEMPLATE,
        "end_tokens": [words.token_to_id(END)],
        "context_tokens": POSITIONS,
        "bos_token": START,
        "eos_token": END,
    }
    described = manifest.Manifest(
        folder.name, "language-model", "onnx-llm", "onnx", "fp32", "CC0-1.0", "tests",
        store.describe(folder), {**known, **engine},
    )  # fmt: skip
    manifest.write(described, folder)
    return folder


def _angles(graph: Graph, positions: str) -> Sequence[str]:
    frequencies = (1e4 ** (-np.arange(0, WIDTH, 2) / WIDTH)).astype(np.float32)
    place = graph.op("Cast", graph.op("Unsqueeze", positions, graph.constant([2])), to=1)
    angles = graph.op("Mul", place, graph.weight("frequencies", frequencies[None, None]))
    both = graph.op("Unsqueeze", graph.op("Concat", angles, angles, axis=-1), graph.constant([1]))
    return graph.op("Cos", both), graph.op("Sin", both)


def _rotated(graph: Graph, x: str, cosines: str, sines: str) -> str:
    half, end = graph.constant([WIDTH // 2]), graph.constant([WIDTH])
    axis = graph.constant([3])
    late = graph.op("Neg", graph.op("Slice", x, half, end, axis))
    early = graph.op("Slice", x, graph.constant([0]), half, axis)
    halves = graph.op("Concat", late, early, axis=-1)
    return graph.op("Add", graph.op("Mul", x, cosines), graph.op("Mul", halves, sines))


def _repeated(graph: Graph, cache: str) -> str:
    wide = graph.op("Unsqueeze", cache, graph.constant([2]))
    times = graph.op("Expand", wide, graph.constant([1, KEYS, QUERIES // KEYS, 1, WIDTH]))
    return graph.op("Reshape", times, graph.constant([0, QUERIES, -1, WIDTH]))
