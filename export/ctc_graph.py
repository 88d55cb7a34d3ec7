"""Turns a traced CTC graph into what sherpa-onnx's recogniser of raw sound takes.

That is ``from_omnilingual_asr_ctc`` (`offline-omnilingual-asr-ctc-model.cc` and
`offline-recognizer-ctc-impl.h`, release 2.0): one input [1, samples], scores [1, frames, tokens],
no metadata; the number of tokens is read from the output's shape, the blank is the token ``<blk>``.
It normalises every utterance itself, to a variance that is 1 but for 1e-5 under the root, and
writes each token that is not the blank.

Owns the nodes that are put before and behind the graph, the tokens file, and the comparison with
torch. Which graph that is, and quantising it, is :mod:`edgevoice.export.families.hf_ctc`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgevoice.errors import ArtifactError, ExportError

BLANK = "<blk>"
SAMPLES, SCORES = "samples", "scores"
# transformers' Wav2Vec2FeatureExtractor, and sherpa-onnx, under the root.
_EXTRACTOR_EPSILON = 1e-7
_SHERPA_EPSILON = 1e-5
# Behind the convolutions (400 samples for the first frame) some models halve the frames, and a
# convolution without input ends in an error of onnxruntime's.
_LEAST_SAMPLES = 1600
_NEVER = -1e9


@dataclass(frozen=True, slots=True)
class Tokens:
    """What the scores stand for.

    Attributes:
        symbols: As they are written, " " between words, :data:`BLANK` for the blank.
        blank: Its number.
        silent: Numbers of those that are never written: begin, end, unknown, unused.
    """

    symbols: tuple[str, ...]
    blank: int
    silent: tuple[int, ...]

    @classmethod
    def of(cls, facts: Mapping[str, Any], source: Path) -> Tokens:
        """Read what :mod:`edgevoice.export.optimum_ctc` wrote.

        Raises:
            ArtifactError: There is no blank, or a token cannot stand in a tokens file.
        """
        found: list[str] = list(facts["tokens"])
        blank = facts["blank"]
        if blank is None or not 0 <= blank < len(found):
            raise ArtifactError(
                f"{source}: its tokenizer names no padding token, which is the blank of CTC; add "
                "pad_token to tokenizer_config.json"
            )
        silent = {i for i in facts["special"] if i < len(found)}
        silent |= {i for i, token in enumerate(found) if not token}
        silent -= {blank} | {i for i, token in enumerate(found) if token == facts["delimiter"]}
        symbols = [t.lower() if facts["lower_case"] else t for t in found]
        for i, symbol in enumerate(symbols):
            if i == blank:
                symbols[i] = BLANK
            elif i in silent:
                symbols[i] = f"<silent_{i}>"
            elif found[i] == facts["delimiter"]:
                symbols[i] = " "
            elif symbol != " " and (not symbol.strip() or symbol != "".join(symbol.split())):
                raise ArtifactError(f"{source}: token {i}, {symbol!r}, has white space in it")
        return cls(tuple(symbols), blank, tuple(sorted(silent)))

    def write(self, path: Path) -> None:
        """Write sherpa-onnx's tokens file; a line with a number alone is the space."""
        lines = (f"{symbol.strip()} {i}".lstrip() for i, symbol in enumerate(self.symbols))
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def adapt(model: onnx.ModelProto, tokens: Tokens, normalised: bool) -> None:
    """Rewrite ``model`` in place: opset 18 or later, one input, scores in its first output.

    Args:
        model: As traced, ``[n, samples]`` to ``[n, frames, tokens]``.
        tokens: What its scores stand for.
        normalised: Whether the checkpoint's feature extractor normalises utterances; then the graph
            does so again, since sherpa-onnx's leaves quiet ones too small.

    Raises:
        ExportError: It has another number of scores than tokens.
    """
    graph = model.graph
    given, scores = graph.input[0].name, graph.output[0].name
    last = graph.output[0].type.tensor_type.shape.dim[-1].dim_value
    if last != len(tokens.symbols):
        raise ExportError(f"the graph gives {last} scores for {len(tokens.symbols)} tokens")
    before = _Nodes("in")
    sound = before.normalise(SAMPLES) if normalised else SAMPLES
    before.lengthen(sound, given)
    behind = _Nodes("out")
    behind.silence(scores, tokens)
    nodes = [*before.nodes, *graph.node, *behind.nodes]
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*before.constants, *behind.constants])
    graph.input.append(helper.make_tensor_value_info(SAMPLES, TensorProto.FLOAT, [1, "samples"]))
    graph.output.append(
        helper.make_tensor_value_info(SCORES, TensorProto.FLOAT, [1, "frames", last])
    )


