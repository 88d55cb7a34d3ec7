"""Moonshine as its makers publish it: their tokenizer becomes tokens.txt, the graphs stay."""

import base64
from pathlib import Path

import pytest

from edgevoice.errors import ArtifactError, ConfigError
from edgevoice.export import family as families
from edgevoice.export.calibration import Calibration
from edgevoice.export.families.moonshine_v2 import prepare, read_tokenizer, tokens_text
from edgevoice.export.family import Job
from edgevoice.quant.scheme import SCHEMES

FAMILY = families.load("moonshine-v2")
TOKENS = (b"<unk>", b"<s>", b"</s>", b"", b"\x00", "▁the".encode(), b"x" * 127, b"y" * 300)


def tokenizer(tokens: tuple[bytes, ...]) -> bytes:
    def length(size: int) -> bytes:
        return bytes([size]) if size < 128 else bytes([128 + size % 128, size // 128])

    return b"".join(length(len(token)) + token for token in tokens)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "tokenizer.bin").write_bytes(tokenizer(TOKENS))
    for name in ("encoder_model.ort", "decoder_model_merged.ort"):
        (folder / name).write_bytes(b"\x1c\x00\x00\x00ORTM" + name.encode())
    return folder


def test_the_tokenizer_is_read_whole(source: Path) -> None:
    assert read_tokenizer(source / "tokenizer.bin") == TOKENS
    lines = tokens_text(TOKENS).splitlines()
    assert [base64.b64decode(line.split(" ")[0]) for line in lines] == list(TOKENS)
    assert [int(line.split(" ")[1]) for line in lines] == list(range(len(TOKENS)))


@pytest.mark.parametrize("lost", [1, 200, 301, 302])
def test_a_truncated_tokenizer_is_one_line(source: Path, lost: int) -> None:
    path = source / "tokenizer.bin"
    path.write_bytes(path.read_bytes()[:-lost])
    if lost == 302:  # exactly the last token and its length
        assert read_tokenizer(path) == TOKENS[:-1]
        return
    with pytest.raises(ArtifactError, match=r"ends inside token 7; fetch it again"):
        read_tokenizer(path)


def test_the_catalogue_prepares_it(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    made = prepare(source, out, {})
    assert (made.format, made.scheme, made.engine) == ("onnx", "int8", {"sample_rate_hz": 16_000})
    assert {p.name for p in out.iterdir()} == {"encoder.ort", "decoder.ort", "tokens.txt"}
    assert (out / "tokens.txt").read_text() == tokens_text(TOKENS)
    with pytest.raises(ConfigError, match="unknown option of a Moonshine pack 'scheme'"):
        prepare(source, out, {"scheme": "int8"})


def test_the_exporter_keeps_it(source: Path, tmp_path: Path) -> None:
    assert families.recognise(source) == (FAMILY,)
    assert FAMILY.inspect(source).detail["quantised already"] == "encoder, decoder"
    job = Job(tmp_path, Calibration())
    float_like, out = tmp_path / "f", tmp_path / "o"
    float_like.mkdir()
    out.mkdir()
    written = FAMILY.convert(source, float_like, job)
    assert (written.notes[0], written.scheme) == ("encoder.ort passes through unread", "int8")
    FAMILY.quantise(float_like, SCHEMES["int8"], FAMILY.recipe("int8"), out, job)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == {
        p.name: p.read_bytes() for p in float_like.iterdir()
    }
    with pytest.raises(ArtifactError, match="quantised already, fp16 cannot be made of it"):
        FAMILY.quantise(float_like, SCHEMES["fp16"], FAMILY.recipe("fp16"), out, job)


def test_what_is_no_graph_is_refused(source: Path, tmp_path: Path) -> None:
    (source / "encoder_model.ort").write_bytes(b"<html>not found</html>")
    with pytest.raises(ArtifactError, match="not in onnxruntime's format; fetch it again"):
        FAMILY.convert(source, tmp_path, Job(tmp_path, Calibration()))


def test_two_graphs_of_another_model_are_not_taken_for_it(source: Path) -> None:
    (source / "tokenizer.bin").unlink()
    for path in source.glob("*.ort"):
        path.rename(path.with_suffix(".onnx"))
    assert not FAMILY.recognises(source)
