"""WAV files: reading the kinds that people have, and writing 16-bit PCM whole or not at all.

Owns the RIFF format (Python's ``wave`` refuses float and, before 3.12, WAVE_FORMAT_EXTENSIBLE).
Leaves the conversion of sample rates to :mod:`edgevoice.audio.resample`. Format: Microsoft,
"Multiple channel audio data and WAVE files", and mmreg.h for the codec numbers.
"""

from __future__ import annotations

import logging
import struct
from pathlib import Path

import numpy as np

from edgevoice.errors import AudioError
from edgevoice.frames import Float32, Int16, to_int16
from edgevoice.whole_file import write_whole

_log = logging.getLogger(__name__)

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_CODECS = {
    0x0002: "Microsoft ADPCM",
    0x0006: "A-law",
    0x0007: "mu-law",
    0x0011: "IMA ADPCM",
    0x0031: "GSM 6.10",
    0x0050: "MPEG layer 2",
    0x0055: "MP3",
    0x0161: "WMA",
    0x674F: "Ogg Vorbis",
    0xF1AC: "FLAC",
}
_KNOWN_AS = {b"fLaC": "FLAC", b"OggS": "Ogg", b"ID3": "MP3", b"\xff\xfb": "MP3", b"FORM": "AIFF"}
_RATES_HZ = (1_000, 768_000)
_UNKNOWN_SIZES = (0, 0xFFFFFFFF, 0x7FFFFFFF)  # what programs write that stream into a pipe
_HOW_TO_CONVERT = "convert it, for example: sox {0} -b 16 -e signed-integer -r 16000 -c 1 new.wav"


def read_wav(path: Path) -> tuple[Float32, int]:
    """Read a WAV file: PCM of 8, 16, 24 or 32 bits or float of 32 or 64, any channels and rate.

    A file that ends before its header says so is read as far as it goes, with one warning in
    the log.

    Returns:
        float32 samples in [-1, 1], shape ``[n]``, channels mixed to one; and the rate in Hz.

    Raises:
        AudioError: The file cannot be read, is not a WAV, is compressed, or holds no audio.
    """
    try:
        content = memoryview(path.read_bytes())
    except FileNotFoundError:
        raise AudioError(f"no such file: {path}") from None
    except OSError as error:
        raise AudioError(f"cannot read {path}: {error.strerror}") from error
    if not content:
        raise AudioError(f"{path} is empty (0 bytes); expected a WAV file")
    if bytes(content[:4]) not in (b"RIFF", b"RF64") or bytes(content[8:12]) != b"WAVE":
        kind = next(
            (k for magic, k in _KNOWN_AS.items() if content[:4].tobytes()[: len(magic)] == magic),
            "",
        )
        found = kind or f"it starts with {bytes(content[:4])!r}"
        raise AudioError(f"{path} is not a WAV file ({found}); {_HOW_TO_CONVERT.format(path)}")
    return _decode(path, *_chunks(path, content))


def _chunks(path: Path, content: memoryview) -> tuple[memoryview, memoryview]:
    """Find the format and the data chunk."""
    form: memoryview | None = None
    at = 12
    while at + 8 <= len(content):
        name = bytes(content[at : at + 4])
        (size,) = struct.unpack_from("<I", content, at + 4)
        body = content[at + 8 : at + 8 + size]
        if name == b"fmt ":
            form = body
        elif name == b"data":
            if form is None:
                raise AudioError(f"{path} is damaged: its data comes before its format")
            if size in _UNKNOWN_SIZES:
                body = content[at + 8 :]
            elif len(body) < size:
                _log.warning(
                    "%s is truncated: %d of %d bytes of audio are there and are used",
                    path,
                    len(body),
                    size,
                )
            return form, body
        at += 8 + size + size % 2
    missing = "format" if form is None else "audio data"
    raise AudioError(f"{path} is damaged or cut off: it has no {missing}; record or copy it again")


def _decode(path: Path, form: memoryview, data: memoryview) -> tuple[Float32, int]:
    if len(form) < 16:
        raise AudioError(f"{path} is damaged: its format takes {len(form)} bytes, 16 were expected")
    codec, channels, rate_hz, _, block, bits = struct.unpack_from("<HHIIHH", form)
    if codec == _EXTENSIBLE and len(form) >= 26:
        (codec,) = struct.unpack_from("<H", form, 24)  # the first field of the sub-format's GUID
    if codec not in (_PCM, _FLOAT):
        name = _CODECS.get(codec, f"codec 0x{codec:04x}")
        raise AudioError(f"{path} is compressed ({name}); {_HOW_TO_CONVERT.format(path)}")
    width = bits // 8
    allowed = (8, 16, 24, 32) if codec == _PCM else (32, 64)
    if bits not in allowed or not channels or block != channels * width:
        raise AudioError(
            f"{path}: {bits} bits and {channels} channels in blocks of {block} bytes; "
            f"bits may be {', '.join(map(str, allowed))}"
        )
    if not _RATES_HZ[0] <= rate_hz <= _RATES_HZ[1]:
        raise AudioError(
            f"{path}: sample rate {rate_hz} Hz; allowed: {_RATES_HZ[0]} to {_RATES_HZ[1]}"
        )
    whole = data[: len(data) - len(data) % block]
    if not whole:
        raise AudioError(f"{path} holds no audio (0 samples)")
    mixed = _to_float(whole, codec, width).reshape(-1, channels).mean(axis=1, dtype=np.float32)
    return np.clip(np.nan_to_num(mixed, nan=0.0), -1.0, 1.0), rate_hz


def _to_float(data: memoryview, codec: int, width: int) -> Float32:
    if codec == _FLOAT:
        return np.frombuffer(data, dtype=f"<f{width}").astype(np.float32)
    if width == 1:  # 8-bit PCM is unsigned, wider PCM is signed
        return (np.frombuffer(data, dtype=np.uint8).astype(np.float32) - 128) / np.float32(128)
    if width == 3:
        wide = np.zeros((len(data) // 3, 4), dtype=np.uint8)
        wide[:, 1:] = np.frombuffer(data, dtype=np.uint8).reshape(-1, 3)
        return (wide.view("<i4")[:, 0] / 2.0**31).astype(np.float32)
    full = 2.0 ** (8 * width - 1)
    return (np.frombuffer(data, dtype=f"<i{width}") / full).astype(np.float32)


def encode_wav(samples: Int16 | Float32, rate_hz: int) -> bytes:
    """Return a file of 16-bit PCM, shape ``[n]`` or ``[n, channels]``; float32 is in [-1, 1]."""
    pcm = to_int16(samples.astype(np.float32)) if samples.dtype.kind == "f" else samples
    data = pcm.astype("<i2").tobytes()
    channels = pcm.shape[1] if pcm.ndim == 2 else 1
    header = struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF", 36 + len(data), b"WAVE",
        b"fmt ", 16, _PCM, channels, rate_hz, 2 * channels * rate_hz, 2 * channels, 16,
        b"data", len(data),
    )  # fmt: skip
    return header + data


def write_wav(path: Path, samples: Int16 | Float32, rate_hz: int) -> None:
    """Write what :func:`encode_wav` returns; the file appears whole, by a rename.

    What is not a regular file (``/dev/null``, a pipe) is written in place.

    Raises:
        AudioError: The folder is missing or cannot be written.
    """
    try:
        write_whole(path, encode_wav(samples, rate_hz))
    except OSError as error:
        raise AudioError(f"cannot write {path}: {error.strerror}") from error