def distance(path: Path, check: Path, tokens: Tokens, threads: int) -> float:
    """Return how far the graph's scores are from torch's, in units of their spread.

    The graph is given what sherpa-onnx gives it.

    Raises:
        ExportError: It does not run.
    """
    with np.load(check) as stored:
        sound, logits = np.asarray(stored["sound"]), np.array(stored["logits"])
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    root = np.sqrt(sound.var() + np.float32(_SHERPA_EPSILON))
    normal = ((sound - sound.mean()) / root).astype(np.float32)
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        scores = session.run([SCORES], {SAMPLES: normal[None]})[0][0]
    except Exception as error:  # onnxruntime's own classes derive from Exception alone
        reason = str(error).replace("\n", " ")[:200]
        raise ExportError(f"the rewritten graph does not run: {reason}") from error
    spread = max(float(logits.std()), 1e-6)
    heard = [i for i in range(len(tokens.symbols)) if i not in tokens.silent]
    logits[:, tokens.blank] = logits[:, [tokens.blank, *tokens.silent]].max(axis=1)
    if scores.shape != logits.shape:
        raise ExportError(f"the rewritten graph gives {scores.shape}, torch {logits.shape}")
    return float(np.abs(scores - logits)[:, heard].max() / spread)


class _Nodes:
    """Nodes in the order in which they run, with their constants."""

    def __init__(self, prefix: str) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._prefix = f"edgevoice_{prefix}"

    def normalise(self, value: str) -> str:
        """Take the mean of the utterance away and divide by its deviation."""
        centred = self._op("Sub", value, self._op("ReduceMean", value, self._ints(1)))
        power = self._op("ReduceMean", self._op("Mul", centred, centred), self._ints(1))
        epsilon = self._constant(np.array(_EXTRACTOR_EPSILON, np.float32))
        return self._op("Div", centred, self._op("Sqrt", self._op("Add", power, epsilon)))

    def lengthen(self, value: str, out: str) -> None:
        """Put silence behind what is too short for one frame."""
        length = self._op("Slice", self._op("Shape", value), self._ints(1), self._ints(2))
        missing = self._op("Sub", self._ints(_LEAST_SAMPLES), length)
        more = self._op("Max", missing, self._ints(0))
        pads = self._op("Concat", self._ints(0, 0, 0), more, axis=0)
        self._op("Pad", value, pads, name=out)

    def silence(self, scores: str, tokens: Tokens) -> None:
        """Make the blank of every token that is never written."""
        if not tokens.silent:
            self._op("Identity", scores, name=SCORES)
            return
        nothing = self._op("Gather", scores, self._ints(tokens.blank, *tokens.silent), axis=2)
        largest = self._op("ReduceMax", nothing, self._ints(2))
        is_blank = np.arange(len(tokens.symbols)) == tokens.blank
        is_silent = np.isin(np.arange(len(tokens.symbols)), tokens.silent)
        never = self._constant(np.array(_NEVER, np.float32))
        heard = self._op("Where", self._constant(is_silent), never, scores)
        self._op("Where", self._constant(is_blank), largest, heard, name=SCORES)

    def _op(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        label = f"{self._prefix}_{kind}_{len(self.nodes)}"
        made = name or label
        self.nodes.append(helper.make_node(kind, list(inputs), [made], name=label, **attributes))
        return made

    def _ints(self, *numbers: int) -> str:
        return self._constant(np.array(numbers, np.int64))

    def _constant(self, array: NDArray[Any]) -> str:
        name = f"{self._prefix}_constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name
