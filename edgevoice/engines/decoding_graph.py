"""Gives a streaming CTC recogniser of sherpa-onnx a lexicon to decode with.

sherpa-onnx reads its graph from a file and keeps it in memory; the file is made here, of the
pack's lexicon and the user's words, and is gone once it is read. Its constructor for WeNet's models
takes no graph, so that the recogniser is made once more from its own configuration.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sherpa_onnx import online_recognizer

from edgevoice.engines import ctc_topology, lexicon, own_words
from edgevoice.engines.ctc_tokens import Speller
from edgevoice.errors import ArtifactError

MOST_ACTIVE = 2000
"""States that are followed in a frame."""


def use(recognizer: Any, path: Path, tokens: Path, phrases: Sequence[str]) -> None:
    """Have ``recognizer``, an OnlineRecognizer, decode with the lexicon at ``path``.

    Args:
        tokens: The pack's tokens.txt; its blank is number 0.
        phrases: The user's own words.

    Raises:
        ArtifactError: The lexicon is damaged, or of other tokens, or there is no room to unpack it.
        ConfigError: A phrase cannot be written by this pack.
    """
    names = lexicon.tokens(tokens)
    found = lexicon.read(path)
    if found.space != Speller(names).space or found.label.max() >= len(names):
        raise ArtifactError(f"{path} was made for other tokens than {tokens}; export them together")
    graph = ctc_topology.expand(own_words.add(found, phrases, names))
    try:
        with tempfile.TemporaryDirectory(prefix="edgevoice-") as folder:
            file = Path(folder) / "graph.fst"
            ctc_topology.write(graph, file)
            recognizer.config.ctc_fst_decoder_config = online_recognizer.OnlineCtcFstDecoderConfig(
                str(file), MOST_ACTIVE
            )
            recognizer.recognizer = online_recognizer._Recognizer(recognizer.config)
    except OSError as error:
        raise ArtifactError(
            f"cannot unpack {path} into {tempfile.gettempdir()}: {error.strerror}; make room there "
            "or set TMPDIR to a folder that has some"
        ) from error
