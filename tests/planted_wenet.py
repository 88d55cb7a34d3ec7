"""A streaming pack that hears what it is told to, in letters or in pieces of words."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from edgevoice import manifest
from edgevoice.engines import lexicon
from edgevoice.engines.lexicon import Lexicon
from edgevoice.engines.sherpa_online import OnlineRecogniserModel
from edgevoice.engines.sherpa_online_packs import load_online
from edgevoice.export.distil.alphabet import Alphabet
from edgevoice.manifest import ArtifactFile, Manifest
from edgevoice.settings import RecogniserSettings


def scores(text: str, tokens: Sequence[str], sure: float = 0.9) -> np.ndarray:
    """Log-probabilities of a recogniser that hears `text`, two frames a token and a blank."""
    rows = []
    for number in Alphabet(tokens).encode(text):
        rows += [_sure(number, len(tokens), sure)] * 2 + [_sure(0, len(tokens), sure)]
    return np.log(np.array(rows, np.float32))


def _sure(number: int, tokens: int, sure: float) -> np.ndarray:
    row = np.full(tokens, (1 - sure) / (tokens - 1))
    row[number] = sure
    return row


def planted(
    folder: Path, said: Sequence[np.ndarray], tokens: Sequence[str], chunk: int = 16
) -> Path:
    """A WeNet pack that hears what `said` says, whatever it is fed: frame by frame, then blanks."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = np.concatenate(said)
    quiet = np.full((4096 - len(rows), len(tokens)), -12.0, np.float32)
    quiet[:, 0] = 0.0
    table = np.concatenate([rows, quiet])
    left = chunk
    constants = {
        "table": table,
        "within": np.arange(chunk, dtype=np.int64),
        "axis": np.array([0], np.int64),
        "last": np.array(len(table) - 1, np.int64),
    }
    nodes = [
        helper.make_node("Sub", ["offset", "required_cache_size"], ["done"]),
        helper.make_node("Add", ["done", "within"], ["at"]),
        helper.make_node("Min", ["at", "last"], ["row"]),
        helper.make_node("Gather", ["table", "row"], ["rows"], axis=0),
        helper.make_node("Unsqueeze", ["rows", "axis"], ["log_probs"]),
        helper.make_node("Identity", ["attn_cache"], ["next_attn_cache"]),
        helper.make_node("Identity", ["conv_cache"], ["next_conv_cache"]),
    ]
    caches = {"attn_cache": [1, 1, left, 2], "conv_cache": [1, 1, 1, 1]}
    inputs = [
        ("chunk", TensorProto.FLOAT, [1, 2 * chunk + 3, 80]),
        ("offset", TensorProto.INT64, [1]),
        ("required_cache_size", TensorProto.INT64, [1]),
        *((name, TensorProto.FLOAT, shape) for name, shape in caches.items()),
        ("attn_mask", TensorProto.BOOL, [1, 1, left + chunk]),
    ]
    outputs = [("log_probs", TensorProto.FLOAT, [1, chunk, len(tokens)])]
    outputs += [(f"next_{name}", TensorProto.FLOAT, shape) for name, shape in caches.items()]
    graph = helper.make_graph(
        nodes,
        "planted",
        [helper.make_tensor_value_info(*i) for i in inputs],
        [helper.make_tensor_value_info(*o) for o in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    facts = {"head": 1, "num_blocks": 1, "output_size": 1, "cnn_module_kernel": 2}
    facts |= {"right_context": 4, "subsampling_factor": 2, "vocab_size": len(tokens)}
    helper.set_model_props(model, {key: str(value) for key, value in facts.items()})
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    (folder / "tokens.txt").write_text("".join(f"{t} {n}\n" for n, t in enumerate(tokens)))
    return folder


def load(folder: Path, graph: Lexicon | None, words: Sequence[str] = ()) -> OnlineRecogniserModel:
    """The planted pack, with `graph` to decode with."""
    if graph is not None:
        lexicon.write(graph, folder / lexicon.FILE)
    files = tuple(
        ArtifactFile(path.name, path.stat().st_size, "0" * 64) for path in sorted(folder.iterdir())
    )
    engine = {"chunk_size": 16, "num_left_chunks": 1, "subsampling": 2}
    about = Manifest(
        *("planted", "recogniser", "wenet-ctc", "onnx", "fp32", "MIT", "tests"), files, engine
    )
    manifest.write(about, folder)
    return load_online(folder, about, RecogniserSettings(words=tuple(words)))
