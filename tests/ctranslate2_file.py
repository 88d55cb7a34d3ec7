"""Writes CTranslate2 ``model.bin`` files for the tests: any variables, or a small Whisper."""

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

CODES = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}
STATE, HEADS, LAYERS, MELS, AUDIO, TEXT = 64, 2, 2, 80, 1500, 64


def string(text):
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def encode(
    variables: Mapping[str, np.ndarray], aliases=(), specification="WhisperSpec", version=6
) -> bytes:
    parts = [struct.pack("<I", version), string(specification), struct.pack("<II", 3, 0)]
    parts[-1] = struct.pack("<II", 3, len(variables))
    for name, values in variables.items():
        array = np.asarray(values)
        parts.append(string(name) + struct.pack("<B", array.ndim))
        parts.append(struct.pack(f"<{array.ndim}I", *array.shape))
        parts.append(struct.pack("<BI", CODES[array.dtype.name], array.nbytes) + array.tobytes())
    parts.append(struct.pack("<I", len(aliases)))
    parts += [string(a) + string(b) for a, b in aliases]
    return b"".join(parts)


def small_vocabulary() -> list[str]:
    """256 byte tokens and Whisper's special ones; English only, since there are few."""
    printable = [*range(33, 127), *range(0xA1, 0xAD), *range(0xAE, 256)]
    others = [chr(256 + i) for i in range(256 - len(printable))]
    special = ["endoftext", "startoftranscript", "en", "de", "translate", "transcribe"]
    special += ["startoflm", "startofprev", "nocaptions", "notimestamps"]
    return [*map(chr, printable), *others, *(f"<|{s}|>" for s in special)]


def small_whisper(seed=1) -> dict[str, np.ndarray]:
    """Variables of a random Whisper with the sizes at the top of this module, float16."""
    random = np.random.default_rng(seed)
    variables: dict[str, np.ndarray] = {}

    def matrix(name, *shape):
        spread = 1 / np.sqrt(np.prod(shape[1:]))
        variables[name] = (random.standard_normal(shape) * spread).astype(np.float16)

    def vector(name, size, about=0.0):
        variables[name] = (about + 0.1 * random.standard_normal(size)).astype(np.float16)

    def linear(name, rows, columns):
        matrix(f"{name}/weight", rows, columns)
        vector(f"{name}/bias", rows)

    def norm(name):
        vector(f"{name}/gamma", STATE, 1.0)
        vector(f"{name}/beta", STATE)

    for stack, context in (("encoder", AUDIO), ("decoder", TEXT)):
        matrix(f"{stack}/position_encodings/encodings", context, STATE)
        variables[f"{stack}/num_heads"] = np.int16(HEADS)
        norm(f"{stack}/layer_norm")
        for i in range(LAYERS):
            layer = f"{stack}/layer_{i}"
            norm(f"{layer}/self_attention/layer_norm")
            linear(f"{layer}/self_attention/linear_0", 3 * STATE, STATE)
            linear(f"{layer}/self_attention/linear_1", STATE, STATE)
            norm(f"{layer}/ffn/layer_norm")
            linear(f"{layer}/ffn/linear_0", 4 * STATE, STATE)
            linear(f"{layer}/ffn/linear_1", STATE, 4 * STATE)
            if stack == "decoder":
                norm(f"{layer}/attention/layer_norm")
                linear(f"{layer}/attention/linear_0", STATE, STATE)
                linear(f"{layer}/attention/linear_1", 2 * STATE, STATE)
                linear(f"{layer}/attention/linear_2", STATE, STATE)
    for name, inputs in (("conv1", MELS), ("conv2", STATE)):
        matrix(f"encoder/{name}/weight", STATE, inputs, 3)
        vector(f"encoder/{name}/bias", STATE)
    matrix("decoder/embeddings/weight", len(small_vocabulary()), STATE)
    variables["decoder/activation"] = np.int8(3)
    return variables


def write_small_whisper(folder: Path, **changed) -> Path:
    """Write a small Whisper's ``model.bin`` and ``vocabulary.txt`` into ``folder``."""
    aliases = [("decoder/projection/weight", "decoder/embeddings/weight")]
    (folder / "model.bin").write_bytes(encode(small_whisper() | changed, aliases))
    (folder / "vocabulary.txt").write_text("\n".join(small_vocabulary()) + "\n", "utf-8")
    return folder
