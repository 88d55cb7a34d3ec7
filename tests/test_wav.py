import logging
import os
import struct
import subprocess
import wave
from pathlib import Path

import numpy as np
import pytest

from edgevoice.audio.wav import read_wav, write_wav
from edgevoice.errors import AudioError
from edgevoice.frames import to_int16

RATE = 16_000


def tone(rate_hz: int = RATE) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(rate_hz) / rate_hz)).astype(np.float32)


def riff(data: bytes, codec: int = 1, channels: int = 1, rate: int = RATE, bits: int = 16) -> bytes:
    block = channels * bits // 8
    form = struct.pack("<HHIIHH", codec, channels, rate, rate * block, block, bits)
    body = b"WAVE" + b"fmt " + struct.pack("<I", 16) + form
    body += b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def saved(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "x.wav"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        (["-b", "8", "-e", "unsigned-integer"], 0.01),
        (["-b", "16"], 1e-4),
        (["-b", "24"], 1e-4),  # sox writes WAVE_FORMAT_EXTENSIBLE for these
        (["-b", "32"], 1e-4),
        (["-b", "32", "-e", "floating-point"], 1e-4),
        (["-b", "64", "-e", "floating-point"], 1e-4),
        (["-c", "2"], 1e-4),
    ],
)
def test_reads_what_sox_writes(tmp_path: Path, options: list[str], tolerance: float) -> None:
    source, other = tmp_path / "source.wav", tmp_path / "other.wav"
    write_wav(source, tone(), RATE)
    subprocess.run(["sox", "-D", source, *options, other], check=True)
    samples, rate_hz = read_wav(other)
    assert (samples.dtype, samples.shape, rate_hz) == (np.float32, (RATE,), RATE)
    assert np.abs(samples - tone()).max() < tolerance


def test_the_rate_is_the_files_own(tmp_path: Path) -> None:
    write_wav(tmp_path / "x.wav", tone(44_100), 44_100)
    assert read_wav(tmp_path / "x.wav")[1] == 44_100


def test_stereo_is_mixed(tmp_path: Path) -> None:
    both = np.stack([to_int16(tone()), np.zeros(RATE, np.int16)], axis=1)
    samples, _ = read_wav(saved(tmp_path, riff(both.tobytes(), channels=2)))
    assert np.abs(samples - tone() / 2).max() < 1e-3


def test_other_chunks_and_a_streams_unknown_size_are_no_obstacle(tmp_path: Path) -> None:
    content = riff(to_int16(tone()).tobytes())
    head, data = content[:36], content[44:]
    listed = head + b"LIST" + struct.pack("<I", 3) + b"abc\0"
    for size in (0, 0xFFFFFFFF):
        path = saved(tmp_path, listed + b"data" + struct.pack("<I", size) + data)
        assert len(read_wav(path)[0]) == RATE


def test_float_beyond_full_scale_is_clipped_and_nan_is_silence(tmp_path: Path) -> None:
    data = np.array([3.0, -3.0, np.nan, 0.5], np.float32).tobytes()
    samples, _ = read_wav(saved(tmp_path, riff(data, codec=3, bits=32)))
    assert samples.tolist() == [1.0, -1.0, 0.0, 0.5]


def test_a_truncated_file_is_read_as_far_as_it_goes_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = riff(to_int16(tone()).tobytes())
    with caplog.at_level(logging.WARNING):
        samples, _ = read_wav(saved(tmp_path, content[: 44 + 1001]))
    assert len(samples) == 500
    (record,) = caplog.records
    assert "truncated: 1001 of 32000 bytes" in record.getMessage()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"hello, this is text", "not a WAV file .*b'hell'"),
        (b"fLaC" + bytes(60), "not a WAV file .FLAC"),
        (b"RIFF\x04\0\0\0WAVE", "no format"),
        (riff(b"")[:36], "no audio data"),
        (riff(b""), "no audio"),
        (riff(bytes(64), codec=7, bits=8), "compressed .mu-law.*sox"),
        (riff(bytes(64), codec=0x1234), "codec 0x1234"),
        (riff(bytes(64), bits=12), "12 bits"),
        (riff(bytes(64), rate=0), "rate 0 Hz"),
        (riff(bytes(64))[:12] + riff(bytes(64))[36:], "data comes before"),
        (b"RIFF\x10\0\0\0WAVEfmt \x04\0\0\0\1\0\1\0data\4\0\0\0abcd", "4 bytes, 16 were expected"),
    ],
)
def test_what_cannot_be_read_gives_one_clear_line(
    tmp_path: Path, content: bytes, message: str
) -> None:
    with pytest.raises(AudioError, match=message) as raised:
        read_wav(saved(tmp_path, content))
    assert "\n" not in str(raised.value)
    assert "x.wav" in str(raised.value)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="no such file"):
        read_wav(tmp_path / "none.wav")
    with pytest.raises(AudioError, match="cannot read"):
        read_wav(tmp_path)


def test_writing_leaves_nothing_but_the_file_and_a_failure_leaves_nothing(tmp_path: Path) -> None:
    write_wav(tmp_path / "x.wav", tone(), RATE)
    write_wav(tmp_path / "x.wav", to_int16(tone()[:100]), RATE)
    assert len(read_wav(tmp_path / "x.wav")[0]) == 100
    assert os.listdir(tmp_path) == ["x.wav"]
    with pytest.raises(AudioError, match=r"cannot write .*none"):
        write_wav(tmp_path / "none" / "x.wav", tone(), RATE)


def test_a_pipe_is_written_in_place(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE) as reader:
        write_wav(pipe, tone(), RATE)
        out, _ = reader.communicate(timeout=10)
    assert len(out) == 44 + 2 * RATE
    assert pipe.is_fifo()


def test_two_channels_are_interleaved(tmp_path: Path) -> None:
    path = tmp_path / "stereo.wav"
    samples = np.array([[1, -1], [2, -2], [3, -3]], dtype=np.int16)
    write_wav(path, samples, 16_000)
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getnframes(), file.getframerate()) == (2, 3, 16_000)
        assert np.frombuffer(file.readframes(3), "<i2").reshape(-1, 2).tolist() == samples.tolist()
