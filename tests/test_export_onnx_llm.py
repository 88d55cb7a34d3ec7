"""The family `onnx-llm`, with a stand-in for optimum that traces a model built by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import stand_in

from edgevoice import manifest
from edgevoice.engines import onnx_llm
from edgevoice.errors import ArtifactError, ConfigError, EdgevoiceError, ExportError
from edgevoice.export.candidates import artifact
from edgevoice.export.families.onnx_llm import FAMILY
from edgevoice.export.family import Job, Written
from edgevoice.quant.recipe import KEEP, Override, Recipe
from edgevoice.quant.scheme import find
from edgevoice.settings import LanguageModelSettings
from edgevoice.stages import Message

STAND_IN = "traced_checkpoint.py"


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return stand_in.job(tmp_path, STAND_IN)


def checkpoint(folder: Path, trouble: str = "", kind: str = "llama") -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": kind, "tests": trouble}))
    (folder / "tokenizer.json").write_text("{}")
    stand_in.write_weights(folder)
    return folder


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    out = folder / "fp32"
    out.mkdir()
    job = stand_in.job(folder, STAND_IN)
    written = FAMILY.convert(checkpoint(folder / "source"), out, job)
    publish(out, dict(written.engine))
    assert any("stored once" in note for note in written.notes)
    assert {c.name for c in written.tensors} >= {"embed", "0.q", "1.o"}
    return out


def publish(folder: Path, engine: dict[str, object]) -> None:
    described = artifact(FAMILY, folder.name, folder.name, folder, Written(engine))
    manifest.write(described, folder)


def test_every_scheme_runs_and_is_smaller(reference: Path, job: Job, tmp_path: Path) -> None:
    engine = dict(manifest.read(reference).engine)
    sizes = {"fp32": (reference / "model.onnx").stat().st_size}
    for name in FAMILY.schemes:
        out = tmp_path / f"made-{name}"
        out.mkdir()
        written = FAMILY.quantise(reference, find(name), FAMILY.recipe(name), out, job)
        publish(out, engine)
        sizes[name] = (out / "model.onnx").stat().st_size
        assert sum(c.bytes for c in written.tensors) < sizes[name]
        model = onnx_llm.load(out, LanguageModelSettings(context_tokens=256, threads=1))
        conversation = model.open()
        assert conversation.prefill([Message("user", "Hello.")]) > 10
        conversation.close()
        model.close()
    # The tables of the rotation stay float32, and they are most of so small a model.
    assert sizes["fp32"] > sizes["fp16"] > sizes["int8-weights"] > sizes["int4"]


def test_the_same_source_gives_the_same_bytes(reference: Path, job: Job, tmp_path: Path) -> None:
    again = tmp_path / "again"
    again.mkdir()
    FAMILY.convert(reference.parent / "source", again, job)
    assert (again / "model.onnx").read_bytes() == (reference / "model.onnx").read_bytes()


def test_overrides_decide_tensor_by_tensor(reference: Path, job: Job, tmp_path: Path) -> None:
    out = tmp_path / "mixed"
    out.mkdir()
    recipe = Recipe((Override("0.*", KEEP), Override("*.o", "int8-weights")))
    written = FAMILY.quantise(reference, find("int4"), recipe, out, job)
    types = {c.name: c.type for c in written.tensors}
    assert (types["0.o"], types["1.o"], types["1.q"]) == ("float32", "int8", "int4")
    with pytest.raises(ConfigError, match="unknown treatment 'int5'"):
        FAMILY.quantise(reference, find("int4"), Recipe((Override("0.q", "int5"),)), out, job)


@pytest.mark.parametrize(
    ("trouble", "error", "said"),
    [
        ("crash", ExportError, "torch and optimum-onnx cannot export it: ValueError: rope_scaling"),
        ("nan", ArtifactError, r"weight '.*1.o' has 1 of .* NaN"),
        ("strange", ExportError, "not known here .*not a rotation by halves.* as GGUF"),
        ("wrong", ExportError, "of the logits' spread away from torch"),
        ("no template", ArtifactError, "has no chat template"),
    ],
)
def test_trouble_is_one_line(
    job: Job, tmp_path: Path, trouble: str, error: type[EdgevoiceError], said: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(error, match=said) as raised:
        FAMILY.convert(checkpoint(tmp_path / "source", trouble), out, job)
    assert "\n" not in str(raised.value)


def test_options_are_checked(job: Job, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source", "no template")
    template = tmp_path / "chat.jinja"
    template.write_text("{{ messages }}")
    out = tmp_path / "out"
    out.mkdir()
    good = {**job.options, "chat-template": str(template), "context": "300"}
    written = FAMILY.convert(source, out, replace(job, options=good))
    assert written.engine["chat_template"] == "{{ messages }}"
    assert written.engine["context_tokens"] == 300
    for changes, said in (
        ({"contxt": "9"}, "unknown option 'contxt'; did you mean 'context'"),
        ({"context": "9999"}, "context='9999' must be from 256 to 512"),
        ({"chat-template": "/none"}, "chat-template='/none' cannot be read"),
        ({"python": "/none"}, "python='/none' is no program"),
    ):
        work = tmp_path / f"work-{next(iter(changes))}"
        work.mkdir()
        bad = replace(job, work=work, options={**good, **changes})
        with pytest.raises(ConfigError, match=said):
            FAMILY.convert(source, out, bad)


def test_what_a_source_says_of_itself(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source")
    assert FAMILY.recognises(source)
    assert FAMILY.inspect(source).parameters == 4
    assert not FAMILY.recognises(tmp_path)
    assert not FAMILY.recognises(checkpoint(tmp_path / "other", kind="bert"))
    with pytest.raises(ArtifactError, match="unknown architecture 'bert'"):
        FAMILY.inspect(tmp_path / "other")
    (source / "model.safetensors").write_bytes((source / "model.safetensors").read_bytes()[:-3])
    with pytest.raises(ArtifactError, match="truncated"):
        FAMILY.inspect(source)
    (source / "tokenizer.json").unlink()
    with pytest.raises(ArtifactError, match=r"has no tokenizer.json"):
        FAMILY.inspect(source)
