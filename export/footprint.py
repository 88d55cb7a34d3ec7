"""What an artifact costs before it does anything: the time and memory of loading it.

Run in a child process (:mod:`edgevoice.quant.child`). The load is the runtime's own, with the
runtime's own engine; its first load of an artifact happens here. The files are looked through
afterwards, when the peak has been read.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from edgevoice import host, manifest, native_memory
from edgevoice.errors import ArtifactError
from edgevoice.export import soundness
from edgevoice.settings import (
    EndOfTurnSettings,
    LanguageModelSettings,
    RecogniserSettings,
    SpeechSettings,
)


def inspect(folder: Path, threads: int) -> dict[str, Any]:
    """Load the artifact in ``folder`` as the runtime does, then look through its weights.

    Returns:
        ``load_s``, ``peak_memory_mb`` (MiB, the interpreter and the engine included), and what
        :func:`edgevoice.export.soundness.scan` found.

    Raises:
        ArtifactError: Its engine cannot load it, or a file is damaged.
    """
    native_memory.bound()
    described = manifest.read(folder)
    loaders = {
        "vad": _vad,
        "recogniser": _recogniser,
        "end-of-turn": _end_of_turn,
        "language-model": _language_model,
        "speech": _speech,
    }
    loader = loaders.get(described.stage, _sessions)
    started = time.perf_counter()
    loader(folder, threads)
    load_s = time.perf_counter() - started
    return {
        "load_s": load_s,
        "peak_memory_mb": host.peak_memory_mb(),
        **soundness.scan(folder),
    }


def _sessions(folder: Path, threads: int) -> object:
    """Open every graph, for a stage that no conversation has yet."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        return [
            onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            for path in sorted(folder.rglob("*.onnx"))
        ]
    except Exception as error:  # onnxruntime raises a dozen classes without a public base
        raise ArtifactError(f"{folder} cannot be loaded: {str(error).splitlines()[0]}") from error


def _vad(folder: Path, threads: int) -> None:
    from edgevoice.engines import silero_vad

    del threads  # it runs on one
    silero_vad.load_unguarded(folder)


def _recogniser(folder: Path, threads: int) -> object:
    from edgevoice.engines.recogniser import load_unguarded

    return load_unguarded(folder, RecogniserSettings(threads=threads))


def _end_of_turn(folder: Path, threads: int) -> object:
    from edgevoice.engines.recogniser import load_end_of_turn_unguarded

    return load_end_of_turn_unguarded(folder, EndOfTurnSettings(threads=threads))


def _language_model(folder: Path, threads: int) -> object:
    settings = LanguageModelSettings(threads=threads, context_tokens=256, max_answer_tokens=2)
    if manifest.read(folder).format == "gguf":
        from edgevoice.engines import gguf

        return gguf.load(folder, settings)
    from edgevoice.engines import onnx_llm

    return onnx_llm.load(folder, settings)


def _speech(folder: Path, threads: int) -> object:
    from edgevoice.engines.speech import load_unguarded

    return load_unguarded(folder, SpeechSettings(threads=threads))
