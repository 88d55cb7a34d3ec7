"""What is written of a Whisper checkpoint, and the real bundle in sherpa-onnx."""

import base64
import wave
from pathlib import Path

import numpy as np
import onnx
import pytest
import sherpa_onnx
from ctranslate2_file import STATE, write_small_whisper
from whisper_reference import convert, mel_of, steps

from edgevoice import manifest
from edgevoice.errors import ArtifactError, ConfigError
from edgevoice.export.calibration import Calibration
from edgevoice.export.families import whisper, whisper_vocabulary
from edgevoice.export.families.whisper_weights import Sizes
from edgevoice.export.family import Job
from edgevoice.export.prepare import prepare
from edgevoice.quant.scheme import find

LIBRIVOX = Path("/usr/share/pocketsphinx/test/data/librivox")
# What the fp32 graphs write with 30 s of padding.
FLOAT_TEXT = {
    "0870": "And Mr. John Dashwood had then leisure to consider how much there might be prudently "
    "in his power to do for them.",
    "0880": "He was not an old-sposed young man.",
    "0890": "Unless to be rather cold-hearted and rather selfish is to be ill-disposed.",
    "0920": "Had he married a more amiable woman, he might have been made still more respectable "
    "than he was.",
    "0930": "He might even have been made amiable himself.",
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_small_whisper(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def converted(source, tmp_path_factory):
    return convert(source, tmp_path_factory.mktemp("converted"))


def test_graphs_are_valid_and_the_same_input_gives_the_same_bytes(source, converted, tmp_path):
    prepare("whisper", source, tmp_path, {"scheme": "int8"})
    written = sorted(p.name for p in tmp_path.iterdir())
    assert written == ["decoder.int8.onnx", "encoder.int8.onnx", "tokens.txt"]
    for name in written:
        assert (tmp_path / name).read_bytes() == (converted["int8"] / name).read_bytes()
    onnx.checker.check_model(str(converted["fp32"] / "encoder.onnx"), full_check=True)


def test_metadata_of_an_english_model(converted):
    model = onnx.load(str(converted["int8"] / "encoder.int8.onnx"))
    found = {p.key: p.value for p in model.metadata_props}
    assert found["sot_sequence"] == found["sot"] == "257"
    assert (found["eot"], found["is_multilingual"], found["blank_id"]) == ("256", "0", "220")
    assert (found["n_mels"], found["n_text_ctx"], found["n_text_state"]) == ("80", "64", "64")


def test_metadata_of_a_multilingual_model():
    codes = ["en", "zh", "de"]
    special = ["endoftext", "startoftranscript", *codes, "translate", "transcribe", "nospeech"]
    vocabulary = ["Ġ", *(f"<|{s}|>" for s in [*special, "notimestamps"])]
    size = Sizes(128, 1500, 1280, 20, 32, 51866, 448, 1280, 20, 4)
    found = whisper_vocabulary.metadata(size, vocabulary)
    assert found["sot_sequence"] == "2,3,7"
    assert found["all_language_codes"] == "en,zh,de"
    assert found["all_language_tokens"] == "3,4,5"
    assert (found["is_multilingual"], found["n_mels"], found["no_speech"]) == (1, 128, 8)


def test_tokens_are_bytes_in_base64(converted):
    lines = (converted["int8"] / "tokens.txt").read_text().splitlines()
    pairs = [line.split(" ") for line in lines]
    assert {base64.b64decode(token) for token, _ in pairs} == {bytes([b]) for b in range(256)}
    assert [int(i) for _, i in pairs] == list(range(256))


@pytest.mark.parametrize(("scheme", "off"), [("fp16", 0.01), ("int8-weights", 0.05), ("int4", 0.4)])
def test_the_exporter_and_pull_write_the_same_bytes(source, converted, tmp_path, scheme, off):
    pulled, exported = tmp_path / "pulled", tmp_path / "exported"
    pulled.mkdir()
    exported.mkdir()
    prepare("whisper", source, pulled, {"scheme": scheme})
    family = whisper.FAMILY
    job = Job(tmp_path, Calibration())
    done = family.quantise(converted["fp32"], find(scheme), family.recipe(scheme), exported, job)
    names = {p.name for p in pulled.iterdir()}
    assert names == {f"encoder.{scheme}.onnx", f"decoder.{scheme}.onnx", "tokens.txt"}
    assert all((pulled / n).read_bytes() == (exported / n).read_bytes() for n in names)
    recorded = {c.name: c.type for c in done.tensors}
    table = f"decoder.{scheme}.onnx:decoder/embeddings"
    kinds = {"fp16": ("_half", "float16"), "int8-weights": ("", "int8"), "int4": ("", "int4")}
    suffix, kind = kinds[scheme]
    assert recorded[table + suffix] == kind
    mel, tokens = mel_of(30), [257, 265, 40, 7, 99, 200]
    wanted = steps(converted["fp32"], "", mel, tokens)
    got = steps(exported, f".{scheme}", mel, tokens)
    difference = np.abs(got - wanted).max()
    assert difference < off * np.abs(wanted).max()
    assert (difference == 0) == (scheme == "fp16")  # the source's weights are float16


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"decoder/activation": np.int8(0)}, "activation 0"),
        ({"encoder/num_heads": np.int16(7)}, "64 channels do not make 7 heads"),
        ({"encoder/conv1/weight": np.zeros((2, 2), np.float16)}, "rank 2, not 3"),
        (
            {"decoder/embeddings/weight": np.zeros((9, STATE), np.float16)},
            "266 tokens, model.bin 9",
        ),
    ],
)
def test_a_source_that_is_not_such_a_model(tmp_path, changed, message):
    write_small_whisper(tmp_path, **changed)
    with pytest.raises(ArtifactError, match=message):
        prepare("whisper", tmp_path, tmp_path, {})


def test_options_and_kinds_that_are_not_known(source, tmp_path):
    with pytest.raises(ConfigError, match="unknown conversion 'wisper'; did you mean 'whisper'"):
        prepare("wisper", source, tmp_path, {})
    with pytest.raises(ConfigError, match=r"'int5'.*known: fp16, fp32, int4"):
        prepare("whisper", source, tmp_path, {"scheme": "int5"})
    with pytest.raises(ConfigError, match="'schema'; did you mean 'scheme'"):
        prepare("whisper", source, tmp_path, {"schema": "int8"})


@pytest.mark.bundle
def test_int8_writes_the_text_of_the_float_weights(artifact):
    folder = artifact("whisper-tiny.en-int8")
    described = manifest.read(folder)
    recogniser = sherpa_onnx.OfflineRecognizer.from_whisper(
        encoder=str(folder / described.file("encoder.int8.onnx").path),
        decoder=str(folder / described.file("decoder.int8.onnx").path),
        tokens=str(folder / described.file("tokens.txt").path),
        tail_paddings=described.engine["tail_paddings"],
    )
    for clip, text in FLOAT_TEXT.items():
        with wave.open(str(LIBRIVOX / f"sense_and_sensibility_01_austen_64kb-{clip}.wav")) as file:
            samples = np.frombuffer(file.readframes(-1), np.int16) / np.float32(32768)
        stream = recogniser.create_stream()
        stream.accept_waveform(16_000, samples)
        recogniser.decode_stream(stream)
        assert stream.result.text.strip() == text
