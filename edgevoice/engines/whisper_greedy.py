"""Whisper's decoder, greedy, on keys and values that come from anywhere: an NPU, its emulator.

sherpa-onnx runs encoder and decoder of an artifact itself, so it cannot be given an encoder's
outputs. The graph and its inputs are those of sherpa-onnx's Whisper layout, the search is its own
too: the most likely token each time, from ``sot_sequence`` and ``no_timestamps`` on.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgevoice import manifest as manifests
from edgevoice.engines.artifact_files import onnx_file, plain_file
from edgevoice.engines.ort import open_session

_MOST_TOKENS = 96


class GreedyWhisper:
    """The decoder of a Whisper artifact.

    Args:
        folder: The artifact.
        threads: Of one step.
        facts: The encoder's metadata; read from the encoder where None.
    """

    def __init__(self, folder: Path, threads: int, facts: Mapping[str, str] | None = None) -> None:
        described = manifests.read(folder)
        if facts is None:
            encoder = open_session(Path(onnx_file(folder, described, "encoder")), threads)
            facts = encoder.get_modelmeta().custom_metadata_map
        self._first = [*map(int, facts["sot_sequence"].split(",")), int(facts["no_timestamps"])]
        self._end = int(facts["eot"])
        sizes = (int(facts[key]) for key in ("n_text_layer", "n_text_ctx", "n_text_state"))
        layers, context, state = sizes
        self._empty = np.zeros((layers, 1, context, state), np.float32)
        self._session = open_session(Path(onnx_file(folder, described, "decoder")), threads)
        self._names = [i.name for i in self._session.get_inputs()]
        self._pieces = _pieces(Path(plain_file(folder, described, "tokens.txt")))

    def text(self, cross_k: Any, cross_v: Any) -> str:
        """Return what the encoder's outputs say.

        Args:
            cross_k: float32, ``[layers, heads, length, head size]``.
            cross_v: The same shape.
        """
        tokens, offset = list(self._first), 0
        caches = [self._empty, self._empty]
        found: list[int] = []
        while len(found) < _MOST_TOKENS:
            given = (np.array([tokens]), *caches, cross_k, cross_v, np.array([offset]))
            logits, *caches = self._session.run(None, dict(zip(self._names, given, strict=True)))
            offset += len(tokens)
            best = int(logits[0, -1].argmax())
            if best == self._end:
                break
            found.append(best)
            tokens = [best]
        said = b"".join(self._pieces.get(token, b"") for token in found)
        return said.decode("utf-8", "replace").strip()


def _pieces(path: Path) -> dict[int, bytes]:
    found = {}
    for line in path.read_text(encoding="ascii").splitlines():
        piece, _, token = line.rpartition(" ")
        found[int(token)] = base64.b64decode(piece)
    return found
