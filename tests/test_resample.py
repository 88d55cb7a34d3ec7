import itertools

import numpy as np
import pytest

from edgevoice.audio.resample import StreamResampler, resample
from edgevoice.frames import to_int16

RATES = [(48_000, 16_000), (44_100, 16_000), (22_050, 16_000), (8_000, 16_000), (16_000, 44_100)]


def tone(rate_hz: int, hz: float = 440.0, seconds: float = 1.0) -> np.ndarray:
    at = np.arange(round(rate_hz * seconds)) / rate_hz
    return (0.5 * np.sin(2 * np.pi * hz * at)).astype(np.float32)


@pytest.mark.parametrize(("rate_in", "rate_out"), RATES)
def test_a_tone_stays_that_tone(rate_in: int, rate_out: int) -> None:
    converted = resample(tone(rate_in), rate_in, rate_out)
    assert converted.dtype == np.float32
    assert abs(len(converted) - rate_out) <= 1
    inner = slice(rate_out // 10, -rate_out // 10)
    error = converted[:rate_out][inner] - tone(rate_out)[inner]
    assert np.sqrt(np.mean(error**2)) < 1e-3


def test_what_lies_above_the_new_band_does_not_fold_into_it() -> None:
    assert np.abs(resample(tone(48_000, hz=11_000), 48_000, 16_000)[500:-500]).max() < 1e-3


@pytest.mark.parametrize(("rate_in", "rate_out"), RATES)
@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_a_stream_gives_what_the_whole_gives(rate_in: int, rate_out: int, dtype: str) -> None:
    whole = tone(rate_in)
    if dtype == "int16":
        whole = to_int16(whole)
    stream = StreamResampler(rate_in, rate_out, dtype)  # type: ignore[arg-type, var-annotated]
    sizes = itertools.cycle([1, 160, 441, 0, 1023])
    parts, at = [], 0
    while at < len(whole):
        size = next(sizes)
        parts.append(stream.convert(whole[at : at + size]))
        at += size
    parts.append(stream.finish())
    joined = np.concatenate(parts)
    expected = resample(whole, rate_in, rate_out)
    assert joined.dtype == expected.dtype == np.dtype(dtype)
    assert len(joined) == len(expected)
    assert np.abs(joined.astype(float) - expected).max() <= (2 if dtype == "int16" else 1e-4)


def test_a_stream_can_be_used_again_after_its_end() -> None:
    stream = StreamResampler(48_000, 16_000, "float32")  # type: ignore[var-annotated]
    first = np.concatenate((stream.convert(tone(48_000)), stream.finish()))
    again = np.concatenate((stream.convert(tone(48_000)), stream.finish()))
    assert np.array_equal(first, again)


def test_the_delay_is_known() -> None:
    stream = StreamResampler(48_000, 16_000, "float32", quality="LQ")  # type: ignore[var-annotated]
    given = 0
    for _ in range(20):
        given += len(stream.convert(tone(48_000, seconds=0.01)))
    assert stream.delay_s == pytest.approx(0.2 - given / 16_000, abs=0.002)


def test_equal_rates_change_nothing_and_a_wrong_type_is_refused() -> None:
    stream = StreamResampler(16_000, 16_000, "int16")  # type: ignore[var-annotated]
    samples = to_int16(tone(16_000))
    assert np.array_equal(stream.convert(samples), samples)
    assert len(stream.finish()) == 0
    assert np.array_equal(resample(samples, 16_000, 16_000), samples)
    with pytest.raises(TypeError, match="float32"):
        stream.convert(tone(16_000))
