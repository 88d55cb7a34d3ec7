"""The streaming graph of a trained recogniser: WeNet's layout, as sherpa-onnx runs it.

Built node by node from the trained tensors, without torch. One run takes a chunk of features and
the keys and values of the frames before it; the mask is made here from `offset` (sherpa-onnx's own
says the same). Owns the layout, whose order of tensors matters and whose names do not:

    chunk f32 [1, 2 C + 3, 80], offset i64 [1] (begins at the size of the cache),
    required_cache_size i64 [1], attn_cache f32 [layers, heads, L, 2 width / heads] (keys and
    values side by side), conv_cache f32 [layers, 1, width, 1] (unused),
    attn_mask bool [1, 1, L + C]
    -> log_probs f32 [1, C, tokens], the next attn_cache, the next conv_cache
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgevoice.errors import ArtifactError
from edgevoice.export.distil.alphabet import Alphabet
from edgevoice.export.distil.fbank import BANDS, FLOOR
from edgevoice.export.distil.plan import Shape

OPSET = 20  # the first with Gelu
MODEL, TOKENS = "model.onnx", "tokens.txt"
_HIDDEN = -1e4
"""Added to the scores of frames that are not there."""


def write(
    tensors: Mapping[str, NDArray[np.float32]], shape: Shape, folder: Path, comment: str
) -> None:
    """Write `model.onnx` and `tokens.txt` into ``folder``.

    Args:
        tensors: By the names of :mod:`edgevoice.export.distil.model`.
        shape: What they are of.
        folder: Is there.
        comment: One line for the metadata: what this is and under what licence.

    Raises:
        ArtifactError: A tensor is missing, or of another shape than ``shape`` says, or not finite.
    """
    model = _Graph(tensors, shape).build()
    facts = {
        "model_type": "wenet_ctc",
        "head": shape.heads,
        "num_blocks": shape.layers,
        "output_size": shape.width,
        "cnn_module_kernel": 2,
        "right_context": 4,
        "subsampling_factor": 2,
        "vocab_size": len(shape.tokens),
        "chunk_size": shape.chunk,
        "left_chunks": shape.left // shape.chunk,
        "comment": comment,
    }
    helper.set_model_props(model, {key: str(value) for key, value in facts.items()})
    onnx.checker.check_model(model)
    (folder / MODEL).write_bytes(model.SerializeToString(deterministic=True))
    (folder / TOKENS).write_text(Alphabet(shape.tokens).file(), encoding="utf-8")


class _Graph:
    def __init__(self, tensors: Mapping[str, NDArray[np.float32]], shape: Shape) -> None:
        self._tensors, self._shape = tensors, shape
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, NDArray[np.generic]] = {}

    def build(self) -> onnx.ModelProto:
        shape = self._shape
        chunk, left, width = shape.chunk, shape.left, shape.width
        x = self._front()
        hidden = self._hidden()
        caches = []
        self._constant("layer_sizes", np.ones(shape.layers, np.int64))
        if shape.layers > 1:
            names = [f"cache_{layer}" for layer in range(shape.layers)]
            self._nodes.append(
                helper.make_node("Split", ["attn_cache", "layer_sizes"], names, axis=0)
            )
        else:
            names = ["attn_cache"]
        for layer, cache in enumerate(names):
            x, kept = self._layer(x, f"layers.{layer}", cache, hidden)
            caches.append(kept)
        x = self._norm(x, "norm")
        x = self._linear(x, "head", width, len(shape.tokens))
        self._add("LogSoftmax", [x], "log_probs", axis=-1)
        self._add("Concat", caches, "next_attn_cache", axis=0)
        self._add("Identity", ["conv_cache"], "next_conv_cache")
        attention = [shape.layers, shape.heads, left, 2 * width // shape.heads]
        convolution = [shape.layers, 1, width, 1]
        inputs = [
            ("chunk", TensorProto.FLOAT, [1, 2 * chunk + 3, BANDS]),
            ("offset", TensorProto.INT64, [1]),
            ("required_cache_size", TensorProto.INT64, [1]),
            ("attn_cache", TensorProto.FLOAT, attention),
            ("conv_cache", TensorProto.FLOAT, convolution),
            ("attn_mask", TensorProto.BOOL, [1, 1, left + chunk]),
        ]
        outputs = [
            ("log_probs", TensorProto.FLOAT, [1, chunk, len(shape.tokens)]),
            ("next_attn_cache", TensorProto.FLOAT, attention),
            ("next_conv_cache", TensorProto.FLOAT, convolution),
        ]
        graph = helper.make_graph(
            self._nodes,
            "streaming-ctc",
            [helper.make_tensor_value_info(*i) for i in inputs],
            [helper.make_tensor_value_info(*o) for o in outputs],
            [numpy_helper.from_array(value, name) for name, value in self._constants.items()],
        )
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10
        )

    def _front(self) -> str:
        """Return the chunk behind the convolutions, its positions added: [1, C, width]."""
        shape = self._shape
        self._constant("floor", np.array(FLOOR, np.float32))
        self._add("Max", ["chunk", "floor"], "raised")
        self._add("Sub", ["raised", self._tensor("mean", (BANDS,))], "centred")
        self._add("Transpose", ["centred"], "bands", perm=[0, 2, 1])
        heard = "bands"
        for name, inputs, stride in (("conv1", BANDS, 1), ("conv2", shape.width, 2)):
            weight = self._tensor(f"{name}.weight", (shape.width, inputs, 3))
            bias = self._tensor(f"{name}.bias", (shape.width,))
            self._add("Conv", [heard, weight, bias], f"{name}_sum", strides=[stride])
            heard = self._add("Gelu", [f"{name}_sum"], f"{name}_out")
        self._add("Transpose", [heard], "frames", perm=[0, 2, 1])
        # Frames before this chunk: the offset begins at the size of the cache.
        self._add("Sub", ["offset", "required_cache_size"], "done")
        self._constant("within", np.arange(shape.chunk, dtype=np.int64))
        self._constant("period", np.array([shape.positions], np.int64))
        self._add("Add", ["done", "within"], "at")
        self._add("Mod", ["at", "period"], "position")
        table = self._tensor("positions", (shape.positions, shape.width))
        self._add("Gather", [table, "position"], "placed", axis=0)
        return self._add("Add", ["frames", "placed"], "x")

    def _hidden(self) -> str:
        """Return what is added to the scores of frames before the first: [1, 1, 1, L + C]."""
        shape = self._shape
        self._constant("relative", np.arange(-shape.left, shape.chunk, dtype=np.int64))
        self._constant("zero", np.array(0, np.int64))
        self._constant("shown", np.array(0.0, np.float32))
        self._constant("hidden", np.array(_HIDDEN, np.float32))
        self._constant("row", np.array([1, 1, 1, shape.left + shape.chunk], np.int64))
        self._add("Add", ["done", "relative"], "key_frame")
        self._add("Less", ["key_frame", "zero"], "missing")
        # sherpa-onnx's mask says nothing else, but an input that leads nowhere is dropped by tools.
        self._add("Not", ["attn_mask"], "not_masked")
        self._add("And", ["attn_mask", "not_masked"], "never")
        self._add("Or", ["missing", "never"], "absent")
        self._add("Where", ["absent", "hidden", "shown"], "penalty")
        return self._add("Reshape", ["penalty", "row"], "penalties")

    def _layer(self, x: str, name: str, cache: str, hidden: str) -> tuple[str, str]:
        """Return the layer's output and its next cache."""
        shape = self._shape
        width, heads, size = shape.width, shape.heads, shape.width // shape.heads
        normed = self._norm(x, f"{name}.ln1")
        joined = self._linear(normed, f"{name}.qkv", width, 3 * width)
        self._constant("thirds", np.full(3, width, np.int64))
        parts = [f"{name}/{part}" for part in ("q", "k", "v")]
        self._nodes.append(helper.make_node("Split", [joined, "thirds"], parts, axis=-1))
        self._constant("split_heads", np.array([1, shape.chunk, heads, size], np.int64))
        split = []
        for part in parts:
            self._add("Reshape", [part, "split_heads"], f"{part}/split")
            split.append(
                self._add("Transpose", [f"{part}/split"], f"{part}/heads", perm=[0, 2, 1, 3])
            )
        fresh = self._add("Concat", split[1:], f"{name}/kv", axis=-1)
        both = self._add("Concat", [cache, fresh], f"{name}/both", axis=2)
        self._constant("from_chunk", np.array([shape.chunk], np.int64))
        self._constant("to_end", np.array([shape.left + shape.chunk], np.int64))
        self._constant("frame_axis", np.array([2], np.int64))
        kept = self._add(
            "Slice", [both, "from_chunk", "to_end", "frame_axis"], f"{name}/next_cache"
        )
        self._constant("halves", np.full(2, size, np.int64))
        key, value = f"{name}/key", f"{name}/value"
        self._nodes.append(helper.make_node("Split", [both, "halves"], [key, value], axis=-1))
        self._constant("scale", np.array(size**-0.5, np.float32))
        query = self._add("Mul", [split[0], "scale"], f"{name}/query")
        turned = self._add("Transpose", [key], f"{name}/key_turned", perm=[0, 1, 3, 2])
        scores = self._add("MatMul", [query, turned], f"{name}/scores")
        seen = self._add("Add", [scores, hidden], f"{name}/seen")
        shares = self._add("Softmax", [seen], f"{name}/shares", axis=-1)
        mixed = self._add("MatMul", [shares, value], f"{name}/mixed")
        back = self._add("Transpose", [mixed], f"{name}/mixed_turned", perm=[0, 2, 1, 3])
        self._constant("join_heads", np.array([1, shape.chunk, width], np.int64))
        flat = self._add("Reshape", [back, "join_heads"], f"{name}/flat")
        out = self._linear(flat, f"{name}.out", width, width)
        x = self._add("Add", [x, out], f"{name}/attended")
        inner = self._linear(self._norm(x, f"{name}.ln2"), f"{name}.fc1", width, 4 * width)
        curved = self._add("Gelu", [inner], f"{name}/gelu")
        outer = self._linear(curved, f"{name}.fc2", 4 * width, width)
        return self._add("Add", [x, outer], f"{name}/output"), kept

    def _norm(self, x: str, name: str) -> str:
        weight = self._tensor(f"{name}.weight", (self._shape.width,))
        bias = self._tensor(f"{name}.bias", (self._shape.width,))
        return self._add(
            "LayerNormalization", [x, weight, bias], f"{name}/normed", axis=-1, epsilon=1e-5
        )

    def _linear(self, x: str, name: str, inputs: int, outputs: int) -> str:
        # A product takes [in, out]; the tensor keeps its name for the recipes of quantisation.
        self._tensor(f"{name}.weight", (outputs, inputs))
        stored = np.ascontiguousarray(self._constants[f"{name}.weight"].T)
        self._constants[f"{name}.weight"] = stored
        product = self._add("MatMul", [x, f"{name}.weight"], f"{name}/product")
        return self._add("Add", [product, self._tensor(f"{name}.bias", (outputs,))], f"{name}/sum")

    def _tensor(self, name: str, wanted: Sequence[int]) -> str:
        found = self._tensors.get(name)
        if found is None or found.shape != tuple(wanted):
            has = "missing" if found is None else f"of shape {found.shape}"
            raise ArtifactError(f"tensor {name!r} is {has}; {tuple(wanted)} was expected")
        if not np.isfinite(found).all():
            raise ArtifactError(f"tensor {name!r} has values that are not finite")
        self._constants[name] = np.ascontiguousarray(found, np.float32)
        return name

    def _constant(self, name: str, value: NDArray[np.generic]) -> None:
        self._constants.setdefault(name, value)

    def _add(self, kind: str, inputs: Sequence[str], output: str, **attributes: object) -> str:
        self._nodes.append(
            helper.make_node(kind, list(inputs), [output], name=f"/{output}", **attributes)
        )
        return output
